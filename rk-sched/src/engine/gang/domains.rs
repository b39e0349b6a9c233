//! Where the pods of a group may go together: the topology constraint of its PodGroup (KEP-5732).

use std::collections::{BTreeMap, BTreeSet};

use super::{Attempt, Engine, Gang, Tried};
use crate::{cycle::Within, framework::Status, model::NodeIndex};

/// Nodes that the group's pods may be on together.
pub(super) struct Domain {
    /// `None` for all nodes.
    pub(super) within: Option<Within>,
}

/// Who blames the topology; there is no plugin of this name, so any event may change its mind.
const TOPOLOGY: &str = "TopologyPlacement";

impl Engine {
    /// The domains, in the order of the values of the topology key: all nodes for a group without a constraint, the one that pods of the
    /// group are in already where some are.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn domains(&self, gang: &Gang) -> Result<Vec<Domain>, Status> {
        let constraints = gang.group.spec.scheduling_constraints.as_ref();
        let Some(constraint) = constraints.and_then(|constraints| constraints.topology.as_ref()?.first()) else {
            return Ok(vec![Domain { within: None }]);
        };
        let key = &constraint.key;
        let value = |index: NodeIndex| self.snapshot.node(index).labels().get(key).cloned();
        let nodes = self.snapshot.groups.members(&gang.key).filter_map(|uid| self.snapshot.node_of(uid));
        let used: BTreeSet<Option<String>> = nodes.filter_map(|name| self.snapshot.find(name)).map(value).collect();
        let mut all: BTreeMap<String, BTreeSet<NodeIndex>> = BTreeMap::new();
        for (index, _) in self.snapshot.nodes() {
            if let Some(value) = value(index).filter(|value| used.is_empty() || used.contains(&Some(value.clone()))) {
                all.entry(value).or_default().insert(index);
            }
        }
        let refused = |why: String| Err(Status::unschedulable(why).from_plugin(TOPOLOGY));
        if used.len() > 1 {
            return refused(format!("pods of the group are in {} domains of {key}", used.len()));
        }
        if all.is_empty() {
            return refused(format!("no node has the topology key {key}"));
        }
        let domain = |(value, nodes): (String, BTreeSet<NodeIndex>)| Domain {
            within: Some(Within { nodes, reason: format!("node(s) were not in the group's domain {key}={value}") }),
        };
        Ok(all.into_iter().map(domain).collect())
    }

    /// How good a domain is with the group's pods in it: the share of the pods that have a node there, and how full that makes its
    /// nodes, both in percent (`PodGroupPodsCount`, and `NodeResourcesFit` by `MostAllocated`).
    pub(super) fn score_of(&self, domain: &Domain, attempt: &Attempt) -> i64 {
        let Some(within) = &domain.within else { return 0 };
        let placed = attempt.tried.iter().filter(|tried| matches!(tried, Tried::Placed(..))).count();
        let all = attempt.tried.len() + attempt.waiting.len();
        let percent = |part: i64, whole: i64| part.saturating_mul(100).checked_div(whole).unwrap_or(0).min(100);
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (mut cpu, mut memory) = ((0_i64, 0_i64), (0_i64, 0_i64));
        for index in &within.nodes {
            let node = self.snapshot.node(*index);
            let add = |sum: &mut (i64, i64), used: i64, whole: i64| {
                *sum = (sum.0.saturating_add(used), sum.1.saturating_add(whole));
            };
            // In MiB, so that the sums of thousands of nodes times a hundred stay within 64 bits.
            add(&mut memory, node.requested.memory >> 20, node.allocatable.memory >> 20);
            add(&mut cpu, node.requested.milli_cpu, node.allocatable.milli_cpu);
        }
        percent(count(placed), count(all)) + (percent(cpu.0, cpu.1) + percent(memory.0, memory.1)) / 2
    }
}
