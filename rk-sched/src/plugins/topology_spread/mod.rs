//! PodTopologySpread (KEP-895): `required` filters by constraints that must hold, `preferred` scores by those that should; `tally` counts
//! the pods for both.

mod preferred;
mod required;
mod tally;

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use rk_api::LabelSelector;

use crate::{
    framework::{ClusterEvent, Hint, Plugin},
    model::{NodeInfo, PodInfo, Snapshot, Topology, untolerated},
};

/// Spreads a pod and its like over the places that node labels make: by the pod's `topologySpreadConstraints`, or, where it has
/// none, softly over nodes and zones with the siblings that its services and owner select.
#[derive(Debug, Clone, Default)]
pub struct PodTopologySpread {
    /// Constraints for pods without any of their own, in place of the built-in ones. Their selectors are the pod's siblings.
    pub defaults: Option<Vec<TopologySpreadConstraint>>,
}

/// A constraint, read for one pod.
#[derive(Clone)]
struct Constraint {
    topology: Arc<Topology>,
    max_skew: i64,
    min_domains: usize,
    selector: LabelSelector,
    honor_affinity: bool,
    honor_taints: bool,
}

const HARD: &str = "DoNotSchedule";
const SOFT: &str = "ScheduleAnyway";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

impl Constraint {
    fn new(spec: &TopologySpreadConstraint, selector: LabelSelector, snapshot: &Snapshot) -> Self {
        Self {
            topology: snapshot.topology(&spec.topology_key),
            max_skew: spec.max_skew.into(),
            min_domains: spec.min_domains.and_then(|min| usize::try_from(min).ok()).unwrap_or(1),
            selector,
            honor_affinity: spec.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: spec.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether the pods of a node count.
    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honor_affinity || pod.node_affinity.allows(&node.name, node.labels()))
            && (!self.honor_taints
                || untolerated(node.taints(), pod.tolerations(), &["NoSchedule", "NoExecute"]).is_none())
    }

    /// Whether every node counts.
    fn includes_all(&self, pod: &PodInfo) -> bool {
        !self.honor_taints && (!self.honor_affinity || pod.node_affinity.requires_nothing())
    }
}

/// The topologies of constraints, each once: many constraints may be of few.
fn topologies(constraints: &[Constraint]) -> Vec<Arc<Topology>> {
    let mut seen = HashSet::new();
    let new = |constraint: &&Constraint| seen.insert(Arc::clone(&constraint.topology.key));
    constraints.iter().filter(new).map(|constraint| Arc::clone(&constraint.topology)).collect()
}

impl PodTopologySpread {
    /// The constraints for a pod that are of a kind, and whether only nodes with all of their labels count.
    fn constraints(&self, pod: &PodInfo, kind: &str, snapshot: &Snapshot) -> (Vec<Constraint>, bool) {
        let own = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
        if !own.is_empty() {
            let of_kind = own.iter().zip(&pod.spread_selectors).filter(|(spec, _)| spec.when_unsatisfiable == kind);
            return (of_kind.map(|(spec, selector)| Constraint::new(spec, selector.clone(), snapshot)).collect(), true);
        }
        let built_in = || {
            [(HOSTNAME, 3), (ZONE, 5)].map(|(key, max_skew)| TopologySpreadConstraint {
                max_skew,
                topology_key: key.to_owned(),
                when_unsatisfiable: SOFT.to_owned(),
                ..TopologySpreadConstraint::default()
            })
        };
        let strict = self.defaults.is_some();
        if !strict && kind != SOFT {
            return (Vec::new(), false);
        }
        let Some(siblings) = snapshot.workloads.siblings_of(pod) else { return (Vec::new(), strict) };
        let specs = self.defaults.clone().unwrap_or_else(|| built_in().into());
        let of_kind = specs.iter().filter(|spec| spec.when_unsatisfiable == kind);
        (of_kind.map(|spec| Constraint::new(spec, siblings.clone(), snapshot)).collect(), strict)
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let own = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
        let about = |other: &PodInfo| {
            other.namespace == pod.namespace
                && (own.is_empty() || pod.spread_selectors.iter().any(|selector| selector.matches(other.labels())))
        };
        Hint::queue_if(match event {
            ClusterEvent::AssignedPodAdd(other) | ClusterEvent::AssignedPodDelete(other) => about(other),
            ClusterEvent::AssignedPodUpdate { old, new } => {
                about(old) != about(new) || old.terminating() != new.terminating()
            }
            ClusterEvent::UnscheduledPodUpdate { .. } => true,
            ClusterEvent::NodeAdd(node) | ClusterEvent::NodeDelete(node) => {
                own.iter().all(|spec| node.labels().contains_key(&spec.topology_key))
            }
            ClusterEvent::NodeUpdate { old, new } => old.labels() != new.labels() || old.taints() != new.taints(),
            _ => false,
        })
    }
}
