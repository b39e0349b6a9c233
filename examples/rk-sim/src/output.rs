//! What is told and written.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rk_sched::simulate::{Comparison, perf::Case, report, trace};

use crate::flags::Lab;

/// Something could not be told.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("standard output: {0}")]
    Stdout(#[from] io::Error),
    #[error(transparent)]
    Html(#[from] report::PlotError),
    #[error("CSV: {0}")]
    Csv(String),
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
}

fn write(path: &Path, text: &str) -> Result<(), OutputError> {
    fs::write(path, text).map_err(|error| OutputError::File { path: path.to_owned(), error })
}

fn print(text: &str) -> Result<(), OutputError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Who reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Which workloads there are.
pub fn list(cases: &[Case]) -> Result<(), OutputError> {
    let line = |case: &Case| {
        let labels: Vec<&str> = case.labels().collect();
        let threshold = case.threshold().map_or_else(String::new, |threshold| format!("  {threshold} pods/s"));
        format!("{}  [{}]{threshold}\n", case.name(), labels.join(", "))
    };
    print(&cases.iter().map(line).collect::<String>())
}

/// Tells what came of an experiment.
pub fn report(comparison: &Comparison, lab: &Lab) -> Result<(), OutputError> {
    let mut text = format!("{}\n{}", comparison.workload, report::table(comparison));
    for outcome in &comparison.outcomes {
        for run in outcome.runs.iter().filter(|run| !run.history.is_empty()) {
            text.push_str(&format!("\n{}, seed {}\n{}\n", outcome.name, run.summary.seed, run.history.join("\n")));
        }
    }
    print(&text)?;
    let runs = || comparison.outcomes.iter().flat_map(|outcome| &outcome.runs);
    let is_told =
        |pod: &String| runs().flat_map(|run| &run.history).any(|line| line.split("  ").nth(1) == Some(pod.as_str()));
    for pod in lab.explain().iter().filter(|pod| !is_told(pod)) {
        // That nobody reads it is no reason to end.
        let _ = writeln!(io::stderr(), "no pod was named {pod}");
    }
    if let Some(path) = lab.html() {
        write(path, &report::html(comparison)?)?;
    }
    if let Some(path) = lab.csv() {
        write(path, &report::csv(comparison).map_err(|error| OutputError::Csv(error.to_string()))?)?;
    }
    if let Some(path) = lab.json() {
        write(path, &serde_json::to_string_pretty(&report::json(comparison))?)?;
    }
    Ok(())
}

/// Makes a trace.
pub fn generate(nodes: usize, pods: usize, load: f64, seed: u64, to: &Path) -> Result<(), OutputError> {
    fs::create_dir_all(to).map_err(|error| OutputError::File { path: to.to_owned(), error })?;
    let trace = trace::generate(nodes, pods, load, seed);
    Ok(trace::write(&trace, &to.join("nodes.csv"), &to.join("pods.csv"))?)
}
