//! The workloads, by scheduler_perf's names, with what kube-scheduler 1.36's own CI holds it to.

use std::num::NonZeroUsize;

use crate::shapes::Shape;

/// What happens beside the measured pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Churn {
    /// Pods of this shape come: every so many milliseconds, or, without a clock, after as many pods as kube-scheduler binds
    /// in that time at its threshold.
    Create(Shape, u64, usize),
    /// A useless node, a pod that fits nowhere and a service come and go, as often as that.
    Recreate(u64, usize),
}

/// One workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// As scheduler_perf names it.
    pub name: &'static str,
    /// How many nodes there are.
    pub nodes: usize,
    /// The zones they take in turn.
    pub zones: &'static [&'static str],
    /// Pods that are there before.
    pub before: Vec<(Shape, usize)>,
    /// The pods that are measured.
    pub measured: (Shape, usize),
    /// What happens meanwhile.
    pub churn: Option<Churn>,
    /// Pods per second that kube-scheduler's CI fails below (and the threshold of its newest version).
    pub threshold: &'static str,
    /// What rk is to do in-process, in pods per second.
    pub in_process: f64,
    /// What it is to do end to end.
    pub end_to_end: f64,
}

const ONE: &[&str] = &["zone1"];
const THREE: &[&str] = &["moon-1", "moon-2", "moon-3"];

/// A workload on 5,000 nodes.
fn on_5000(
    name: &'static str,
    zones: &'static [&'static str],
    before: &[(Shape, usize)],
    measured: (Shape, usize),
    (threshold, in_process, end_to_end): (&'static str, f64, f64),
) -> Workload {
    Workload {
        name,
        nodes: 5000,
        zones,
        before: before.to_vec(),
        measured,
        churn: None,
        threshold,
        in_process,
        end_to_end,
    }
}

/// All of them.
pub fn all() -> Vec<Workload> {
    use Shape::*;
    let kinds = [Plain, Near, Far, BetterNear, BetterFar].map(|shape| (shape, 2000));
    let preferred = ("90", 3000.0, 900.0);
    vec![
        on_5000("SchedulingBasic", &[], &[(Plain, 1000)], (Plain, 10_000), ("270 (680)", 25_000.0, 2700.0)),
        Workload {
            nodes: 15_000,
            ..on_5000("SchedulingDaemonset", &[], &[], (Daemon, 30_000), ("390 (1,100)", 20_000.0, 2700.0))
        },
        on_5000("SchedulingNodeAffinity", ONE, &[(InZones, 5000)], (InZones, 10_000), ("220", 15_000.0, 2200.0)),
        on_5000("TopologySpreading", THREE, &[(Plain, 5000)], (Spread, 5000), ("85 (460)", 5000.0, 1500.0)),
        on_5000("SchedulingPodAntiAffinity", &[], &[(Far, 1000)], (Far, 2000), ("60", 3000.0, 600.0)),
        on_5000("SchedulingPodAffinity", ONE, &[(Near, 5000)], (Near, 5000), ("35", 3000.0, 350.0)),
        on_5000("SchedulingPreferredPodAffinity", &[], &[(BetterNear, 5000)], (BetterNear, 5000), preferred),
        on_5000("SchedulingPreferredPodAntiAffinity", &[], &[(BetterFar, 5000)], (BetterFar, 5000), preferred),
        Workload {
            churn: Some(Churn::Create(TooLarge, 200, 34)),
            ..on_5000("Unschedulable", &[], &[(Plain, 100)], (Plain, 10_000), ("170 (590)", 10_000.0, 1700.0))
        },
        Workload {
            churn: Some(Churn::Create(High, 200, 32)),
            ..on_5000("PreemptionAsync", &[], &[(Low, 20_000)], (Plain, 5000), ("160 (570)", 5000.0, 1600.0))
        },
        on_5000("MixedSchedulingBasePod", ONE, &kinds, (Plain, 5000), ("140", 5000.0, 2000.0)),
        Workload {
            churn: Some(Churn::Recreate(1000, 265)),
            ..on_5000("SchedulingWithMixedChurn", &[], &[], (Plain, 10_000), ("265 (710)", 5000.0, 2000.0))
        },
        on_5000("SchedulingSecrets", &[], &[(Secret, 1000)], (Secret, 10_000), ("260 (790)", 15_000.0, 2000.0)),
        on_5000("SchedulingCSIPVs", &[], &[(Claim, 5000)], (Claim, 5000), ("48 (100)", 5000.0, 480.0)),
    ]
}

impl Workload {
    /// The same with fewer nodes and pods.
    #[must_use]
    pub fn shrunk(mut self, by: NonZeroUsize) -> Self {
        self.nodes = self.nodes.div_ceil(by.get());
        self.measured.1 /= by;
        self.before.iter_mut().for_each(|(_, count)| *count /= by);
        self
    }

    /// The names of its nodes with their zones.
    pub fn node_names(&self) -> impl Iterator<Item = (String, Option<&'static str>)> {
        let daemon = self.measured.0 == Shape::Daemon;
        let first = daemon.then(|| (crate::shapes::DAEMON_NODE.to_owned(), None));
        let zones = self.zones;
        let others = (0..self.nodes - usize::from(daemon))
            .map(move |number| (format!("node-{number}"), (!zones.is_empty()).then(|| zones[number % zones.len()])));
        first.into_iter().chain(others)
    }

    /// Whether its pods have volumes.
    pub fn has_volumes(&self) -> bool {
        self.measured.0 == Shape::Claim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_as_many_as_it_says() {
        for workload in all() {
            assert_eq!(workload.node_names().count(), workload.nodes, "{}", workload.name);
        }
    }
}
