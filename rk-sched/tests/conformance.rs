//! The default plugins keep the rules of plugins; a plugin that does not is found out.
#![cfg(feature = "testing")]

use rk_sched::{
    Profile, Registration,
    framework::{ClusterEvent, CycleState, Filter, Hint, Plugin, Score, Status},
    model::{NodeInfo, PodInfo},
    plugins::{NodeResourcesFit, ScoringStrategy},
    testing::conformance,
};

#[test]
fn the_default_plugins_conform() {
    let profile = Profile::kubernetes("default-scheduler");
    let broken: Vec<String> = (0..300)
        .filter_map(|seed| conformance(&profile, [seed]).err())
        .map(|violation| violation.to_string())
        .collect();
    assert_eq!(broken, [""; 0]);
}

#[test]
fn the_other_strategies_conform() {
    for strategy in
        [ScoringStrategy::MostAllocated, ScoringStrategy::RequestedToCapacityRatio(vec![(0, 0), (60, 10), (100, 2)])]
    {
        let fit = NodeResourcesFit { strategy, ..NodeResourcesFit::default() };
        conformance(&Profile::empty("s").with(Registration::new(fit).filter().score(1)), 0..20).unwrap();
    }
}

struct Careless;

impl Plugin for Careless {
    fn name(&self) -> &'static str {
        "Careless"
    }
}

impl Score for Careless {
    fn score(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        Ok(node.allocatable.memory)
    }
}

impl Filter for Careless {
    fn filter(&self, _: &CycleState, _: &PodInfo, _: &NodeInfo) -> Status {
        Status::error("what?")
    }
}

#[test]
fn broken_rules_are_found() {
    let score = Profile::empty("s").with(Registration::new(Careless).score(1));
    assert!(conformance(&score, 0..3).unwrap_err().rule.contains("scores are from 0 to 100"));
    let filter = Profile::empty("s").with(Registration::new(Careless).filter());
    assert!(conformance(&filter, 0..3).unwrap_err().rule.contains("yes or no"));
}

/// Filters rightly, but sleeps through what would change its mind.
struct Deaf;

impl Plugin for Deaf {
    fn name(&self) -> &'static str {
        "Deaf"
    }

    fn hint(&self, _: &PodInfo, _: &ClusterEvent) -> Hint {
        Hint::Skip
    }
}

impl Filter for Deaf {
    fn filter(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Status {
        if node.pods.is_empty() { Status::success() } else { Status::unschedulable("node(s) had pods") }
    }
}

#[test]
fn a_hint_that_skips_too_much_is_found() {
    let profile = Profile::empty("s").with(Registration::new(Deaf).filter());
    assert!(conformance(&profile, 0..50).unwrap_err().rule.contains("hint"));
}
