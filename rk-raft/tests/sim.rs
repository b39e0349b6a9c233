//! Seeds of the simulation. What fails is printed with the command that runs it again.

use rk_raft::sim::{self, Options};

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let options = Options::default();
    let first = sim::run(1, &options);
    assert_eq!(sim::run(1, &options), first);
    assert_ne!(sim::run(2, &options).trace, first.trace);
}

#[test]
fn seeds_pass() {
    let failed: Vec<_> = (1000..1200)
        .map(|seed| sim::run(seed, &Options::default()))
        .filter(|report| !report.violations.is_empty())
        .map(|report| format!("{:#?}\n`{}` runs it again", report.violations, sim::replay(report.seed)))
        .collect();
    assert!(failed.is_empty(), "{} of 200 seeds failed:\n{}", failed.len(), failed.join("\n"));
}
