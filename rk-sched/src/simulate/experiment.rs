//! One workload under several schedulers, over several seeds.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    options::Options,
    simulation::{Progress, Run, SimulationError, simulate},
    workload::Workload,
};
use crate::{Profile, SchedulerConfig};

/// A scheduler that takes part in a comparison.
#[derive(Clone)]
pub struct Variant {
    /// Its name, for the report.
    pub name: String,
    /// Makes its configuration, anew for each run: plugins may have a state.
    pub config: Arc<dyn Fn() -> SchedulerConfig + Send + Sync>,
}

impl Variant {
    /// A scheduler of this configuration.
    pub fn new(name: impl Into<String>, config: impl Fn() -> SchedulerConfig + Send + Sync + 'static) -> Self {
        Self { name: name.into(), config: Arc::new(config) }
    }

    /// A scheduler of one profile.
    pub fn profile(name: impl Into<String>, profile: impl Fn() -> Profile + Send + Sync + 'static) -> Self {
        Self::new(name, move || SchedulerConfig { profiles: vec![profile()], ..SchedulerConfig::default() })
    }
}

/// A workload, and what it is tried with.
pub struct Experiment {
    /// The workload.
    pub workload: Workload,
    /// The schedulers. Differences are told from the first.
    pub variants: Vec<Variant>,
    /// How the cluster behaves.
    pub options: Options,
    /// A run of each scheduler for each of them.
    pub seeds: Vec<u64>,
}

/// What came of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The workload's name.
    pub workload: String,
    /// By scheduler, in their order.
    pub outcomes: Vec<Outcome>,
}

/// What came of the runs of one scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The scheduler's name.
    pub name: String,
    /// By seed, in their order.
    pub runs: Vec<Run>,
}

impl Experiment {
    /// Runs it all on so many threads. `progress` hears of the run of a variant and a seed, by their numbers.
    ///
    /// The outcome does not depend on the number of threads.
    ///
    /// # Errors
    /// A configuration or the options make no sense.
    pub fn run(
        &self,
        threads: usize,
        progress: &(dyn Fn(usize, usize, Progress) + Sync),
    ) -> Result<Comparison, SimulationError> {
        let jobs: Vec<(usize, usize)> = (0..self.seeds.len())
            .flat_map(|seed| (0..self.variants.len()).map(move |variant| (variant, seed)))
            .collect();
        let next = AtomicUsize::new(0);
        let done: Vec<Mutex<Option<Result<Run, SimulationError>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            while let Some((job, (variant, seed))) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|job| Some((job, jobs.get(job)?)))
            {
                let config = (self.variants[*variant].config)();
                let mut tell = |told: Progress| progress(*variant, *seed, told);
                let run = simulate(&self.workload, &config, &self.options, self.seeds[*seed], &mut tell);
                if let Ok(mut slot) = done[job].lock() {
                    *slot = Some(run);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(jobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut outcomes: Vec<Outcome> =
            self.variants.iter().map(|variant| Outcome { name: variant.name.clone(), runs: Vec::new() }).collect();
        for ((variant, _), slot) in jobs.iter().zip(done) {
            if let Some(run) = slot.into_inner().ok().flatten() {
                outcomes[*variant].runs.push(run?);
            }
        }
        Ok(Comparison { workload: self.workload.name.clone(), outcomes })
    }
}
