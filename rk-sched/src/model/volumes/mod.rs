//! Claims, volumes, and what says where volumes can be used.
//!
//! - [`VolumeInfo`]: a PersistentVolume, read once per version.
//! - `tables`: everything by its name, with what is found by other things than names (`available` volumes by size and node);
//!   `changes` keeps it true, and counts on the way what each node's pods use (`usage`), so that a cycle need not look at the
//!   pods of nodes.
//! - `assumed`: what was promised to claims and is not seen in the API yet.
//! - `migration`, `csi`, `capacity`, `zones`: drivers in place of plugins, their limits and room, labels of places.
//! - `watched`: who waits until objects change.

mod assumed;
mod available;
mod capacity;
mod changes;
mod claim;
mod csi;
mod migration;
mod tables;
#[cfg(test)]
mod tests;
mod usage;
mod volume;
mod watched;
mod zones;

use std::sync::{Arc, Weak};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};

use super::PodInfo;

pub use claim::{ClaimUse, claims_of};
pub use volume::VolumeInfo;

pub(crate) use assumed::{Assumed, ClaimKey, Given};
pub(crate) use available::Available;
pub(crate) use capacity::{Capacities, Capacity};
pub(crate) use claim::{
    SELECTED_NODE, check_owner, class_of, is_bound, selected_node, selector_of, size_of, volume_of,
};
pub(crate) use csi::{CsiNode, MIGRATED};
pub(crate) use tables::{Tables, UsedVolume, may_count};
pub(crate) use usage::NodeVolumes;
pub(crate) use volume::{Handle, VolumeId};
pub(crate) use watched::Subject;
pub(crate) use zones::Place;

/// All that is known of volumes, and what is promised of them.
#[derive(Debug, Default)]
pub struct Volumes {
    tables: Arc<Tables>,
    assumed: Arc<Assumed>,
}

/// The tables as they are in one cycle, for plugins' state: changed tables can't be seen through it, and it does not keep the
/// old ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct TablesView(Weak<Tables>);

impl TablesView {
    /// The tables; `None` once they have changed, or are gone.
    pub(crate) fn get(&self) -> Option<Arc<Tables>> {
        self.0.upgrade()
    }
}

impl Volumes {
    /// To change the tables. Views of them see nothing any more; nothing is copied, as those who look are done by now.
    fn change(&mut self) -> &mut Tables {
        Arc::make_mut(&mut self.tables)
    }

    /// Sets a claim; `None` when it is gone.
    pub fn set_claim(&mut self, namespace: &str, name: &str, claim: Option<Arc<PersistentVolumeClaim>>) {
        self.change().set_claim(namespace, name, claim);
        self.assumed.watched().tell(|| Subject::Claim(namespace.to_owned(), name.to_owned()));
    }

    /// Sets a volume; `None` when it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>) {
        self.change().set_volume(name, volume.map(|volume| Arc::new(VolumeInfo::new(volume))));
        self.assumed.watched().tell(|| Subject::Volume(name.to_owned()));
    }

    /// Sets a storage class; `None` when it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        self.change().set_class(name, class);
    }

    /// Sets what is known of a node's CSI drivers; `None` when it is gone.
    pub fn set_csi_node(&mut self, name: &str, node: Option<&CSINode>) {
        self.change().set_csi_node(name, node.map(CsiNode::new));
    }

    /// Sets a CSI driver; `None` when it is gone.
    pub fn set_csi_driver(&mut self, name: &str, driver: Option<&CSIDriver>) {
        let tracking = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
        let tables = self.change();
        if tracking {
            tables.tracking.insert(name.to_owned());
        } else {
            tables.tracking.remove(name);
        }
    }

    /// Sets how much room there is for volumes of a class; `None` when that is not known any more.
    pub fn set_capacity(&mut self, namespace: &str, name: &str, capacity: Option<&CSIStorageCapacity>) {
        self.change().set_capacity(namespace, name, capacity);
    }

    /// Sets the attachment of a volume to a node; `None` when it is gone.
    pub fn set_attachment(&mut self, name: &str, attachment: Option<&VolumeAttachment>) {
        self.change().set_attachment(name, attachment);
    }

    /// A pod is on a node now, or assumed to be.
    pub(crate) fn place(&mut self, pod: &Arc<PodInfo>, node: &Arc<str>) {
        if may_count(pod) {
            self.change().place(pod, node);
        }
    }

    /// A pod is on no node any more.
    pub(crate) fn take_off(&mut self, pod: &PodInfo) {
        if may_count(pod) {
            self.change().take_off(pod);
            self.assumed.watched().tell(|| Subject::Pod(pod.uid.to_string()));
        }
    }

    /// A claim.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.tables.claim(namespace, name)
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> Option<&Arc<VolumeInfo>> {
        self.tables.volume(name)
    }

    /// A storage class.
    pub fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.tables.class(name)
    }

    /// Whether a pod that is on a node uses a claim.
    pub fn is_used(&self, namespace: &str, claim: &str) -> bool {
        self.tables.is_used(namespace, claim)
    }

    /// The tables.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, for the state of a cycle.
    pub(crate) fn view(&self) -> TablesView {
        TablesView(Arc::downgrade(&self.tables))
    }

    /// What is promised, for the state of a cycle.
    pub(crate) fn assumed(&self) -> &Arc<Assumed> {
        self.assumed.tidy(&self.tables);
        &self.assumed
    }
}
