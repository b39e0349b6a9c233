//! The pods that a constraint is about, counted by place.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Toleration;
use rk_api::LabelSelector;

use super::Constraint;
use crate::model::{ClassKey, NodeAffinity, NodeIndex, PodInfo, Snapshot, Topology};

/// Which pods are counted, and on which nodes.
#[derive(PartialEq)]
pub(super) struct TallyKey {
    namespace: Arc<str>,
    selector: LabelSelector,
    topology: Arc<str>,
    /// Labels that a node must have for its pods to count.
    needed: Vec<Arc<str>>,
    /// What must hold of a node for its pods to count, where the constraint honors it.
    affinity: Option<NodeAffinity>,
    tolerations: Option<Vec<Toleration>>,
}

/// Counts by place, and the smallest of them.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) topology: Arc<Topology>,
    pub(super) counts: Vec<i64>,
    /// Whether a node of the place counts.
    present: Vec<bool>,
    /// How many places are present.
    pub(super) places: usize,
    /// The smallest count of a place that is present; 0 if none is.
    pub(super) least: i64,
    /// How many places have it.
    at_least: usize,
}

impl Tally {
    fn new(topology: Arc<Topology>) -> Self {
        let (counts, present) = (topology.counts(), vec![false; topology.places.len()]);
        Self { topology, counts, present, places: 0, least: 0, at_least: 0 }
    }

    fn find_least(&mut self) {
        let counted =
            || self.counts.iter().zip(&self.present).filter(|(_, present)| **present).map(|(count, _)| *count);
        let least = counted().min().unwrap_or(0);
        self.at_least = counted().filter(|count| *count == least).count();
        self.least = least;
    }

    /// Counts pods at the node's place.
    pub(super) fn add(&mut self, node: NodeIndex, by: i64) {
        let Some(place) = self.topology.place(node).map(|place| place as usize) else { return };
        let old = self.counts[place];
        let new = old + by;
        self.counts[place] = new;
        if !self.present[place] || by == 0 {
            return;
        }
        self.at_least -= usize::from(old == self.least);
        if new < self.least {
            (self.least, self.at_least) = (new, 1);
        } else {
            self.at_least += usize::from(new == self.least);
        }
        if self.at_least == 0 {
            self.find_least();
        }
    }
}

impl Constraint {
    /// Whether pods of this class are counted; with an empty selector none are (`countPodsMatchSelector`).
    fn is_about(&self, pod: &PodInfo, class: &ClassKey) -> bool {
        class.namespace == pod.namespace
            && !class.terminating
            && !self.selector.is_empty()
            && self.selector.matches(&class.labels)
    }

    fn key(&self, pod: &PodInfo, needed: &[Arc<Topology>]) -> TallyKey {
        TallyKey {
            namespace: Arc::clone(&pod.namespace),
            selector: self.selector.clone(),
            topology: Arc::clone(&self.topology.key),
            needed: needed.iter().map(|topology| Arc::clone(&topology.key)).collect(),
            affinity: self.honor_affinity.then(|| pod.node_affinity.clone()),
            tolerations: self.honor_taints.then(|| pod.tolerations().to_vec()),
        }
    }

    fn is_key(&self, pod: &PodInfo, needed: &[Arc<Topology>], key: &TallyKey) -> bool {
        key.namespace == pod.namespace
            && key.topology == self.topology.key
            && key.needed.iter().eq(needed.iter().map(|topology| &topology.key))
            && key.selector == self.selector
            && key.affinity.as_ref() == self.honor_affinity.then_some(&pod.node_affinity)
            && key.tolerations.as_deref() == self.honor_taints.then(|| pod.tolerations())
    }

    /// Counts the pods on nodes that have all `needed` labels and that the constraint includes.
    pub(super) fn tally(&self, pod: &PodInfo, needed: &[Arc<Topology>], snapshot: &Snapshot) -> Arc<Tally> {
        let counts = |node: NodeIndex| self.counts(pod, needed, node, snapshot);
        let build = || {
            let mut tally = Tally::new(Arc::clone(&self.topology));
            for (index, _) in snapshot.nodes() {
                if let Some(place) = self.topology.place(index).filter(|_| counts(index)) {
                    tally.places += usize::from(!std::mem::replace(&mut tally.present[place as usize], true));
                }
            }
            for class in snapshot.classes().filter(|class| self.is_about(pod, &class.key)) {
                for (node, count) in class.nodes.iter().filter(|(node, _)| counts(**node)) {
                    if let Some(place) = self.topology.place(*node) {
                        tally.counts[place as usize] += i64::from(*count);
                    }
                }
            }
            tally.find_least();
            tally
        };
        snapshot.recall(
            |key| self.is_key(pod, needed, key),
            || self.key(pod, needed),
            build,
            |tally: &mut Tally, placement| {
                if self.is_about(pod, &placement.class) && counts(placement.node) {
                    tally.add(placement.node, placement.by);
                }
            },
        )
    }

    fn counts(&self, pod: &PodInfo, needed: &[Arc<Topology>], node: NodeIndex, snapshot: &Snapshot) -> bool {
        needed.iter().all(|topology| topology.place(node).is_some())
            && (self.includes_all(pod) || self.includes(pod, snapshot.node(node)))
    }

    /// Counts the pods of every node, whatever it is.
    pub(super) fn per_node(&self, pod: &PodInfo, snapshot: &Snapshot) -> Arc<PerNode> {
        let build = || {
            let mut counts = vec![0; snapshot.slots()];
            for class in snapshot.classes().filter(|class| self.is_about(pod, &class.key)) {
                class.nodes.iter().for_each(|(node, count)| counts[node.slot()] += i64::from(*count));
            }
            PerNode(counts)
        };
        snapshot.recall(
            |(namespace, selector): &(Arc<str>, LabelSelector)| {
                *namespace == pod.namespace && *selector == self.selector
            },
            || (Arc::clone(&pod.namespace), self.selector.clone()),
            build,
            |counts: &mut PerNode, placement| {
                if self.is_about(pod, &placement.class) {
                    counts.0[placement.node.slot()] += placement.by;
                }
            },
        )
    }
}

/// Pods by the slot of their node.
#[derive(Debug, Clone)]
pub(super) struct PerNode(pub(super) Vec<i64>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeInfo;

    #[test]
    fn the_least_is_kept_with_every_change() {
        let node = |number: u32| {
            let labels = [("zone".to_owned(), format!("{}", number % 3))];
            let mut info = NodeInfo::new(Arc::default());
            let mut node = k8s_openapi::api::core::v1::Node::default();
            node.metadata.labels = Some(labels.into());
            info.node = Arc::new(node);
            (NodeIndex(number), info)
        };
        let nodes: Vec<_> = (0..6).map(node).collect();
        let topology = Topology::new("zone", 6, nodes.iter().map(|(index, info)| (*index, info)));
        let mut tally = Tally::new(Arc::new(topology));
        tally.present = vec![true, true, false];
        tally.find_least();
        for (node, by, least) in [(0, 1, 0), (1, 1, 1), (2, 9, 1), (3, 2, 1), (4, 1, 2), (1, -2, 0), (0, -3, 0)] {
            tally.add(NodeIndex(node), by);
            let mut anew = tally.clone();
            anew.find_least();
            assert_eq!((tally.least, tally.least, tally.at_least), (least, anew.least, anew.at_least), "{tally:?}");
        }
    }
}
