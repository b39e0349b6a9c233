//! How far an experiment is: a bar on a terminal, now and then a line elsewhere.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};
use rk_sched::simulate::{Comparison, Progress, Workload};

/// Writes a line to standard error. That nobody reads it is no reason to end.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Follows the runs of an experiment.
pub struct Watch {
    began: Instant,
    quiet: bool,
    name: String,
    bar: Option<ProgressBar>,
    seeds: usize,
    /// Pods bound, by run.
    bound: Vec<AtomicU64>,
    expected: u64,
    /// Tenths that were told of.
    told: Mutex<u64>,
}

impl Watch {
    pub fn new(workload: &Workload, variants: usize, seeds: usize, quiet: bool) -> Self {
        let runs = variants * seeds;
        let expected = (workload.pods() * runs) as u64;
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} pods, {elapsed}, {eta} left");
            let bar = ProgressBar::new(expected).with_message(workload.name.clone());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            began: Instant::now(),
            quiet,
            name: workload.name.clone(),
            bar,
            seeds,
            bound: (0..runs).map(|_| AtomicU64::new(0)).collect(),
            expected,
            told: Mutex::new(0),
        }
    }

    /// A run is this far.
    pub fn tell(&self, variant: usize, seed: usize, progress: Progress) {
        if self.quiet {
            return;
        }
        if let Some(of_run) = self.bound.get(variant * self.seeds + seed) {
            of_run.store(progress.bound, Ordering::Relaxed);
        }
        let bound = self.bound.iter().map(|bound| bound.load(Ordering::Relaxed)).sum::<u64>().min(self.expected);
        match &self.bar {
            Some(bar) => bar.set_position(bound),
            None => {
                let tenths = bound * 10 / self.expected.max(1);
                if let Ok(mut told) = self.told.lock()
                    && *told < tenths
                {
                    *told = tenths;
                    say(&format!("{}: {bound} of {} pods", self.name, self.expected));
                }
            }
        }
    }

    /// All runs have ended.
    pub fn done(&self, comparison: &Comparison, threshold: Option<f64>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.quiet {
            return;
        }
        let runs = || comparison.outcomes.iter().flat_map(|outcome| &outcome.runs);
        let attempts: u64 = runs().map(|run| run.summary.attempts).sum();
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = attempts as f64 / seconds.max(1e-9);
        say(&format!(
            "{}: {attempts} scheduling cycles in {} runs took {seconds:.1} s of real time, {rate:.0}/s",
            self.name,
            runs().count()
        ));
        if let Some(threshold) = threshold {
            say(&format!("{}: Kubernetes holds kube-scheduler to {threshold} pods/s here", self.name));
        }
    }
}
