//! VolumeRestrictions: disks that only one pod of a node may have, and claims that only one pod may use.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Volume;
use rk_api::Change;

use super::claims;
use crate::{
    framework::{ClusterEvent, CycleState, Filter, Hint, Plugin, PreFilter, Status},
    model::{NodeInfo, PodInfo, Snapshot, claims_of},
};

/// Keeps two pods of a node from one in-tree disk (GCE PD, AWS EBS, Ceph RBD, iSCSI) unless both only read it, and two pods of the
/// cluster from one claim of access mode `ReadWriteOncePod` (KEP-2485).
#[derive(Debug, Clone, Copy, Default)]
pub struct VolumeRestrictions;

/// The pod's claims that one pod may use alone, and how many uses of them stand in its way.
#[derive(Clone)]
struct Exclusive {
    claims: Arc<BTreeSet<String>>,
    conflicts: i64,
}

impl Exclusive {
    /// Counts the uses of another pod.
    fn count(&mut self, pod: &PodInfo, other: &PodInfo, sign: i64) {
        if other.namespace == pod.namespace {
            let uses = claims_of(other).filter(|claim| self.claims.contains(claim.name.as_ref())).count();
            self.conflicts += sign * i64::try_from(uses).unwrap_or(i64::MAX);
        }
    }
}

/// Whether a volume is one of the disks that are looked at.
fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// Whether both are one disk, and one of them would write.
fn conflict(one: &Volume, other: &Volume) -> bool {
    let both_read = |one: Option<bool>, other: Option<bool>| one == Some(true) && other == Some(true);
    if let (Some(one), Some(other)) = (&one.gce_persistent_disk, &other.gce_persistent_disk) {
        return one.pd_name == other.pd_name && !both_read(one.read_only, other.read_only);
    }
    if let (Some(one), Some(other)) = (&one.aws_elastic_block_store, &other.aws_elastic_block_store) {
        return one.volume_id == other.volume_id;
    }
    if let (Some(one), Some(other)) = (&one.iscsi, &other.iscsi) {
        return one.iqn == other.iqn && !both_read(one.read_only, other.read_only);
    }
    if let (Some(one), Some(other)) = (&one.rbd, &other.rbd) {
        let pool = |pool: &Option<String>| pool.clone().unwrap_or_else(|| "rbd".to_owned());
        return one.image == other.image
            && pool(&one.pool) == pool(&other.pool)
            && one.monitors.iter().any(|monitor| other.monitors.contains(monitor))
            && !both_read(one.read_only, other.read_only);
    }
    false
}

/// Whether two pods can't be on one node for their disks' sake.
fn disks_conflict(pod: &PodInfo, other: &PodInfo) -> bool {
    let mut disks = volumes(pod).iter().filter(|volume| is_disk(volume));
    disks.any(|volume| volumes(other).iter().any(|held| conflict(volume, held)))
}

fn volumes(pod: &PodInfo) -> &[Volume] {
    pod.spec().volumes.as_deref().unwrap_or_default()
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::AssignedPodDelete(gone) => disks_conflict(pod, gone) || claims::share(pod, gone),
            // Access modes never change.
            ClusterEvent::Object(Change::Added(object)) => claims::is_claim_of(pod, object),
            _ => false,
        })
    }
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        let mut claims = BTreeSet::new();
        for claim in claims_of(pod).filter(|claim| !claim.own) {
            let Some(found) = snapshot.volumes.claim(&pod.namespace, &claim.name) else {
                return Err(claims::not_found(&claim.name));
            };
            let modes = found.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
            if modes.iter().any(|mode| mode == "ReadWriteOncePod") {
                claims.insert(claim.name.into_owned());
            }
        }
        let used = claims.iter().filter(|claim| snapshot.volumes.is_used(&pod.namespace, claim)).count();
        let has_disks = volumes(pod).iter().any(is_disk);
        if used == 0 && !has_disks {
            return Err(Status::skip());
        }
        state.insert(Exclusive { claims: Arc::new(claims), conflicts: i64::try_from(used).unwrap_or(i64::MAX) });
        Ok(None)
    }

    fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, added: &PodInfo, _: &NodeInfo) {
        if let Some(exclusive) = state.get_mut::<Exclusive>() {
            exclusive.count(pod, added, 1);
        }
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, removed: &PodInfo, _: &NodeInfo) {
        if let Some(exclusive) = state.get_mut::<Exclusive>() {
            exclusive.count(pod, removed, -1);
        }
    }
}

impl Filter for VolumeRestrictions {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        let has_disks = volumes(pod).iter().any(is_disk);
        if has_disks && node.pods.iter().any(|entry| disks_conflict(pod, &entry.pod)) {
            return Status::unschedulable("node(s) had no available disk");
        }
        if state.get::<Exclusive>().is_some_and(|exclusive| exclusive.conflicts > 0) {
            return Status::unschedulable(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by \
                 another pod",
            );
        }
        Status::success()
    }
}
