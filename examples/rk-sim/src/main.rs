//! A laboratory for schedulers: replays workloads on virtual nodes in virtual time with the scheduler that runs in a cluster, and
//! compares what comes of it.

mod flags;
mod inputs;
mod output;
mod progress;
mod schedulers;

use std::{path::Path, process::ExitCode};

use clap::Parser;
use rk_sched::simulate::{Experiment, Workload};

use self::{
    flags::{Command, Flags, Lab},
    inputs::InputError,
    output::OutputError,
    progress::Watch,
    schedulers::SchedulerError,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    #[error(transparent)]
    Simulation(#[from] rk_sched::simulate::SimulationError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("not finished: {}", .0.join("; "))]
    Stalled(Vec<String>),
    #[error("not run: {}", .0.join("; "))]
    Refused(Vec<String>),
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), Failure> {
    match &flags.command {
        Command::Perf { files, workload, list, lab } => {
            if *list {
                return Ok(output::list(&inputs::perf(files, workload)?)?);
            }
            let (mut stalls, mut refused) = (Vec::new(), Vec::new());
            for case in inputs::perf(files, workload)? {
                let name = case.name();
                match case.workload() {
                    Ok(workload) => {
                        let config = case.scheduler_config();
                        let stalled = experiment(workload, lab, config.as_deref(), case.threshold())?;
                        stalls.extend(stalled.into_iter().map(|stall| format!("{name}: {stall}")));
                    }
                    Err(error) => refused.push(format!("{name}: {error}")),
                }
            }
            if refused.is_empty() { finished(stalls) } else { Err(Failure::Refused([refused, stalls].concat())) }
        }
        Command::Manifests { files, replay, lab } => {
            finished(experiment(inputs::manifests(files, *replay)?, lab, None, None)?)
        }
        Command::Trace { nodes, pods, units, lab } => {
            finished(experiment(inputs::trace(nodes, pods, units)?, lab, None, None)?)
        }
        Command::Generate { nodes, pods, load, seed, to } => Ok(output::generate(*nodes, *pods, *load, *seed, to)?),
    }
}

/// Fails if a workload waited for something in vain.
fn finished(stalls: Vec<String>) -> Result<(), Failure> {
    if stalls.is_empty() { Ok(()) } else { Err(Failure::Stalled(stalls)) }
}

/// Runs a workload under all schedulers, or under the one that it is meant for, and tells what came of it; answers what it waited for in
/// vain.
fn experiment(
    workload: Workload,
    lab: &Lab,
    meant_for: Option<&Path>,
    threshold: Option<f64>,
) -> Result<Vec<String>, Failure> {
    let variants = schedulers::variants(lab, meant_for)?;
    let seeds: Vec<u64> = (0..lab.seeds.get()).map(|number| lab.seed.wrapping_add(number)).collect();
    let watch = Watch::new(&workload, variants.len(), seeds.len(), lab.quiet);
    let experiment = Experiment { workload, variants, options: lab.options(), seeds };
    let comparison = experiment.run(lab.threads(), &|variant, seed, progress| watch.tell(variant, seed, progress))?;
    watch.done(&comparison, threshold);
    output::report(&comparison, lab)?;
    Ok(comparison.stalls())
}
