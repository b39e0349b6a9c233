//! NodeVolumeLimits: no more volumes on a node than its CSI drivers can attach.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::storage::v1::{CSINode, VolumeAttachment};
use rk_api::Change;

use super::claims;
use crate::{
    framework::{Candidates, ClusterEvent, CycleState, Filter, Hint, Plugin, PreFilter, Status},
    model::{
        NodeInfo, PodInfo, Snapshot, claims_of,
        volumes::{ClaimUse, CsiNode, NodeVolumes, Tables, TablesView, UsedVolume, VolumeId, check_owner, may_count},
    },
};

/// Keeps to the count of volumes that a node's CSINode allows each driver. A volume that several pods of a node use counts once, one
/// that is to be made counts for its class's driver, and so do volumes that are attached to the node for no pod any more.
///
/// A node without a CSINode, or a driver without a count there, has no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeVolumeLimits;

/// The volumes that a pod brings.
#[derive(Clone)]
struct Brought {
    volumes: Arc<[UsedVolume]>,
    /// How many there are at most of each driver that some node limits.
    most: Arc<[(Arc<str>, i64)]>,
    /// Why they can't be told.
    unknown: Option<String>,
    /// Whether any node takes all of them.
    fit_anywhere: bool,
    /// Whether pods of the node are thought of as added or gone, so that what was counted of it does not hold.
    moved: bool,
    tables: TablesView,
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::AssignedPodDelete(gone) => may_count(gone),
            // A volume that the node has already counts no more.
            ClusterEvent::AssignedPodAdd(added) => claims::share(pod, added),
            ClusterEvent::Object(change) => change_helps(pod, change),
            _ => false,
        })
    }
}

/// Whether the change of an object may make room for the pod's volumes.
fn change_helps(pod: &PodInfo, change: &Change) -> bool {
    let gone = matches!(change, Change::Deleted(_));
    match change.object().kind() {
        "CSINode" => {
            let (old, new) = claims::versions::<CSINode>(change);
            let limits = |node: Option<&CSINode>| node.map(CsiNode::new).unwrap_or_default();
            limits(old.as_deref()).is_stricter_than(&limits(new.as_deref())) || old.is_none()
        }
        // Only those that are gone make room, and only for volumes of their driver.
        "VolumeAttachment" => {
            gone && claims::versions::<VolumeAttachment>(change).0.is_some_and(|old| attaches(pod, &old))
        }
        // With its class a claim without a volume loses its driver.
        "StorageClass" => gone && claims_of(pod).next().is_some(),
        // What is behind a volume never changes; that it is there or not may make another driver count.
        "PersistentVolume" => !matches!(change, Change::Updated { .. }) && claims_of(pod).next().is_some(),
        _ => !gone && claims::is_claim_of(pod, change.object()),
    }
}

/// Whether a pod may have volumes of an attachment's driver.
fn attaches(pod: &PodInfo, attachment: &VolumeAttachment) -> bool {
    let inline = |volume| UsedVolume::inline(volume).is_some_and(|used| *used.id.driver == *attachment.spec.attacher);
    claims_of(pod).next().is_some() || pod.spec().volumes.iter().flatten().any(inline)
}

/// The volumes of a pod that is to be placed.
///
/// # Errors
/// A claim that is not there or is another pod's; the text says so.
fn brought(pod: &PodInfo, tables: &Tables) -> Result<Vec<UsedVolume>, String> {
    let mut volumes: Vec<UsedVolume> = Vec::new();
    for volume in pod.spec().volumes.iter().flatten() {
        let found = match ClaimUse::of(pod, volume) {
            Some(claim) => {
                let found = tables.claim(&pod.namespace, &claim.name).ok_or_else(|| {
                    let (namespace, name) = (&pod.namespace, &claim.name);
                    format!("looking up PVC {namespace}/{name}: persistentvolumeclaim \"{name}\" not found")
                })?;
                if claim.own {
                    check_owner(found, pod)?;
                }
                tables.used_by(found)
            }
            None => UsedVolume::inline(volume),
        };
        volumes.extend(found.filter(|found| !volumes.contains(found)));
    }
    Ok(volumes)
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        if !may_count(pod) {
            return Err(Status::skip());
        }
        let tables = snapshot.volumes.tables();
        let (volumes, unknown) = match brought(pod, tables) {
            Ok(volumes) => (volumes, None),
            Err(text) => (Vec::new(), Some(text)),
        };
        let mut most: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        for volume in &volumes {
            *most.entry(Arc::clone(&volume.id.driver)).or_default() += 1;
        }
        most.retain(|driver, _| tables.least_slack(driver).is_some());
        if unknown.is_none() && most.is_empty() {
            return Err(Status::skip());
        }
        let fits_anywhere =
            |(driver, most): (&Arc<str>, &i64)| tables.least_slack(driver).is_none_or(|slack| *most <= slack);
        state.insert(Brought {
            unknown,
            fit_anywhere: most.iter().all(fits_anywhere),
            most: most.into_iter().collect(),
            moved: false,
            tables: snapshot.volumes.view(),
            volumes: volumes.into(),
        });
        Ok(None)
    }

    fn add_pod(&self, state: &mut CycleState, _pod: &PodInfo, added: &PodInfo, _: &NodeInfo) {
        note_move(state, added);
    }

    fn remove_pod(&self, state: &mut CycleState, _pod: &PodInfo, removed: &PodInfo, _: &NodeInfo) {
        note_move(state, removed);
    }
}

fn note_move(state: &mut CycleState, other: &PodInfo) {
    if let Some(brought) = state.get_mut::<Brought>()
        && may_count(other)
    {
        brought.moved = true;
    }
}

impl Filter for NodeVolumeLimits {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        match state.get::<Brought>().filter(|brought| brought.has_to_look()) {
            Some(brought) => brought.check(brought.tables.get().as_deref(), node),
            None => Status::success(),
        }
    }

    fn filter_batch(&self, state: &CycleState, _pod: &PodInfo, nodes: &mut Candidates<'_>) {
        if let Some(brought) = state.get::<Brought>().filter(|brought| brought.has_to_look()) {
            let tables = brought.tables.get();
            nodes.keep(|node| brought.check(tables.as_deref(), node));
        }
    }
}

impl Brought {
    /// Whether a node may refuse the volumes.
    fn has_to_look(&self) -> bool {
        self.moved || !self.fit_anywhere || self.unknown.is_some()
    }

    fn check(&self, tables: Option<&Tables>, node: &NodeInfo) -> Status {
        if let Some(text) = &self.unknown {
            return Status::unresolvable(text.clone());
        }
        let Some(tables) = tables else { return Status::error("volumes changed within a scheduling cycle") };
        let Some(csi) = tables.csi_node(&node.name) else { return Status::success() };
        let counted = tables.node(&node.name);
        let fits =
            if self.moved { self.fits(csi, Some(&count(tables, node, csi, counted))) } else { self.fits(csi, counted) };
        if fits { Status::success() } else { Status::unschedulable("node(s) exceed max volume count") }
    }

    /// Whether a node takes all the volumes besides those that it has.
    fn fits(&self, csi: &CsiNode, has: Option<&NodeVolumes>) -> bool {
        let left =
            |driver: &str| csi.limit(driver).map_or(i64::MAX, |limit| limit - has.map_or(0, |has| has.count(driver)));
        // Mostly there is room, whatever of them the node has.
        if self.most.iter().all(|(driver, most)| *most <= left(driver)) {
            return true;
        }
        let counting = self.volumes.iter().filter(|volume| volume.counts_on(Some(csi))).map(|volume| &volume.id);
        let new: BTreeSet<&VolumeId> = counting.filter(|id| !has.is_some_and(|has| has.is_used(id))).collect();
        let mut more: BTreeMap<&str, i64> = BTreeMap::new();
        for id in new {
            *more.entry(&id.driver).or_default() += 1;
        }
        more.into_iter().all(|(driver, more)| more <= left(driver))
    }
}

/// Counts the volumes of the pods that are thought of as on a node, and those attached to it.
fn count(tables: &Tables, node: &NodeInfo, csi: &CsiNode, counted: Option<&NodeVolumes>) -> NodeVolumes {
    let mut volumes = NodeVolumes::default();
    for id in node.pods.iter().flat_map(|entry| tables.used_on(&entry.pod, Some(csi))) {
        volumes.add(id);
    }
    for id in counted.into_iter().flat_map(|counted| tables.attached_to(counted)) {
        volumes.attach(id);
    }
    volumes
}
