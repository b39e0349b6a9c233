//! The pods that a pod's terms mean, and those whose terms mean it, by place.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    framework::Status,
    model::{ClassKey, NamespaceLabels, NodeIndex, PodAffinity, PodClass, PodInfo, PodTerm, Snapshot, Topology},
};

/// Pods, or points, by place.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    topology: Arc<Topology>,
    by_place: Vec<i64>,
    /// Of all places.
    sum: i64,
}

impl Counts {
    fn new(key: &str, snapshot: &Snapshot) -> Self {
        let topology = snapshot.topology(key);
        Self { by_place: topology.counts(), topology, sum: 0 }
    }

    fn add(&mut self, nodes: impl Iterator<Item = (NodeIndex, i64)>, factor: i64) {
        for (node, count) in nodes {
            if let Some(place) = self.topology.place(node) {
                self.by_place[place as usize] += count * factor;
                self.sum += count * factor;
            }
        }
    }

    /// What is counted at the node's place; `None` if it has none.
    pub(super) fn at(&self, node: NodeIndex) -> Option<i64> {
        Some(self.by_place[self.topology.place(node)? as usize])
    }
}

/// The counts of a topology, among several.
fn of<'a>(all: &'a mut Vec<Counts>, key: &str, snapshot: Option<&Snapshot>) -> Option<&'a mut Counts> {
    let known = all.iter().position(|counts| counts.topology.key.as_ref() == key);
    let at = match (known, snapshot) {
        (Some(at), _) => at,
        (None, Some(snapshot)) => {
            all.push(Counts::new(key, snapshot));
            all.len() - 1
        }
        (None, None) => return None,
    };
    all.get_mut(at)
}

/// What a pod shows to other pods.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
    affinity: &'a PodAffinity,
}

impl<'a> Shown<'a> {
    pub(super) fn pod(pod: &'a PodInfo) -> Self {
        Self { namespace: &pod.namespace, labels: pod.labels(), affinity: &pod.pod_affinity }
    }

    pub(super) fn class(key: &'a ClassKey) -> Self {
        Self { namespace: &key.namespace, labels: &key.labels, affinity: &key.affinity }
    }

    fn is_meant(self, term: &PodTerm, namespaces: &NamespaceLabels) -> bool {
        term.matches(self.namespace, self.labels, namespaces)
    }

    /// Whether it is one that all terms mean.
    fn is_meant_by_all(self, terms: &[PodTerm], namespaces: &NamespaceLabels) -> bool {
        !terms.is_empty() && terms.iter().all(|term| self.is_meant(term, namespaces))
    }
}

/// What Filter needs.
#[derive(Debug, Clone)]
pub(super) struct Required {
    namespaces: Arc<NamespaceLabels>,
    /// Pods that this one must be near, a list per term.
    near: Vec<Counts>,
    /// Pods that this one must not be near, a list per term.
    far: Vec<Counts>,
    /// Pods that must not be near this one, a list per topology.
    pub(super) unwelcoming: Vec<Counts>,
    /// Whether the pod is one of those that it must be near.
    own: bool,
}

impl Required {
    pub(super) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let lists =
            |terms: &[PodTerm]| terms.iter().map(|term| Counts::new(&term.topology_key, snapshot)).collect::<Vec<_>>();
        let (affinity, namespaces) = (&pod.pod_affinity, Arc::clone(snapshot.namespaces()));
        let mut required = Self {
            near: lists(&affinity.required),
            far: lists(&affinity.required_anti),
            unwelcoming: Vec::new(),
            own: Shown::pod(pod).is_meant_by_all(&affinity.required, &namespaces),
            namespaces,
        };
        let mut count = |class: &PodClass| {
            let nodes = class.nodes.iter().map(|(node, count)| (*node, i64::from(*count)));
            required.count(pod, Shown::class(&class.key), nodes, Some(snapshot));
        };
        if asks(pod) {
            snapshot.classes().for_each(&mut count);
        } else {
            snapshot.classes_with_required_anti_affinity().for_each(&mut count);
        }
        required
    }

    /// Counts pods that look like `other` on nodes. Without a snapshot only in topologies that are known.
    pub(super) fn count(
        &mut self,
        pod: &PodInfo,
        other: Shown<'_>,
        nodes: impl Iterator<Item = (NodeIndex, i64)> + Clone,
        snapshot: Option<&Snapshot>,
    ) {
        let (affinity, us) = (&pod.pod_affinity, Shown::pod(pod));
        for term in other.affinity.required_anti.iter().filter(|term| us.is_meant(term, &self.namespaces)) {
            if let Some(counts) = of(&mut self.unwelcoming, &term.topology_key, snapshot) {
                counts.add(nodes.clone(), 1);
            }
        }
        if other.is_meant_by_all(&affinity.required, &self.namespaces) {
            self.near.iter_mut().for_each(|counts| counts.add(nodes.clone(), 1));
        }
        for (term, counts) in affinity.required_anti.iter().zip(&mut self.far) {
            if other.is_meant(term, &self.namespaces) {
                counts.add(nodes.clone(), 1);
            }
        }
    }

    fn is_near(&self, node: NodeIndex) -> bool {
        let mut there = true;
        for counts in &self.near {
            match counts.at(node) {
                None => return false,
                Some(count) => there &= count > 0,
            }
        }
        // The first of a group whose members are to be near each other may go anywhere.
        there || (self.own && self.near.iter().all(|counts| counts.sum == 0))
    }

    pub(super) fn code(&self, node: NodeIndex) -> u32 {
        let some = |lists: &[Counts]| lists.iter().any(|counts| counts.at(node).is_some_and(|count| count > 0));
        if !self.is_near(node) {
            NOT_NEAR
        } else if some(&self.far) {
            NOT_FAR
        } else if some(&self.unwelcoming) {
            UNWELCOME
        } else {
            FITS
        }
    }
}

pub(super) const FITS: u32 = 0;
const NOT_NEAR: u32 = 1;
const NOT_FAR: u32 = 2;
const UNWELCOME: u32 = 3;

pub(super) fn explain(code: u32) -> Status {
    match code {
        NOT_NEAR => Status::unresolvable("node(s) didn't match pod affinity rules"),
        NOT_FAR => Status::unschedulable("node(s) didn't match pod anti-affinity rules"),
        _ => Status::unschedulable("node(s) didn't satisfy existing pods anti-affinity rules"),
    }
}

/// Whether the pod has terms that must hold.
pub(super) fn asks(pod: &PodInfo) -> bool {
    !pod.pod_affinity.required.is_empty() || !pod.pod_affinity.required_anti.is_empty()
}

/// What Score needs: points, a list per topology.
#[derive(Debug, Clone, Default)]
pub(super) struct Preferred(pub(super) Vec<Counts>);

impl Preferred {
    /// Counts the points of pods that look like `other` on nodes.
    pub(super) fn count(
        &mut self,
        pod: &PodInfo,
        hard_affinity_weight: i64,
        other: Shown<'_>,
        nodes: impl Iterator<Item = (NodeIndex, i64)> + Clone,
        snapshot: &Snapshot,
    ) {
        let (own, us, namespaces) = (&pod.pod_affinity, Shown::pod(pod), snapshot.namespaces());
        let ours = own.preferred.iter().map(|(weight, term)| (*weight, term));
        let ours = ours.chain(own.preferred_anti.iter().map(|(weight, term)| (-weight, term)));
        let theirs = other.affinity.preferred.iter().map(|(weight, term)| (*weight, term));
        let theirs = theirs.chain(other.affinity.preferred_anti.iter().map(|(weight, term)| (-weight, term)));
        let hard = other.affinity.required.iter().map(|term| (hard_affinity_weight, term));
        let counted = ours.filter(|(_, term)| other.is_meant(term, namespaces));
        for (weight, term) in counted.chain(theirs.chain(hard).filter(|(_, term)| us.is_meant(term, namespaces))) {
            if weight != 0
                && let Some(counts) = of(&mut self.0, &term.topology_key, Some(snapshot))
            {
                counts.add(nodes.clone(), weight);
            }
        }
    }
}
