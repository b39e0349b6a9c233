//! What the scheduler knows of a node.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Taint};
use rk_api::Quantity;

use super::{ClassId, NodeIndex, PodInfo, Resources};

/// A pod on a node.
#[derive(Debug, Clone)]
pub struct PodEntry {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Its class.
    pub class: ClassId,
}

/// A node with the pods on it and sums over them.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its place in the snapshot.
    pub index: NodeIndex,
    /// The node.
    pub node: Arc<Node>,
    /// Its name.
    pub name: Arc<str>,
    /// What pods can have of it.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub allowed_pods: i64,
    /// What its pods ask for.
    pub requested: Resources,
    /// Milli-cores its pods are scored with.
    pub nonzero_milli_cpu: i64,
    /// Bytes of memory its pods are scored with.
    pub nonzero_memory: i64,
    /// The pods on it, those assumed to be included.
    pub pods: Vec<PodEntry>,
    /// Bytes of each image it has, by every name of the image.
    pub images: Arc<HashMap<String, i64>>,
    /// Changes of this node and its pods so far, in the order of the whole snapshot: equal means unchanged.
    pub generation: u64,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            index: NodeIndex(u32::MAX),
            name: Arc::from(node.metadata.name.as_deref().unwrap_or_default()),
            node: Arc::clone(&node),
            allocatable: Resources::default(),
            allowed_pods: 0,
            requested: Resources::default(),
            nonzero_milli_cpu: 0,
            nonzero_memory: 0,
            pods: Vec::new(),
            images: Arc::default(),
            generation: 0,
        };
        info.set_node(node);
        info
    }

    /// Takes a new version of the node; its pods stay.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::from_list).unwrap_or_default();
        let pods = allocatable.and_then(|list| list.get("pods")).and_then(|text| text.0.parse::<Quantity>().ok());
        self.allowed_pods = pods.map_or(0, |pods| pods.value());
        let images = status.and_then(|status| status.images.as_deref()).unwrap_or_default();
        let sized = images
            .iter()
            .flat_map(|image| image.names.iter().flatten().map(|name| (name.clone(), image.size_bytes.unwrap_or(0))));
        self.images = Arc::new(sized.collect());
        self.node = node;
    }

    /// The node's labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.node.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// Whether the node is cordoned.
    pub fn unschedulable(&self) -> bool {
        self.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    /// Whether one of the node's pods holds a port that `pod` wants.
    pub fn port_conflict(&self, pod: &PodInfo) -> bool {
        !pod.host_ports.is_empty()
            && self.pods.iter().any(|entry| {
                entry.pod.host_ports.iter().any(|held| pod.host_ports.iter().any(|wanted| wanted.conflicts(held)))
            })
    }

    /// Puts a pod on the node.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>, class: ClassId) {
        self.requested.add(&pod.requests);
        self.nonzero_milli_cpu += pod.nonzero_milli_cpu;
        self.nonzero_memory += pod.nonzero_memory;
        self.pods.push(PodEntry { pod, class });
    }

    /// Takes a pod off the node.
    pub fn remove_pod(&mut self, uid: &str) -> Option<PodEntry> {
        let at = self.pods.iter().position(|entry| entry.pod.uid.as_ref() == uid)?;
        Some(self.take(at))
    }

    /// As `remove_pod`, of this very pod: pointers are compared sooner than names.
    pub(crate) fn remove_same(&mut self, pod: &Arc<PodInfo>) -> Option<PodEntry> {
        let at = self.pods.iter().position(|entry| Arc::ptr_eq(&entry.pod, pod))?;
        Some(self.take(at))
    }

    fn take(&mut self, at: usize) -> PodEntry {
        let entry = self.pods.swap_remove(at);
        self.requested.subtract(&entry.pod.requests);
        self.nonzero_milli_cpu -= entry.pod.nonzero_milli_cpu;
        self.nonzero_memory -= entry.pod.nonzero_memory;
        entry
    }
}
