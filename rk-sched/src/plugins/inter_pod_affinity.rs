//! InterPodAffinity: the pod's terms on other pods, and theirs on it.

use std::sync::Arc;

use crate::{
    framework::{
        ClusterEvent, CycleState, Filter, Hint, MAX_SCORE, NodeScore, Plugin, PreFilter, PreScore, Score, Status,
    },
    model::{NamespaceLabels, NodeIndex, NodeInfo, PodInfo, PodTerm, Snapshot, Topology},
};

/// Only nodes near the pods that this one must be near, and not near those it must not be near or that must not be near it;
/// better those nearer to the pods it should be near.
#[derive(Debug, Clone)]
pub struct InterPodAffinity {
    /// What it counts in a node's favour that a pod there must be near pods like this one; 0 to 100.
    pub hard_affinity_weight: i64,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_affinity_weight: 1 }
    }
}

/// Counts, or scores, by place, of several topologies.
#[derive(Clone, Default)]
struct Places(Vec<(Arc<Topology>, Vec<i64>)>);

impl Places {
    fn of(&mut self, key: &str, snapshot: &Snapshot) -> usize {
        self.0.iter().position(|(topology, _)| topology.key.as_ref() == key).unwrap_or_else(|| {
            let topology = snapshot.topology(key);
            let counts = topology.counts();
            self.0.push((topology, counts));
            self.0.len() - 1
        })
    }

    /// Adds `by` at the node's place. `false` if it has none.
    fn add(&mut self, at: usize, node: NodeIndex, by: i64) -> bool {
        let (topology, counts) = &mut self.0[at];
        let Some(place) = topology.place(node) else { return false };
        counts[place as usize] += by;
        true
    }

    fn get(&self, key: &str, node: NodeIndex) -> Option<i64> {
        let (topology, counts) = self.0.iter().find(|(topology, _)| topology.key.as_ref() == key)?;
        Some(counts[topology.place(node)? as usize])
    }

    /// As `add`, for a topology that is known already.
    fn add_known(&mut self, key: &str, node: NodeIndex, by: i64) {
        if let Some(at) = self.0.iter().position(|(topology, _)| topology.key.as_ref() == key) {
            self.add(at, node, by);
        }
    }

    fn all_zero(&self) -> bool {
        self.0.iter().all(|(_, counts)| counts.iter().all(|count| *count == 0))
    }
}

/// What Filter needs.
#[derive(Clone)]
struct Required {
    namespaces: Arc<NamespaceLabels>,
    /// Pods that this one must be near.
    near: Places,
    /// Pods that this one must not be near, one list per term.
    far: Vec<Places>,
    /// Pods that must not be near this one.
    unwelcoming: Places,
}

/// What Score needs.
#[derive(Clone)]
struct Preferred(Places);

/// Whether a pod is one that all terms mean.
fn all_match(terms: &[PodTerm], pod: &PodInfo, namespaces: &NamespaceLabels) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(&pod.namespace, pod.labels(), namespaces))
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
            ClusterEvent::NodeUpdate { old, new } => old.metadata.labels != new.metadata.labels,
            ClusterEvent::Object(object) => object.kind() == "Namespace",
            ClusterEvent::NodeDelete(_) => false,
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
        let affinity = &pod.pod_affinity;
        let asks = !affinity.required.is_empty() || !affinity.required_anti.is_empty();
        let (mut near, mut unwelcoming) = (Places::default(), Places::default());
        let mut far: Vec<Places> = vec![Places::default(); affinity.required_anti.len()];
        let near_at: Vec<usize> = affinity.required.iter().map(|t| near.of(&t.topology_key, snapshot)).collect();
        for (term, places) in affinity.required_anti.iter().zip(&mut far) {
            places.of(&term.topology_key, snapshot);
        }
        for class in snapshot.classes() {
            let key = &class.key;
            let means = |term: &PodTerm| term.matches(&key.namespace, &key.labels, snapshot.namespaces());
            for term in &key.affinity.required_anti {
                if term.matches(&pod.namespace, pod.labels(), snapshot.namespaces()) {
                    let at = unwelcoming.of(&term.topology_key, snapshot);
                    for (node, count) in &class.nodes {
                        unwelcoming.add(at, *node, i64::from(*count));
                    }
                }
            }
            if !asks {
                continue;
            }
            if !affinity.required.is_empty() && affinity.required.iter().all(means) {
                for (node, count) in &class.nodes {
                    for at in &near_at {
                        near.add(*at, *node, i64::from(*count));
                    }
                }
            }
            for (term, places) in affinity.required_anti.iter().zip(&mut far) {
                if means(term) {
                    for (node, count) in &class.nodes {
                        places.add(0, *node, i64::from(*count));
                    }
                }
            }
        }
        if !asks && unwelcoming.0.is_empty() {
            return Err(Status::skip());
        }
        let namespaces = Arc::clone(snapshot.namespaces());
        state.insert(Required { namespaces, near, far, unwelcoming });
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
    let Some(required) = state.get_mut::<Required>() else { return };
    let affinity = &pod.pod_affinity;
    for term in &other.pod_affinity.required_anti {
        if term.matches(&pod.namespace, pod.labels(), &required.namespaces) {
            required.unwelcoming.add_known(&term.topology_key, node.index, by);
        }
    }
    if all_match(&affinity.required, other, &required.namespaces) {
        for term in &affinity.required {
            required.near.add_known(&term.topology_key, node.index, by);
        }
    }
    for (term, places) in affinity.required_anti.iter().zip(&mut required.far) {
        if term.matches(&other.namespace, other.labels(), &required.namespaces) {
            places.add_known(&term.topology_key, node.index, by);
        }
    }
}

impl Required {
    fn is_near(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let terms = &pod.pod_affinity.required;
        let mut there = true;
        for term in terms {
            match self.near.get(&term.topology_key, node.index) {
                None => return false,
                Some(count) => there &= count > 0,
            }
        }
        // The first of a group whose members are to be near each other may go anywhere.
        there || (self.near.all_zero() && all_match(terms, pod, &self.namespaces))
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        let Some(required) = state.get::<Required>() else { return Status::success() };
        let affinity = &pod.pod_affinity;
        if !required.is_near(pod, node) {
            return Status::unresolvable("node(s) didn't match pod affinity rules");
        }
        let close = |(term, places): (&PodTerm, &Places)| {
            places.get(&term.topology_key, node.index).is_some_and(|count| count > 0)
        };
        if affinity.required_anti.iter().zip(&required.far).any(close) {
            return Status::unschedulable("node(s) didn't match pod anti-affinity rules");
        }
        let unwelcome = required.unwelcoming.0.iter();
        if unwelcome
            .into_iter()
            .any(|(topology, counts)| topology.place(node.index).is_some_and(|place| counts[place as usize] > 0))
        {
            return Status::unschedulable("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Status::success()
    }
}

impl PreScore for InterPodAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _nodes: &[NodeIndex]) -> Status {
        let mut scores = Places::default();
        let own = &pod.pod_affinity;
        let namespaces = snapshot.namespaces();
        for class in snapshot.classes() {
            let key = &class.key;
            let about_them = |term: &PodTerm| term.matches(&key.namespace, &key.labels, namespaces);
            let about_us = |term: &PodTerm| term.matches(&pod.namespace, pod.labels(), namespaces);
            let ours = own.preferred.iter().map(|(weight, term)| (*weight, term));
            let ours = ours.chain(own.preferred_anti.iter().map(|(weight, term)| (-weight, term)));
            let theirs = key.affinity.preferred.iter().map(|(weight, term)| (*weight, term));
            let theirs = theirs.chain(key.affinity.preferred_anti.iter().map(|(weight, term)| (-weight, term)));
            let hard = key.affinity.required.iter().map(|term| (self.hard_affinity_weight, term));
            let counted = ours.filter(|(_, term)| about_them(term));
            for (weight, term) in counted.chain(theirs.chain(hard).filter(|(_, term)| about_us(term))) {
                if weight == 0 {
                    continue;
                }
                let at = scores.of(&term.topology_key, snapshot);
                for (node, count) in &class.nodes {
                    scores.add(at, *node, weight * i64::from(*count));
                }
            }
        }
        if scores.0.is_empty() {
            return Status::skip();
        }
        state.insert(Preferred(scores));
        Status::success()
    }
}

impl Score for InterPodAffinity {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let Some(Preferred(scores)) = state.get::<Preferred>() else { return Ok(0) };
        let here = scores.0.iter().filter_map(|(topology, counts)| Some(counts[topology.place(node.index)? as usize]));
        Ok(here.sum())
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
