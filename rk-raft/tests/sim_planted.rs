//! The simulation finds known bugs.

use rk_raft::sim::{self, Options, Report};
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
            Some(Report { seed, violations, .. }) => {
                let replay = sim::replay(seed, &options);
                assert!(replay.contains("planted-bugs") && replay.ends_with(&format!("--seed {seed} --bug {bug:?}")));
                println!("{bug:?}: seed {seed}: {}\n`{replay}` runs it again", violations[0]);
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
