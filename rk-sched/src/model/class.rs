//! Classes of pods that look alike to other pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher},
    sync::Arc,
};

use indexmap::{Equivalent, IndexMap};

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClassKey {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
    /// Their affinity terms.
    pub affinity: Arc<PodAffinity>,
    /// Whether they are being deleted.
    pub terminating: bool,
}

impl ClassKey {
    pub(crate) fn of(pod: &PodInfo) -> Self {
        Self {
            namespace: Arc::clone(&pod.namespace),
            labels: pod.labels().clone(),
            affinity: Arc::clone(&pod.pod_affinity),
            terminating: pod.terminating(),
        }
    }

    /// Whether the pod is of the class.
    pub(crate) fn is_of(&self, pod: &PodInfo) -> bool {
        self.terminating == pod.terminating()
            && self.namespace == pod.namespace
            && self.affinity == pod.pod_affinity
            && self.labels == *pod.labels()
    }
}

/// A pod in place of its class's key.
struct Lookup<'a>(&'a PodInfo);

impl Hash for Lookup<'_> {
    /// As the derived one of the key.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.namespace.hash(state);
        self.0.labels().hash(state);
        self.0.pod_affinity.hash(state);
        self.0.terminating().hash(state);
    }
}

impl Equivalent<Arc<ClassKey>> for Lookup<'_> {
    fn equivalent(&self, key: &Arc<ClassKey>) -> bool {
        key.is_of(self.0)
    }
}

/// All classes that have pods.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    slots: Vec<Option<PodClass>>,
    free: Vec<ClassId>,
    ids: IndexMap<Arc<ClassKey>, ClassId>,
    /// Those whose pods have terms of affinity or anti-affinity.
    with_affinity: BTreeSet<ClassId>,
    /// Those whose pods must not be near some pods.
    with_required_anti_affinity: BTreeSet<ClassId>,
}

impl Classes {
    /// Counts a pod in its class.
    pub(crate) fn add(&mut self, pod: &PodInfo, node: NodeIndex) -> ClassId {
        let id = match self.ids.get(&Lookup(pod)) {
            Some(id) => *id,
            None => self.insert(Arc::new(ClassKey::of(pod))),
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
        if !key.affinity.is_empty() {
            self.with_affinity.insert(id);
        }
        if !key.affinity.required_anti.is_empty() {
            self.with_required_anti_affinity.insert(id);
        }
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
            self.ids.swap_remove(&class.key);
            self.with_affinity.remove(&id);
            self.with_required_anti_affinity.remove(&id);
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

    pub(crate) fn with_affinity(&self) -> impl Iterator<Item = &PodClass> {
        self.with_affinity.iter().filter_map(|id| self.get(*id))
    }

    pub(crate) fn with_required_anti_affinity(&self) -> impl Iterator<Item = &PodClass> {
        self.with_required_anti_affinity.iter().filter_map(|id| self.get(*id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> PodInfo {
        PodInfo::new(Arc::new(serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn pods_that_look_alike_share_a_class_until_the_last_is_gone() {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}});
        let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        let plain = |name: &str| pod(json!({"metadata": {"namespace": "n", "name": name, "labels": {"app": "a"}}}));
        let far = pod(json!({
            "metadata": {"namespace": "n", "labels": {"app": "a"}}, "spec": {"containers": [], "affinity": affinity},
        }));
        let mut classes = Classes::default();
        let node = NodeIndex(3);
        let ids = [classes.add(&plain("x"), node), classes.add(&plain("y"), node), classes.add(&far, node)];
        assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
        assert_eq!(classes.get(ids[0]).map(|class| class.nodes[&node]), Some(2));
        assert_eq!((classes.with_affinity().count(), classes.with_required_anti_affinity().count()), (1, 1));
        classes.remove(ids[2], node);
        assert_eq!((classes.iter().count(), classes.with_affinity().count()), (1, 0));
        classes.remove(ids[0], node);
        classes.remove(ids[1], node);
        assert_eq!(classes.iter().count(), 0);
    }
}
