//! Runs seeds of the simulation: `simulate --seed FIRST --seeds COUNT [--seconds TIME] [--verbose]`. With the feature
//! `planted-bugs`, `--bug NAME` plants one (`rk_store::planted::Bug`). Ends with 1 if any fails.

use std::time::{Duration, Instant};

use rk_raft::sim::{self, Options};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut first, mut count, mut options) = (0, 1, Options::default());
    while let Some(argument) = arguments.next() {
        let mut number = || -> u64 {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| stop(&format!("{argument} needs a number")))
        };
        match argument.as_str() {
            "--seed" => first = number(),
            "--seeds" => count = number(),
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
    let begin = Instant::now();
    let (mut failed, mut undecided, mut operations) = (0, 0, 0);
    for seed in first..first + count {
        let report = sim::run(seed, &options);
        operations += report.operations;
        undecided += u64::from(report.undecided);
        if !report.violations.is_empty() {
            failed += 1;
            println!("seed {seed} failed; `{}` runs it again", sim::replay(seed));
            report.violations.iter().for_each(|violation| println!("    {violation}"));
        } else if count == 1 {
            println!("{report:?}");
        }
    }
    let time = begin.elapsed().as_secs_f64();
    println!("{count} seeds, {failed} failed, {undecided} undecided, {operations} operations in {time:.1} s");
    if failed > 0 {
        std::process::exit(1);
    }
}

fn stop(reason: &str) -> ! {
    eprintln!("{reason}\nsimulate --seed FIRST --seeds COUNT [--seconds TIME] [--verbose]");
    std::process::exit(2)
}
