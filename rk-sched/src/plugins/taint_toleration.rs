//! TaintToleration.

use k8s_openapi::api::core::v1::Toleration;

use crate::{
    framework::{
        Candidates, ClusterEvent, CycleState, Filter, Hint, NodeScore, Plugin, PreScore, Score, Status,
        normalize_to_max,
    },
    model::{Mark, NodeIndex, NodeInfo, PodInfo, Snapshot, tolerates, untolerated},
};

/// No node with a `NoSchedule` or `NoExecute` taint that the pod does not tolerate; better one with fewer such
/// `PreferNoSchedule` taints.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaintToleration;

const REPELLING: [&str; 2] = ["NoSchedule", "NoExecute"];

/// Tolerations that bear on `PreferNoSchedule`.
#[derive(Clone)]
struct Preferred(Vec<Toleration>);

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let lets = |node: &NodeInfo| !is_repelled(pod, node);
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(node) => lets(node),
            ClusterEvent::NodeUpdate { old, new } => !lets(old) && lets(new),
            ClusterEvent::UnscheduledPodUpdate { old, new } => old.tolerations() != new.tolerations(),
            _ => false,
        })
    }
}

fn is_repelled(pod: &PodInfo, node: &NodeInfo) -> bool {
    untolerated(node.taints(), pod.tolerations(), &REPELLING).is_some()
}

/// Which taint it is, is not for the pod's owner to know.
const REASON: &str = "node(s) had untolerated taint(s)";

impl Filter for TaintToleration {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        if is_repelled(pod, node) { Status::unresolvable(REASON) } else { Status::success() }
    }

    fn filter_batch(&self, _state: &CycleState, pod: &PodInfo, nodes: &mut Candidates<'_>) {
        let (snapshot, columns) = (nodes.snapshot(), nodes.columns());
        if columns.count(Mark::Repelling) > 0 {
            let repelled = |node| columns.has(node, Mark::Repelling) && is_repelled(pod, snapshot.node(node));
            nodes.keep_coded(|node| repelled(node).into(), |_| Status::unresolvable(REASON));
        }
    }
}

impl PreScore for TaintToleration {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, nodes: &[NodeIndex]) -> Status {
        let columns = snapshot.columns();
        if columns.count(Mark::Avoided) == 0 || !nodes.iter().any(|node| columns.has(*node, Mark::Avoided)) {
            return Status::skip();
        }
        let bears = |toleration: &&Toleration| {
            matches!(toleration.effect.as_deref().unwrap_or_default(), "" | "PreferNoSchedule")
        };
        state.insert(Preferred(pod.tolerations().iter().filter(bears).cloned().collect()));
        Status::success()
    }
}

impl Score for TaintToleration {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let tolerations = state.get::<Preferred>().map(|preferred| preferred.0.as_slice()).unwrap_or_default();
        let taints = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let untolerated = taints.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)));
        Ok(i64::try_from(untolerated.count()).unwrap_or(i64::MAX))
    }

    fn normalize(&self, _state: &CycleState, _pod: &PodInfo, scores: &mut [NodeScore]) -> Result<(), Status> {
        normalize_to_max(scores, true);
        Ok(())
    }
}
