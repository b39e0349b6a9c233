//! VolumeZone: pods in the zones and regions of their volumes.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::PersistentVolume, storage::v1::StorageClass};
use rk_api::Change;

use super::claims;
use crate::{
    framework::{ClusterEvent, CycleState, Filter, Hint, Plugin, PreFilter, Status},
    model::{
        NodeInfo, PodInfo, Snapshot, claims_of,
        volumes::{Place, class_of, volume_of},
    },
};

/// Keeps a pod in the zones and regions that the labels of its claims' volumes name; `__` is between several.
#[derive(Debug, Clone, Copy, Default)]
pub struct VolumeZone;

/// Where the pod's volumes are.
#[derive(Clone)]
struct Places(Arc<[Place]>);

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::NodeUpdate { old, new } => old.labels() != new.labels(),
            ClusterEvent::Object(change) => match change.object().kind() {
                "PersistentVolume" => {
                    let places = |volume: &PersistentVolume| volume.metadata.labels.as_ref().map(Place::all);
                    match claims::versions::<PersistentVolume>(change) {
                        (None, _) => true,
                        (Some(old), Some(new)) => places(&old) != places(&new),
                        (Some(_), None) => false,
                    }
                }
                "StorageClass" => {
                    let added = matches!(change, Change::Added(_)).then(|| change.object().typed::<StorageClass>());
                    added.is_some_and(|class| class.is_ok_and(|class| claims::waits_for_consumer(&class)))
                }
                _ => !matches!(change, Change::Deleted(_)) && claims::is_claim_of(pod, change.object()),
            },
            _ => false,
        })
    }
}

impl PreFilter for VolumeZone {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        let mut places = Vec::new();
        for claim in claims_of(pod).filter(|claim| !claim.own) {
            if claim.name.is_empty() {
                return Err(Status::unresolvable("PersistentVolumeClaim had no name"));
            }
            let Some(found) = snapshot.volumes.claim(&pod.namespace, &claim.name) else {
                return Err(claims::not_found(&claim.name));
            };
            let Some(volume) = volume_of(found) else {
                let class = class_of(found);
                if class.is_empty() {
                    return Err(Status::unresolvable("PersistentVolumeClaim had no pv name and storageClass name"));
                }
                let Some(found) = snapshot.volumes.class(class) else {
                    return Err(Status::unresolvable(format!("storageclass.storage.k8s.io {class:?} not found")));
                };
                if claims::waits_for_consumer(found) {
                    continue;
                }
                return Err(Status::unresolvable("PersistentVolume had no name"));
            };
            let Some(found) = snapshot.volumes.volume(volume) else {
                return Err(Status::unresolvable(format!("persistentvolume {volume:?} not found")));
            };
            places.extend(found.places.iter().cloned());
        }
        if places.is_empty() {
            return Err(Status::skip());
        }
        state.insert(Places(places.into()));
        Ok(None)
    }
}

impl Filter for VolumeZone {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        let Some(Places(places)) = state.get::<Places>() else { return Status::success() };
        // A node that does not say where it is may be anywhere.
        if Place::told(node.labels()) && !places.iter().all(|place| place.has(node.labels())) {
            return Status::unresolvable("node(s) had no available volume zone");
        }
        Status::success()
    }
}
