//! From files to workloads.

use std::path::{Path, PathBuf};

use rk_sched::simulate::{
    Workload,
    manifests::{self, ManifestError},
    perf::{self, Case, PerfError},
    trace::{self, Source, TraceError},
};

use crate::flags::{Replaying, UnitFlags};

/// An input that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error(transparent)]
    Perf(#[from] PerfError),
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    Manifest { path: PathBuf, error: ManifestError },
    #[error(transparent)]
    Manifests(ManifestError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("no workload is named, or has the label, {0:?}; --list tells which there are")]
    NoWorkload(String),
}

/// The workloads of these files that were asked for; all if none were.
pub fn perf(files: &[PathBuf], wanted: &[String]) -> Result<Vec<Case>, InputError> {
    let mut cases = Vec::new();
    for file in files {
        cases.extend(perf::cases(file)?);
    }
    let is = |case: &Case, wanted: &String| {
        let name = case.name();
        name == *wanted
            || name.strip_prefix(wanted.as_str()).is_some_and(|behind| behind.starts_with('/'))
            || case.labels().any(|label| label == wanted)
    };
    if let Some(unknown) = wanted.iter().find(|wanted| !cases.iter().any(|case| is(case, wanted))) {
        return Err(InputError::NoWorkload(unknown.clone()));
    }
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|wanted| is(case, wanted)));
    Ok(cases)
}

/// The cluster that these files are a dump of.
pub fn manifests(files: &[PathBuf], replay: Replaying) -> Result<Workload, InputError> {
    let mut objects = Vec::new();
    for path in files {
        let read = |error| InputError::Read { path: path.clone(), error };
        let parsed = manifests::parse(&std::fs::read_to_string(path).map_err(read)?);
        objects.extend(parsed.map_err(|error| InputError::Manifest { path: path.clone(), error })?);
    }
    manifests::workload(&name_of(&files[0]), objects, replay.into()).map_err(InputError::Manifests)
}

/// A trace.
pub fn trace(nodes: &Path, pods: &Path, units: &UnitFlags) -> Result<Workload, InputError> {
    let source = Source { nodes: nodes.to_owned(), pods: pods.to_owned(), units: units.units() };
    Ok(trace::workload(&name_of(pods), &source)?)
}

fn name_of(path: &Path) -> String {
    path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
