//! Classes of pods that look alike to other pods.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{NodeIndex, PodAffinity, PodInfo};

/// The number of a class; it may be used again once the class has no pods.
pub type ClassId = u32;

/// Pods on nodes that other pods can't tell apart: same namespace, labels and affinity terms, and all or none of them
/// being deleted. The replicas of a workload are one class.
#[derive(Debug)]
pub struct PodClass {
    /// What the pods have in common.
    pub key: Arc<ClassKey>,
    /// How many of them each node has.
    pub nodes: HashMap<NodeIndex, u32>,
}

/// What the pods of a class have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ClassKey {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
    /// Their affinity terms.
    pub affinity: PodAffinity,
    /// Whether they are being deleted.
    pub terminating: bool,
}

/// All classes that have pods.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    slots: Vec<Option<PodClass>>,
    free: Vec<ClassId>,
    ids: HashMap<Arc<ClassKey>, ClassId>,
}

impl Classes {
    /// Counts a pod in its class.
    pub(crate) fn add(&mut self, pod: &PodInfo, node: NodeIndex) -> ClassId {
        let key = ClassKey {
            namespace: Arc::clone(&pod.namespace),
            labels: pod.labels().clone(),
            affinity: pod.pod_affinity.clone(),
            terminating: pod.terminating(),
        };
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => self.insert(Arc::new(key)),
        };
        if let Some(class) = &mut self.slots[id as usize] {
            *class.nodes.entry(node).or_default() += 1;
        }
        id
    }

    fn insert(&mut self, key: Arc<ClassKey>) -> ClassId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ClassId::try_from(self.slots.len() - 1).expect("fewer than 2^32 pods")
        });
        self.ids.insert(Arc::clone(&key), id);
        self.slots[id as usize] = Some(PodClass { key, nodes: HashMap::new() });
        id
    }

    /// Counts a pod out.
    pub(crate) fn remove(&mut self, id: ClassId, node: NodeIndex) {
        let Some(class) = &mut self.slots[id as usize] else { return };
        if let Some(count) = class.nodes.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                class.nodes.remove(&node);
            }
        }
        if class.nodes.is_empty() {
            self.ids.remove(&class.key);
            self.slots[id as usize] = None;
            self.free.push(id);
        }
    }

    pub(crate) fn get(&self, id: ClassId) -> Option<&PodClass> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PodClass> {
        self.slots.iter().flatten()
    }
}
