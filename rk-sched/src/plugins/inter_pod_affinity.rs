//! InterPodAffinity: the pod's terms on other pods, and theirs on it.

mod counts;

use std::{iter, sync::Arc};

use self::counts::{FITS, Preferred, Required, Seen, Shown, asks, explain};
use crate::{
    framework::{
        Candidates, ClusterEvent, CycleState, Filter, Hint, MAX_SCORE, NodeScore, Plugin, PreFilter, PreScore, Score,
        Status,
    },
    model::{ClassKey, NodeIndex, NodeInfo, PodClass, PodInfo, PodTerm, Snapshot},
};

/// Only nodes near the pods that this one must be near, and not near those it must not be near or that must not be near it;
/// better those nearer to the pods it should be near.
#[derive(Debug, Clone)]
pub struct InterPodAffinity {
    /// What it counts in a node's favour that a pod there must be near pods like this one; 0 to 100.
    pub hard_affinity_weight: i64,
    /// Whether terms of pods on nodes count only in the scores of pods that have preferred terms themselves.
    pub ignore_preferences_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_affinity_weight: 1, ignore_preferences_of_existing_pods: false }
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let affinity = &pod.pod_affinity;
        // Without the namespaces' labels at hand, a term that selects namespaces may mean any.
        let means = |terms: &[PodTerm], other: &PodInfo| {
            terms.iter().any(|term| {
                term.selector.as_ref().is_some_and(|selector| selector.matches(other.labels()))
                    && (term.namespace_selector.is_some() || term.namespaces.contains(other.namespace.as_ref()))
            })
        };
        let came = |other: &PodInfo| means(&affinity.required, other);
        let went =
            |other: &PodInfo| means(&affinity.required_anti, other) || means(&other.pod_affinity.required_anti, pod);
        Hint::queue_if(match event {
            ClusterEvent::AssignedPodAdd(other) => came(other),
            ClusterEvent::AssignedPodUpdate { old, new } => (came(new) && !came(old)) || (went(old) && !went(new)),
            ClusterEvent::AssignedPodDelete(other) => went(other) || came(other),
            ClusterEvent::UnscheduledPodUpdate { .. } | ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::NodeUpdate { old, new } => old.labels() != new.labels(),
            ClusterEvent::Object(change) => change.object().kind() == "Namespace",
            _ => false,
        })
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        // Never skipped: what is promised to other pods may bring up terms that mean this one.
        if !asks(pod) && snapshot.classes_with_required_anti_affinity().next().is_none() {
            state.insert_brief(Arc::new(Required::of_nobody(snapshot)));
            return Ok(None);
        }
        let required = snapshot.recall(
            |class: &ClassKey| class.is_of(pod),
            || ClassKey::of(pod),
            || Required::new(pod, snapshot),
            |required, placement| {
                let nodes = iter::once((placement.node, placement.by));
                required.count(pod, Shown::class(&placement.class), nodes, Seen::Cluster(snapshot));
            },
        );
        state.insert_brief(required);
        Ok(None)
    }

    fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, added: &PodInfo, node: &NodeInfo) {
        change(state, pod, added, node, 1);
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, removed: &PodInfo, node: &NodeInfo) {
        change(state, pod, removed, node, -1);
    }
}

fn change(state: &mut CycleState, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
    let Some(required) = state.get_mut::<Arc<Required>>() else { return };
    if !required.is_idle() || !other.pod_affinity.required_anti.is_empty() {
        Arc::make_mut(required).count(pod, Shown::pod(other), iter::once((node.index, by)), Seen::Node(node));
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        let code = state.get::<Arc<Required>>().map_or(FITS, |required| required.code_of(node));
        if code == FITS { Status::success() } else { explain(code) }
    }

    fn filter_batch(&self, state: &CycleState, _pod: &PodInfo, nodes: &mut Candidates<'_>) {
        let Some(required) = state.get::<Arc<Required>>().filter(|required| !required.is_idle()) else { return };
        let snapshot = nodes.snapshot();
        nodes.keep_coded(|node| required.code_of(snapshot.node(node)), explain);
    }
}

/// Pods of one class get the same points from a plugin with the same weight.
struct PreferredKey {
    class: ClassKey,
    hard_affinity_weight: i64,
}

impl PreScore for InterPodAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _nodes: &[NodeIndex]) -> Status {
        let own = &pod.pod_affinity;
        let prefers = !own.preferred.is_empty() || !own.preferred_anti.is_empty();
        if !prefers && (self.ignore_preferences_of_existing_pods || snapshot.classes_with_affinity().next().is_none()) {
            return Status::skip();
        }
        let weight = self.hard_affinity_weight;
        let build = || {
            let mut preferred = Preferred::default();
            let mut count = |class: &PodClass| {
                let nodes = class.nodes.iter().map(|(node, count)| (*node, i64::from(*count)));
                preferred.count(pod, weight, Shown::class(&class.key), nodes, snapshot);
            };
            if prefers {
                snapshot.classes().for_each(&mut count);
            } else {
                snapshot.classes_with_affinity().for_each(&mut count);
            }
            preferred
        };
        let preferred = snapshot.recall(
            |key: &PreferredKey| key.hard_affinity_weight == weight && key.class.is_of(pod),
            || PreferredKey { class: ClassKey::of(pod), hard_affinity_weight: weight },
            build,
            |preferred, placement| {
                let nodes = iter::once((placement.node, placement.by));
                preferred.count(pod, weight, Shown::class(&placement.class), nodes, snapshot);
            },
        );
        if preferred.0.is_empty() {
            return Status::skip();
        }
        state.insert_brief(preferred);
        Status::success()
    }
}

fn points(state: &CycleState, node: NodeIndex) -> i64 {
    let preferred = state.get::<Arc<Preferred>>();
    preferred.map_or(0, |preferred| preferred.0.iter().filter_map(|counts| counts.at(node)).sum())
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        Ok(points(state, node.index))
    }

    fn score_batch(
        &self,
        state: &CycleState,
        _pod: &PodInfo,
        _snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        for score in scores {
            score.score = points(state, score.node);
        }
        Ok(())
    }

    fn normalize(&self, _state: &CycleState, _pod: &PodInfo, scores: &mut [NodeScore]) -> Result<(), Status> {
        let least = scores.iter().map(|score| score.score).min().unwrap_or(0);
        let most = scores.iter().map(|score| score.score).max().unwrap_or(0);
        for score in scores {
            // In floating point, as its rounding is part of Kubernetes' scores.
            let part = (score.score - least) as f64 / (most - least).max(1) as f64;
            score.score = (MAX_SCORE as f64 * part) as i64;
        }
        Ok(())
    }
}
