//! The pods that a pod's terms mean, and those whose terms mean it, by place.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    framework::Status,
    model::{
        ClassKey, NamespaceLabels, NodeIndex, NodeInfo, PodAffinity, PodClass, PodInfo, PodTerm, Snapshot, Topology,
    },
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
fn of<'a>(all: &'a mut Vec<Counts>, key: &str, snapshot: &Snapshot) -> Option<&'a mut Counts> {
    let known = all.iter().position(|counts| counts.topology.key.as_ref() == key);
    let at = known.unwrap_or_else(|| {
        all.push(Counts::new(key, snapshot));
        all.len() - 1
    });
    all.get_mut(at)
}

/// What is seen of the cluster while pods are counted.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    Cluster(&'a Snapshot),
    /// The node on which a pod is thought of as added or gone.
    Node(&'a NodeInfo),
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
    unwelcoming: Vec<Counts>,
    /// The same in topologies that only pods bring up which are thought of as added: by the label and its value.
    beside: BTreeMap<(Arc<str>, String), i64>,
    /// Whether the pod is one of those that it must be near.
    own: bool,
}

impl Required {
    /// Of a pod without terms, in a cluster where no pod's terms mean it.
    pub(super) fn of_nobody(snapshot: &Snapshot) -> Self {
        Self {
            namespaces: Arc::clone(snapshot.namespaces()),
            near: Vec::new(),
            far: Vec::new(),
            unwelcoming: Vec::new(),
            beside: BTreeMap::new(),
            own: false,
        }
    }

    /// Whether no node can be refused.
    pub(super) fn is_idle(&self) -> bool {
        self.near.is_empty() && self.far.is_empty() && self.unwelcoming.is_empty() && self.beside.is_empty()
    }

    pub(super) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let lists =
            |terms: &[PodTerm]| terms.iter().map(|term| Counts::new(&term.topology_key, snapshot)).collect::<Vec<_>>();
        let (affinity, namespaces) = (&pod.pod_affinity, Arc::clone(snapshot.namespaces()));
        let mut required = Self {
            near: lists(&affinity.required),
            far: lists(&affinity.required_anti),
            unwelcoming: Vec::new(),
            beside: BTreeMap::new(),
            own: Shown::pod(pod).is_meant_by_all(&affinity.required, &namespaces),
            namespaces,
        };
        let mut count = |class: &PodClass| {
            let nodes = class.nodes.iter().map(|(node, count)| (*node, i64::from(*count)));
            required.count(pod, Shown::class(&class.key), nodes, Seen::Cluster(snapshot));
        };
        if asks(pod) {
            snapshot.classes().for_each(&mut count);
        } else {
            snapshot.classes_with_required_anti_affinity().for_each(&mut count);
        }
        required
    }

    /// Counts pods that look like `other` on nodes.
    pub(super) fn count(
        &mut self,
        pod: &PodInfo,
        other: Shown<'_>,
        nodes: impl Iterator<Item = (NodeIndex, i64)> + Clone,
        seen: Seen<'_>,
    ) {
        let (affinity, us) = (&pod.pod_affinity, Shown::pod(pod));
        for term in other.affinity.required_anti.iter().filter(|term| us.is_meant(term, &self.namespaces)) {
            let known = |counts: &&mut Counts| counts.topology.key == term.topology_key;
            let counts = match seen {
                Seen::Cluster(snapshot) => of(&mut self.unwelcoming, &term.topology_key, snapshot),
                Seen::Node(_) => self.unwelcoming.iter_mut().find(known),
            };
            match (counts, seen) {
                (Some(counts), _) => counts.add(nodes.clone(), 1),
                (None, Seen::Node(node)) => {
                    count_beside(&mut self.beside, &term.topology_key, node, nodes.clone().map(|(_, by)| by).sum());
                }
                (None, Seen::Cluster(_)) => {}
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

    /// The answer for a node.
    pub(super) fn code_of(&self, node: &NodeInfo) -> u32 {
        let is_here = |(key, value): &(Arc<str>, String)| node.labels().get(key.as_ref()) == Some(value);
        match self.code(node.index) {
            FITS if self.beside.iter().any(|(place, count)| *count > 0 && is_here(place)) => UNWELCOME,
            code => code,
        }
    }

    fn code(&self, node: NodeIndex) -> u32 {
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

/// Counts pods on a node in a topology whose places are not known.
fn count_beside(beside: &mut BTreeMap<(Arc<str>, String), i64>, key: &Arc<str>, node: &NodeInfo, by: i64) {
    let Some(value) = node.labels().get(key.as_ref()) else { return };
    let place = (Arc::clone(key), value.clone());
    let count = beside.entry(place.clone()).or_default();
    *count += by;
    if *count == 0 {
        beside.remove(&place);
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
                && let Some(counts) = of(&mut self.0, &term.topology_key, snapshot)
            {
                counts.add(nodes.clone(), weight);
            }
        }
    }
}
