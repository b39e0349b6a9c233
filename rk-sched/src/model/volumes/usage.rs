//! Which volumes the nodes' pods use, counted per node and driver as pods come and go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{CsiNode, Handle, VolumeId};
use crate::model::PodInfo;

/// What uses a volume of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Refs {
    pods: u32,
    attachments: u32,
}

/// The volumes of a node that count towards the limits of drivers.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeVolumes {
    by_driver: HashMap<Arc<str>, HashMap<Handle, Refs>>,
    /// Pods that may use such volumes, by uid.
    pub(super) pods: BTreeMap<Arc<str>, Arc<PodInfo>>,
    /// VolumeAttachments to the node, by name.
    pub(super) attachments: BTreeSet<String>,
}

impl NodeVolumes {
    /// How many volumes of a driver the node's pods use or are attached to it.
    pub(crate) fn count(&self, driver: &str) -> i64 {
        self.by_driver.get(driver).map_or(0, |volumes| i64::try_from(volumes.len()).unwrap_or(i64::MAX))
    }

    /// Whether a pod of the node uses a volume.
    pub(crate) fn is_used(&self, id: &VolumeId) -> bool {
        self.by_driver.get(&id.driver).and_then(|volumes| volumes.get(&id.handle)).is_some_and(|refs| refs.pods > 0)
    }

    /// Counts a volume of a pod.
    pub(crate) fn add(&mut self, id: VolumeId) {
        self.refs(id).pods += 1;
    }

    /// Counts a volume that is attached.
    pub(crate) fn attach(&mut self, id: VolumeId) {
        self.refs(id).attachments += 1;
    }

    fn refs(&mut self, id: VolumeId) -> &mut Refs {
        self.by_driver.entry(id.driver).or_default().entry(id.handle).or_default()
    }

    /// Counts a volume of a pod out.
    pub(super) fn remove(&mut self, id: &VolumeId) {
        let Some(volumes) = self.by_driver.get_mut(&id.driver) else { return };
        let Some(refs) = volumes.get_mut(&id.handle) else { return };
        refs.pods = refs.pods.saturating_sub(1);
        if *refs == Refs::default() {
            volumes.remove(&id.handle);
        }
        if volumes.is_empty() {
            self.by_driver.remove(&id.driver);
        }
    }

    /// Forgets all counts.
    pub(super) fn clear(&mut self) {
        self.by_driver.clear();
    }

    /// Whether the same volumes count.
    #[cfg(test)]
    pub(super) fn counts_as(&self, other: &Self) -> bool {
        self.by_driver == other.by_driver
    }

    /// Whether nothing is known of the node.
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.attachments.is_empty()
    }
}

/// How many more volumes of each driver the fullest node takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slack {
    /// By driver: how many nodes take so many more.
    by_driver: HashMap<Arc<str>, BTreeMap<i64, u32>>,
}

impl Slack {
    /// Counts a node in, or out of, what there is room for.
    pub(super) fn note(&mut self, csi: Option<&CsiNode>, volumes: Option<&NodeVolumes>, there: bool) {
        for (driver, limit) in csi.into_iter().flat_map(CsiNode::limits) {
            let left = limit - volumes.map_or(0, |volumes| volumes.count(driver));
            let nodes = self.by_driver.entry(Arc::clone(driver)).or_default();
            let count = nodes.entry(left).or_default();
            *count = if there { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                nodes.remove(&left);
            }
            if nodes.is_empty() {
                self.by_driver.remove(driver);
            }
        }
    }

    /// How many more volumes of a driver any node takes at least; `None` where no node limits them.
    pub(super) fn least(&self, driver: &str) -> Option<i64> {
        self.by_driver.get(driver)?.first_key_value().map(|(left, _)| *left)
    }
}

/// Which pods on nodes use which claims.
#[derive(Debug, Clone, Default)]
pub(super) struct ClaimUsers {
    /// By namespace and name: uids of pods.
    users: HashMap<Arc<str>, HashMap<String, HashSet<Arc<str>>>>,
}

impl ClaimUsers {
    pub(super) fn add(&mut self, pod: &PodInfo) {
        for claim in super::claims_of(pod) {
            let claims = self.users.entry(Arc::clone(&pod.namespace)).or_default();
            claims.entry(claim.name.into_owned()).or_default().insert(Arc::clone(&pod.uid));
        }
    }

    pub(super) fn remove(&mut self, pod: &PodInfo) {
        for claim in super::claims_of(pod) {
            let Some(claims) = self.users.get_mut(&pod.namespace) else { return };
            if let Some(users) = claims.get_mut(claim.name.as_ref()) {
                users.remove(&pod.uid);
                if users.is_empty() {
                    claims.remove(claim.name.as_ref());
                }
            }
            if claims.is_empty() {
                self.users.remove(&pod.namespace);
            }
        }
    }

    /// The uids of the pods that use a claim.
    pub(super) fn of(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<str>> {
        self.users.get(namespace).and_then(|claims| claims.get(name)).into_iter().flatten()
    }
}
