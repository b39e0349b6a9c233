//! PodGroups: pods that are scheduled together (KEP-4671, `scheduling.k8s.io/v1alpha2`).

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use indexmap::IndexSet;
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;

use super::PodInfo;

/// A group's namespace and name.
pub type GroupKey = (Arc<str>, Arc<str>);

/// All groups, and the pods that refer to them.
#[derive(Debug, Default)]
pub struct PodGroups {
    groups: HashMap<GroupKey, Arc<PodGroup>>,
    /// Pods by uid, waiting or on nodes, in the order in which they came. A pod may refer to a group that is not there yet.
    members: HashMap<GroupKey, IndexSet<Arc<str>>>,
    of_pod: HashMap<Arc<str>, GroupKey>,
}

/// The group that a pod refers to (`spec.schedulingGroup`), if any.
pub fn group_of(pod: &PodInfo) -> Option<GroupKey> {
    let name = pod.spec().scheduling_group.as_ref()?.pod_group_name.as_deref()?;
    Some((Arc::clone(&pod.namespace), Arc::from(name)))
}

impl PodGroups {
    /// Sets a group; `None` when it is gone. Answers the version before.
    pub fn set_group(&mut self, namespace: &str, name: &str, group: Option<Arc<PodGroup>>) -> Option<Arc<PodGroup>> {
        let key = (Arc::from(namespace), Arc::from(name));
        match group {
            Some(group) => self.groups.insert(key, group),
            None => self.groups.remove(&key),
        }
    }

    /// A pod is there; `false` if it is in no group or was known.
    pub fn add_pod(&mut self, pod: &PodInfo) -> bool {
        let Some(key) = group_of(pod) else { return false };
        self.of_pod.insert(Arc::clone(&pod.uid), key.clone());
        self.members.entry(key).or_default().insert(Arc::clone(&pod.uid))
    }

    /// A pod is gone or has ended. Answers its group, if it was in one.
    pub fn remove_pod(&mut self, uid: &str) -> Option<GroupKey> {
        let key = self.of_pod.remove(uid)?;
        let members = self.members.get_mut(&key)?;
        members.shift_remove(uid);
        if members.is_empty() {
            self.members.remove(&key);
        }
        Some(key)
    }

    /// A group.
    pub fn group(&self, key: &GroupKey) -> Option<&Arc<PodGroup>> {
        self.groups.get(key)
    }

    /// How many pods of the group have to be placed for any of them to be: the gang policy's `minCount`. `None` for a group that
    /// has another policy or is not there.
    pub fn min_count(&self, key: &GroupKey) -> Option<usize> {
        let gang = self.groups.get(key)?.spec.scheduling_policy.gang.as_ref()?;
        Some(usize::try_from(gang.min_count).unwrap_or(0))
    }

    /// Whether too few pods refer to the group, by its policy, for any of them to be tried.
    pub fn is_short(&self, key: &GroupKey) -> bool {
        self.min_count(key).is_some_and(|min_count| self.members(key).len() < min_count)
    }

    /// Whether a pod's group is not there, or too few pods of it are, so that the pod is not tried before that changes.
    pub fn hold_back(&self, pod: &PodInfo) -> bool {
        group_of(pod).is_some_and(|key| self.group(&key).is_none() || self.is_short(&key))
    }

    /// The uids of the pods that refer to the group, in the order in which they came.
    pub fn members(&self, key: &GroupKey) -> impl ExactSizeIterator<Item = &Arc<str>> {
        static NONE: LazyLock<IndexSet<Arc<str>>> = LazyLock::new(IndexSet::new);
        self.members.get(key).unwrap_or(&NONE).iter()
    }
}
