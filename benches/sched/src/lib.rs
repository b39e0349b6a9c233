//! The scheduler on the workloads of scheduler_perf, by its names.
//!
//! - [`in_process`]: the scheduling cycle alone: a typed pod becomes one that is assumed on a node.
//! - [`end_to_end`]: an API server over the durable store, a client that creates the pods, and the scheduler that binds them, as
//!   scheduler_perf measures it; all three share this process.
//!
//! [`workloads`] has the tables of workloads with what kube-scheduler is held to, [`shapes`] the nodes and pods.

#[cfg(feature = "end-to-end")]
pub mod end_to_end;
pub mod in_process;
pub mod options;
pub mod shapes;
pub mod workloads;

use std::io;

use options::{Options, Part};
use rk_benches_common::progress::Progress;

/// Measures what is asked for and prints it.
///
/// # Errors
/// A workload can't be run to its end.
pub fn run(options: &Options) -> io::Result<()> {
    let wanted = workloads::all().into_iter().filter(|workload| options.wants(workload.name));
    let wanted: Vec<_> = wanted.map(|workload| workload.shrunk(options.shrink)).collect();
    let rounds = (wanted.len() * options.rounds) as u64;
    let steps = |part: Part| if !options.does(part) { 0 } else { rounds };
    let growth = if options.does(Part::Growth) { in_process::growth_steps() * options.rounds as u64 } else { 0 };
    let memory = u64::from(options.does(Part::Memory));
    let mut progress = Progress::new(memory + steps(Part::InProcess) + growth + steps(Part::EndToEnd));
    // First, as memory that was used once is not all given back.
    if options.does(Part::Memory) {
        in_process::memory(&mut progress)?;
    }
    if options.does(Part::InProcess) {
        in_process::rates(&wanted, options, &mut progress)?;
    }
    if options.does(Part::Growth) {
        in_process::growth(options, &mut progress)?;
    }
    if options.does(Part::EndToEnd) {
        #[cfg(feature = "end-to-end")]
        end_to_end::rates(&wanted, options, &mut progress)?;
        #[cfg(not(feature = "end-to-end"))]
        return Err(io::Error::other("built without the feature `end-to-end`"));
    }
    progress.end();
    Ok(())
}

/// The head of a table of rates.
fn print_head(title: &str, progress: &Progress) {
    progress.print(&format!("\n## {title}\n"));
    progress.print("| workload | nodes | pods | pods/s | kube-scheduler's threshold | bar | holds |");
    progress.print("| --- | ---: | ---: | ---: | ---: | ---: | --- |");
}

/// A row of a table of rates.
fn print_row(workload: &workloads::Workload, rates: &[f64], bar: f64, progress: &Progress) {
    use rk_benches_common::stats::{median, number};
    let rate = median(rates).unwrap_or_default();
    progress.print(&format!(
        "| {} | {} | {} | {} | {} | ≥ {} | {} |",
        workload.name,
        number(workload.nodes as f64),
        number(workload.measured.1 as f64),
        number(rate),
        workload.threshold,
        number(bar),
        if rate >= bar { "yes" } else { "no" },
    ));
}
