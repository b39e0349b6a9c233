//! Runs seeds of the simulation: `simulate --seed FIRST --seeds COUNT [--jobs THREADS] [--seconds TIME] [--verbose]`. With the
//! feature `planted-bugs`, `--bug NAME` plants one (`rk_store::planted::Bug`). Ends with 1 if any fails or can't be decided.

use std::{
    io::IsTerminal,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use rk_raft::sim::{self, Options, Report};

/// Time between lines about the progress where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut first, mut count, mut options) = (0, 1, Options::default());
    let mut jobs = thread::available_parallelism().map_or(1, |number| number.get() as u64);
    while let Some(argument) = arguments.next() {
        let mut number = || -> u64 {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| stop(&format!("{argument} needs a number")))
        };
        match argument.as_str() {
            "--seed" => first = number(),
            "--seeds" => count = number(),
            "--jobs" => jobs = number(),
            "--seconds" => options.time = Duration::from_secs(number()),
            "--verbose" => options.verbose = true,
            #[cfg(feature = "planted-bugs")]
            "--bug" => {
                let name = arguments.next().unwrap_or_default();
                let bug = rk_store::planted::Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
                options.bug = Some(bug.unwrap_or_else(|| stop(&format!("no bug is called {name}"))));
            }
            _ => stop(&format!("what is {argument}?")),
        }
    }
    let seeds = first..first.saturating_add(count);
    let next = AtomicU64::new(seeds.start);
    let (done, reports) = mpsc::channel();
    let mut totals = Totals::new(count);
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            let (done, seeds, next, options) = (done.clone(), &seeds, &next, &options);
            scope.spawn(move || {
                let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| seeds.contains(seed));
                // Nobody listens any more if the main thread panics.
                while let Some(seed) = take()
                    && done.send(sim::run(seed, options)).is_ok()
                {}
            });
        }
        drop(done);
        reports.iter().for_each(|report| totals.add(&report, &options));
    });
    totals.bar.finish_and_clear();
    println!("{}", totals.line());
    if totals.failed + totals.undecided > 0 {
        std::process::exit(1);
    }
}

/// What has come out so far.
struct Totals {
    bar: ProgressBar,
    begin: Instant,
    told: Instant,
    count: u64,
    done: u64,
    failed: u64,
    undecided: u64,
    operations: usize,
}

impl Totals {
    fn new(count: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {msg} failed, {eta} left");
        let bar = ProgressBar::new(count).with_style(style.expect("the template is right")).with_message("0");
        let begin = Instant::now();
        Self { bar, begin, told: begin, count, done: 0, failed: 0, undecided: 0, operations: 0 }
    }

    fn add(&mut self, report: &Report, options: &Options) {
        self.done += 1;
        self.operations += report.operations;
        self.undecided += u64::from(report.undecided);
        let failed = !report.violations.is_empty();
        self.failed += u64::from(failed);
        if failed || report.undecided {
            self.bar.suspend(|| {
                let what = if failed { "failed" } else { "is not decided" };
                println!("seed {} {what}; `{}` runs it again", report.seed, sim::replay(report.seed, options));
                report.violations.iter().for_each(|violation| println!("    {violation}"));
            });
        } else if self.count == 1 {
            println!("{report:?}");
        }
        self.bar.set_message(self.failed.to_string());
        self.bar.inc(1);
        if !std::io::stderr().is_terminal() && self.told.elapsed() >= PAUSE && self.done < self.count {
            self.told = Instant::now();
            println!("{}", self.line());
        }
    }

    fn line(&self) -> String {
        let Self { done, count, failed, undecided, operations, .. } = self;
        let time = self.begin.elapsed().as_secs_f64();
        format!(
            "{done} of {count} seeds, {failed} failed, {undecided} undecided, {operations} operations in {time:.1} s"
        )
    }
}

fn stop(reason: &str) -> ! {
    eprintln!("{reason}\nsimulate --seed FIRST --seeds COUNT [--jobs THREADS] [--seconds TIME] [--verbose]");
    std::process::exit(2)
}
