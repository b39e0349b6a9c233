//! The simulation finds known bugs.

use rk_raft::sim::{self, Options};
use rk_store::planted::Bug;

/// Seeds in which a bug must show itself.
const SEEDS: u64 = 500;

#[test]
fn each_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let mut options = Options::default();
        options.bug = Some(bug);
        let found = (0..SEEDS).map(|seed| sim::run(seed, &options)).find(|report| !report.violations.is_empty());
        match found {
            Some(report) => println!("{bug:?}: seed {}: {}", report.seed, report.violations[0]),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
