//! All nodes with their pods, changed in place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use k8s_openapi::api::core::v1::Node;
use parking_lot::{Mutex, RwLock};

use super::{
    ClassId, Classes, Columns, Devices, NamespaceLabels, NodeInfo, Placement, PodClass, PodGroups, PodInfo, Topology,
    Volumes, Workloads,
    memo::{Memos, Placements},
};

/// The place of a node in the [`Snapshot`]; the same as long as the node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub(crate) u32);

impl NodeIndex {
    /// Where the node's entry is in lists with one per slot, such as [`Columns`].
    pub fn slot(self) -> usize {
        self.0 as usize
    }
}

/// Where a pod is.
#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: Arc<str>,
}

/// All nodes with their pods, those that were only assumed to be bound included.
///
/// It has one owner, which changes it between scheduling cycles; a cycle borrows it. Every change costs what changed.
#[derive(Debug, Default)]
pub struct Snapshot {
    slots: Vec<Option<NodeInfo>>,
    free: Vec<NodeIndex>,
    by_name: HashMap<Arc<str>, NodeIndex>,
    /// Nodes in the order they are tried, found when first asked for: zones take turns, so that the first that fit are spread.
    order: OnceLock<Vec<NodeIndex>>,
    /// Pods by uid.
    pods: HashMap<Arc<str>, Placed>,
    /// Pods on nodes that are not there (yet), by the node's name.
    orphans: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    classes: Classes,
    namespaces: Arc<NamespaceLabels>,
    /// Services, controllers of pods, and disruption budgets.
    pub workloads: Workloads,
    /// Claims, volumes, and what says where they can be used.
    pub volumes: Volumes,
    /// Devices, and the claims of them.
    pub devices: Devices,
    /// Groups of pods that are scheduled together.
    pub groups: PodGroups,
    /// How many nodes have an image, by its name.
    images: HashMap<String, usize>,
    /// The places that labels make, found when first asked for; void once a node's labels change.
    topologies: RwLock<HashMap<Arc<str>, Arc<Topology>>>,
    generation: u64,
    columns: Columns,
    /// Counts the changes of what nodes and namespaces are, as opposed to the pods that are there.
    layout: u64,
    placements: Placements,
    memos: Mutex<Memos>,
}

/// The zone of a node, as the labels say (`node.GetZoneKey`).
fn zone(node: &NodeInfo) -> (&str, &str) {
    let label = |names: [&str; 2]| names.iter().find_map(|name| node.labels().get(*name)).map_or("", String::as_str);
    (
        label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
        label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
    )
}

/// Most topologies that are kept.
const MOST_TOPOLOGIES: usize = 256;

impl Snapshot {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Every node, zones taking turns.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &NodeInfo)> {
        self.order().iter().map(|index| (*index, self.node(*index)))
    }

    /// The order in which nodes are tried: one of each zone in turn.
    pub(crate) fn order(&self) -> &[NodeIndex] {
        self.order.get_or_init(|| {
            let mut zones: BTreeMap<(&str, &str), Vec<NodeIndex>> = BTreeMap::new();
            for node in self.slots.iter().flatten() {
                zones.entry(zone(node)).or_default().push(node.index);
            }
            let longest = zones.values().map(Vec::len).max().unwrap_or(0);
            let turns = (0..longest).flat_map(|turn| zones.values().filter_map(move |nodes| nodes.get(turn).copied()));
            turns.collect()
        })
    }

    /// The node at a place.
    ///
    /// # Panics
    /// If the index is not from this snapshot as it is now.
    pub fn node(&self, index: NodeIndex) -> &NodeInfo {
        self.slots[index.slot()].as_ref().expect("the index is of a node that is there")
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
        let mut topologies = self.topologies.write();
        // Whoever makes up keys makes others' be found again, and no more.
        if topologies.len() >= MOST_TOPOLOGIES {
            topologies.clear();
        }
        topologies.insert(Arc::clone(&topology.key), Arc::clone(&topology));
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

    /// The classes whose pods have terms of affinity or anti-affinity.
    pub fn classes_with_affinity(&self) -> impl Iterator<Item = &PodClass> {
        self.classes.with_affinity()
    }

    /// The classes whose pods must not be near some pods.
    pub fn classes_with_required_anti_affinity(&self) -> impl Iterator<Item = &PodClass> {
        self.classes.with_required_anti_affinity()
    }

    /// The state of all nodes by columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// What was found for a key before, brought up to date by `follow` with each pod that came or went since, or what `build` finds.
    /// Nothing is kept across changes of nodes and namespaces. `build` and `follow` must not recall anything themselves.
    pub(crate) fn recall<K: Send + 'static, V: Clone + Send + Sync + 'static>(
        &self,
        is: impl Fn(&K) -> bool,
        key: impl FnOnce() -> K,
        build: impl FnOnce() -> V,
        follow: impl FnMut(&mut V, &Placement),
    ) -> Arc<V> {
        self.memos.lock().recall(self.layout, &self.placements, is, key, build, follow)
    }

    /// Changes with what nodes and namespaces are, as opposed to the pods that are there.
    pub(crate) fn layout(&self) -> u64 {
        self.layout
    }

    /// Labels of the namespaces.
    pub fn namespaces(&self) -> &Arc<NamespaceLabels> {
        &self.namespaces
    }

    /// The node that a pod is on or assumed to be on.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.pods.get(uid).map(|placed| &placed.node)
    }

    /// A pod that is on a node, or assumed to be.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|placed| &placed.pod)
    }

    /// Sets the labels of a namespace; `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match labels {
            Some(labels) => namespaces.insert(name.to_owned(), labels),
            None => namespaces.remove(name),
        };
        self.layout += 1;
    }

    /// Changes the pods of a node.
    fn change_pods<T>(&mut self, index: NodeIndex, change: impl FnOnce(&mut NodeInfo) -> T) -> Option<T> {
        self.generation += 1;
        let node = self.slots[index.slot()].as_mut()?;
        node.generation = self.generation;
        let answer = change(node);
        self.columns.set_pods(node);
        Some(answer)
    }

    fn note(&mut self, id: ClassId, node: NodeIndex, by: i64) {
        if let Some(class) = self.classes.get(id) {
            self.placements.note(Placement { class: Arc::clone(&class.key), node, by });
        }
    }

    /// Adds a node or takes its new version.
    pub fn set_node(&mut self, node: Arc<Node>) {
        match self.find(node.metadata.name.as_deref().unwrap_or_default()) {
            Some(index) => self.change_node(index, node),
            None => self.add_node(NodeInfo::new(node)),
        }
    }

    fn change_node(&mut self, index: NodeIndex, node: Arc<Node>) {
        let Some(mut info) = self.slots[index.slot()].take() else { return };
        let (old, images) = (Arc::clone(&info.node), Arc::clone(&info.images));
        info.set_node(node);
        self.generation += 1;
        info.generation = self.generation;
        let relabelled = old.metadata.labels != info.node.metadata.labels;
        let taints = old.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        if relabelled || taints != info.taints() {
            self.layout += 1;
        }
        if images != info.images {
            self.count_images(&images, false);
            self.count_images(&info.images, true);
        }
        self.columns.set_node(&info);
        self.slots[index.slot()] = Some(info);
        if relabelled {
            self.topologies.get_mut().clear();
            self.order = OnceLock::new();
        }
    }

    fn add_node(&mut self, mut info: NodeInfo) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.columns.grow();
            NodeIndex(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 nodes"))
        });
        let name = Arc::clone(&info.name);
        self.topologies.get_mut().clear();
        self.layout += 1;
        self.count_images(&info.images, true);
        self.generation += 1;
        (info.index, info.generation) = (index, self.generation);
        self.columns.set_node(&info);
        self.slots[index.slot()] = Some(info);
        self.by_name.insert(Arc::clone(&name), index);
        self.order = OnceLock::new();
        for pod in self.orphans.remove(&name).unwrap_or_default() {
            self.place(pod, index);
        }
    }

    /// Removes a node; pods bound to it wait for it to come back or for their own end.
    pub fn remove_node(&mut self, name: &str) {
        let Some((name, index)) = self.by_name.remove_entry(name) else { return };
        let Some(node) = self.slots[index.slot()].take() else { return };
        self.topologies.get_mut().clear();
        self.layout += 1;
        self.columns.clear(index.slot());
        self.count_images(&node.images, false);
        for entry in &node.pods {
            self.classes.remove(entry.class, index);
        }
        if !node.pods.is_empty() {
            self.orphans.insert(name, node.pods.into_iter().map(|entry| entry.pod).collect());
        }
        self.free.push(index);
        self.order = OnceLock::new();
        self.generation += 1;
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

    fn place(&mut self, pod: Arc<PodInfo>, index: NodeIndex) {
        let class = self.classes.add(&pod, index);
        self.note(class, index, 1);
        self.change_pods(index, |node| node.add_pod(pod, class));
    }

    /// Puts a pod on a node, or its new version in the old one's place.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.uid);
        let index = self.find(node);
        let name = index.map_or_else(|| Arc::from(node), |index| Arc::clone(&self.node(index).name));
        self.pods.insert(Arc::clone(&pod.uid), Placed { pod: Arc::clone(&pod), node: Arc::clone(&name) });
        self.volumes.place(&pod, &name);
        match index {
            Some(index) => self.place(pod, index),
            None => self.orphans.entry(name).or_default().push(pod),
        }
    }

    /// Takes a pod off its node; answers the pod if it was on one.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let Placed { pod, node } = self.pods.remove(uid)?;
        self.volumes.take_off(&pod);
        if let Some(index) = self.find(&node) {
            let entry = self.change_pods(index, |node| node.remove_same(&pod))??;
            self.note(entry.class, index, -1);
            self.classes.remove(entry.class, index);
            return Some(pod);
        }
        let orphans = self.orphans.get_mut(&node)?;
        let at = orphans.iter().position(|orphan| Arc::ptr_eq(orphan, &pod))?;
        orphans.swap_remove(at);
        if orphans.is_empty() {
            self.orphans.remove(&node);
        }
        Some(pod)
    }
}
