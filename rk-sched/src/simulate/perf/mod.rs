//! Workloads in the format of Kubernetes' scheduler_perf (`performance-config.yaml`), as they are.
//!
//! What they ask of kube-scheduler alone (feature gates, metrics of its own) changes nothing here. Pods have no duration and nobody
//! replaces them, as in scheduler_perf, where neither kubelets nor controllers run.

mod build;
mod devices;
mod format;
mod steady;

use std::path::{Path, PathBuf};

use self::{
    build::Builder,
    format::{TestCase, WorkloadSpec},
};
use super::{objects::yaml, workload::Workload};

/// A workload file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct PerfError {
    /// The file: the configuration, or a template that it names.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

impl PerfError {
    fn new(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

fn read(path: &Path) -> Result<String, PerfError> {
    std::fs::read_to_string(path).map_err(|error| PerfError::new(path, error))
}

/// A workload of a test case.
#[derive(Debug, Clone)]
pub struct Case {
    path: PathBuf,
    case: std::sync::Arc<TestCase>,
    spec: WorkloadSpec,
}

/// Reads all workloads of a file.
///
/// # Errors
/// The file can't be read, or is not in the format.
pub fn cases(path: &Path) -> Result<Vec<Case>, PerfError> {
    let text = read(path)?;
    let cases: Vec<TestCase> = yaml(&text).map_err(|error| PerfError::new(path, error))?;
    let all = cases.into_iter().flat_map(|mut case| {
        let specs = std::mem::take(&mut case.workloads);
        let case = std::sync::Arc::new(case);
        specs.into_iter().map(move |spec| Case { path: path.to_owned(), case: std::sync::Arc::clone(&case), spec })
    });
    Ok(all.collect())
}

impl Case {
    /// Its name, as `TestCase/Workload`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.case.name, self.spec.name)
    }

    /// The labels of the test case and of the workload, such as `performance` and `short`.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.case.labels.iter().chain(&self.spec.labels).map(String::as_str)
    }

    /// How many pods per second kube-scheduler has to bind in Kubernetes' own runs; `None` where nothing is asked.
    pub fn threshold(&self) -> Option<f64> {
        self.spec.threshold.as_f64().filter(|threshold| *threshold > 0.0)
    }

    /// The scheduler configuration that it is meant for, if it names one.
    pub fn scheduler_config(&self) -> Option<PathBuf> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        self.case.scheduler_config_path.as_ref().map(|path| folder.join(path))
    }

    /// Reads the templates and makes the workload.
    ///
    /// # Errors
    /// A template can't be read or is of no use, or an operation asks for something that is not supported.
    pub fn workload(&self) -> Result<Workload, PerfError> {
        Builder::new(&self.path, &self.case, &self.spec).build(self.name())
    }
}
