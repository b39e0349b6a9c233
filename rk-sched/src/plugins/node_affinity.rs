//! NodeAffinity, `spec.nodeSelector` included.

use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeAffinity as NodeAffinitySpec;

use crate::{
    framework::{
        Candidates, ClusterEvent, CycleState, Filter, Hint, NodeScore, Plugin, PreFilter, PreScore, Score, Status,
        normalize_to_max,
    },
    model::{self, Lazily, NodeIndex, NodeInfo, PodInfo, Snapshot},
};

/// Only nodes that the pod's `nodeSelector` and required node affinity allow; better those that it prefers.
#[derive(Debug, Clone, Default)]
pub struct NodeAffinity {
    /// What all pods want besides.
    added: model::NodeAffinity,
}

impl NodeAffinity {
    /// With an affinity that all pods have besides their own (`addedAffinity`).
    pub fn with_added(affinity: &NodeAffinitySpec) -> Self {
        Self { added: model::NodeAffinity::of(affinity) }
    }
}

const ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";
const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

/// What is asked of nodes for pods of like affinity.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Allowed,
    Preferred,
}

/// The answers of nodes to what was asked of them for a pod or one with the same affinity.
fn known(asked: Asked, pod: &PodInfo, snapshot: &Snapshot) -> Arc<Lazily> {
    snapshot.recall(
        |(what, affinity): &(Asked, model::NodeAffinity)| *what == asked && *affinity == pod.node_affinity,
        || (asked, pod.node_affinity.clone()),
        || Lazily::new(snapshot.slots()),
        |_, _| {},
    )
}

fn allows(affinity: &model::NodeAffinity, node: &NodeInfo) -> bool {
    affinity.allows(&node.name, node.labels())
}

fn preference(affinity: &model::NodeAffinity, node: &NodeInfo) -> i64 {
    let preferred = affinity.preferred.iter();
    preferred.filter(|(_, term)| term.matches(&node.name, node.labels())).map(|(weight, _)| weight).sum()
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let allows = |node: &NodeInfo| allows(&self.added, node) && allows(&pod.node_affinity, node);
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(node) => allows(node),
            ClusterEvent::NodeUpdate { old, new } => !allows(old) && allows(new),
            ClusterEvent::UnscheduledPodUpdate { old, new } => old.node_affinity != new.node_affinity,
            _ => false,
        })
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(
        &self,
        _state: &mut CycleState,
        pod: &PodInfo,
        _snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        if pod.node_affinity.requires_nothing() && self.added.requires_nothing() {
            return Err(Status::skip());
        }
        let names = pod.node_affinity.only_names();
        if names.as_ref().is_some_and(|names| names.is_empty()) {
            return Err(Status::unresolvable("pod affinity terms conflict"));
        }
        Ok(names.map(|names| names.into_iter().map(Arc::from).collect()))
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        if !allows(&self.added, node) {
            Status::unresolvable(ENFORCED)
        } else if allows(&pod.node_affinity, node) {
            Status::success()
        } else {
            Status::unresolvable(REASON)
        }
    }

    fn filter_batch(&self, state: &CycleState, pod: &PodInfo, nodes: &mut Candidates<'_>) {
        // Where the terms name the nodes, these are few, and the next pod's are others.
        if nodes.nodes().len() < MANY {
            return nodes.keep(|node| self.filter(state, pod, node));
        }
        if !self.added.requires_nothing() {
            nodes.keep(
                |node| {
                    if allows(&self.added, node) { Status::success() } else { Status::unresolvable(ENFORCED) }
                },
            );
        }
        let snapshot = nodes.snapshot();
        let known = known(Asked::Allowed, pod, snapshot);
        let allowed = |node| known.get(node, || allows(&pod.node_affinity, snapshot.node(node)).into()) != 0;
        nodes.keep_coded(|node| (!allowed(node)).into(), |_| Status::unresolvable(REASON));
    }
}

/// From so many nodes on it pays to remember their answers for the next pod.
const MANY: usize = 4;

impl PreScore for NodeAffinity {
    fn pre_score(&self, _state: &mut CycleState, pod: &PodInfo, _snapshot: &Snapshot, _nodes: &[NodeIndex]) -> Status {
        let nothing = pod.node_affinity.preferred.is_empty() && self.added.preferred.is_empty();
        if nothing { Status::skip() } else { Status::success() }
    }
}

impl Score for NodeAffinity {
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        Ok(preference(&pod.node_affinity, node) + preference(&self.added, node))
    }

    fn score_batch(
        &self,
        _state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        let known = known(Asked::Preferred, pod, snapshot);
        for score in scores {
            score.score = known.get(score.node, || preference(&pod.node_affinity, snapshot.node(score.node)))
                + preference(&self.added, snapshot.node(score.node));
        }
        Ok(())
    }

    fn normalize(&self, _state: &CycleState, _pod: &PodInfo, scores: &mut [NodeScore]) -> Result<(), Status> {
        normalize_to_max(scores, false);
        Ok(())
    }
}
