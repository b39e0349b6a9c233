//! All nodes with their pods, changed in place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use parking_lot::RwLock;

use super::{ClassId, Classes, NamespaceLabels, NodeInfo, PodClass, PodInfo, Topology, Volumes, Workloads};

/// The place of a node in the [`Snapshot`]; the same as long as the node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub(crate) u32);

/// All nodes with their pods, those that were only assumed to be bound included.
///
/// It has one owner, which changes it between scheduling cycles; a cycle borrows it. Every change costs what changed.
#[derive(Debug, Default)]
pub struct Snapshot {
    slots: Vec<Option<NodeInfo>>,
    free: Vec<NodeIndex>,
    by_name: HashMap<Arc<str>, NodeIndex>,
    /// Nodes in the order they are tried: zones take turns, so that the first that fit are spread.
    order: Vec<NodeIndex>,
    /// Pods by uid: where they are.
    pods: HashMap<Arc<str>, Arc<str>>,
    /// Pods on nodes that are not there (yet), by the node's name.
    orphans: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    classes: Classes,
    namespaces: Arc<NamespaceLabels>,
    /// Services, controllers of pods, and disruption budgets.
    pub workloads: Workloads,
    /// Claims, volumes and storage classes.
    pub volumes: Volumes,
    /// How many nodes have an image, by its name.
    images: HashMap<String, usize>,
    /// The places that labels make, found when first asked for; void once a node's labels change.
    topologies: RwLock<HashMap<Arc<str>, Arc<Topology>>>,
    generation: u64,
}

/// The zone of a node, as the labels say (`node.GetZoneKey`).
fn zone(node: &NodeInfo) -> (&str, &str) {
    let label = |names: [&str; 2]| names.iter().find_map(|name| node.labels().get(*name)).map_or("", String::as_str);
    (
        label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
        label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
    )
}

impl Snapshot {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Every node, zones taking turns.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &NodeInfo)> {
        self.order.iter().map(|index| (*index, self.node(*index)))
    }

    /// The order in which nodes are tried.
    pub(crate) fn order(&self) -> &[NodeIndex] {
        &self.order
    }

    /// The node at a place.
    ///
    /// # Panics
    /// If the index is not from this snapshot as it is now.
    pub fn node(&self, index: NodeIndex) -> &NodeInfo {
        self.slots[index.0 as usize].as_ref().expect("the index is of a node that is there")
    }

    /// The place of a node, by its name.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied()
    }

    /// The places that a label makes of the nodes.
    pub fn topology(&self, key: &str) -> Arc<Topology> {
        if let Some(known) = self.topologies.read().get(key) {
            return Arc::clone(known);
        }
        let topology = Arc::new(Topology::new(key, self.slots.len(), self.nodes()));
        self.topologies.write().insert(Arc::clone(&topology.key), Arc::clone(&topology));
        topology
    }

    /// One more than the highest place of a node: the length of a list with an entry per node.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many nodes have an image of this name.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Whether no node says which images it has.
    pub fn no_images(&self) -> bool {
        self.images.is_empty()
    }

    /// A class by its number.
    pub fn class(&self, id: ClassId) -> Option<&PodClass> {
        self.classes.get(id)
    }

    /// Every class of pods on nodes.
    pub fn classes(&self) -> impl Iterator<Item = &PodClass> {
        self.classes.iter()
    }

    /// Labels of the namespaces.
    pub fn namespaces(&self) -> &Arc<NamespaceLabels> {
        &self.namespaces
    }

    /// The node that a pod is on or assumed to be on.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.pods.get(uid)
    }

    /// A pod that is on a node, or assumed to be.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        let node = self.pods.get(uid)?;
        match self.find(node) {
            Some(index) => self.node(index).pods.iter().map(|entry| &entry.pod).find(|pod| pod.uid.as_ref() == uid),
            None => self.orphans.get(node)?.iter().find(|pod| pod.uid.as_ref() == uid),
        }
    }

    /// Sets the labels of a namespace; `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match labels {
            Some(labels) => namespaces.insert(name.to_owned(), labels),
            None => namespaces.remove(name),
        };
    }

    fn touch(&mut self, index: NodeIndex) -> Option<&mut NodeInfo> {
        self.generation += 1;
        let node = self.slots[index.0 as usize].as_mut()?;
        node.generation = self.generation;
        Some(node)
    }

    /// Adds a node or takes its new version.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let mut info = NodeInfo::new(node);
        if let Some(index) = self.find(&info.name) {
            let reorder = zone(self.node(index)) != zone(&info);
            if self.node(index).labels() != info.labels() {
                self.topologies.get_mut().clear();
            }
            if self.node(index).images != info.images {
                let old = Arc::clone(&self.node(index).images);
                self.count_images(&old, false);
                self.count_images(&info.images, true);
            }
            if let Some(known) = self.touch(index) {
                known.set_node(info.node);
            }
            if reorder {
                self.reorder();
            }
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            NodeIndex(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 nodes"))
        });
        let name = Arc::clone(&info.name);
        self.topologies.get_mut().clear();
        self.count_images(&info.images, true);
        info.index = index;
        self.slots[index.0 as usize] = Some(info);
        self.by_name.insert(Arc::clone(&name), index);
        self.order.push(index);
        self.touch(index);
        for pod in self.orphans.remove(&name).unwrap_or_default() {
            self.place(pod, index);
        }
        // With one zone the order is that of arrival, and many nodes arrive at once.
        if self.order.first().is_some_and(|first| zone(self.node(*first)) != zone(self.node(index))) {
            self.reorder();
        }
    }

    /// Removes a node; pods bound to it wait for it to come back or for their own end.
    pub fn remove_node(&mut self, name: &str) {
        let Some((name, index)) = self.by_name.remove_entry(name) else { return };
        let Some(node) = self.slots[index.0 as usize].take() else { return };
        self.topologies.get_mut().clear();
        self.count_images(&node.images, false);
        for entry in &node.pods {
            self.classes.remove(entry.class, index);
        }
        if !node.pods.is_empty() {
            self.orphans.insert(name, node.pods.into_iter().map(|entry| entry.pod).collect());
        }
        self.free.push(index);
        self.order.retain(|other| *other != index);
        self.generation += 1;
        self.reorder();
    }

    fn count_images(&mut self, images: &HashMap<String, i64>, more: bool) {
        for name in images.keys() {
            let count = self.images.entry(name.clone()).or_default();
            if more {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(name);
                }
            }
        }
    }

    /// One node of each zone in turn.
    fn reorder(&mut self) {
        let mut zones: BTreeMap<(&str, &str), Vec<NodeIndex>> = BTreeMap::new();
        let mut all = self.order.clone();
        all.sort_unstable();
        for index in all {
            zones.entry(zone(self.node(index))).or_default().push(index);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        let turns = (0..longest).flat_map(|turn| zones.values().filter_map(move |nodes| nodes.get(turn).copied()));
        self.order = turns.collect();
    }

    fn place(&mut self, pod: Arc<PodInfo>, index: NodeIndex) {
        let class = self.classes.add(&pod, index);
        if let Some(node) = self.touch(index) {
            node.add_pod(pod, class);
        }
    }

    /// Puts a pod on a node, or its new version in the old one's place.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.uid);
        let index = self.find(node);
        let name = index.map_or_else(|| Arc::from(node), |index| Arc::clone(&self.node(index).name));
        self.pods.insert(Arc::clone(&pod.uid), Arc::clone(&name));
        match index {
            Some(index) => self.place(pod, index),
            None => self.orphans.entry(name).or_default().push(pod),
        }
    }

    /// Takes a pod off its node; answers the pod if it was on one.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let node = self.pods.remove(uid)?;
        if let Some(index) = self.find(&node) {
            let entry = self.touch(index)?.remove_pod(uid)?;
            self.classes.remove(entry.class, index);
            return Some(entry.pod);
        }
        let orphans = self.orphans.get_mut(&node)?;
        let at = orphans.iter().position(|pod| pod.uid.as_ref() == uid)?;
        let pod = orphans.swap_remove(at);
        if orphans.is_empty() {
            self.orphans.remove(&node);
        }
        Some(pod)
    }
}
