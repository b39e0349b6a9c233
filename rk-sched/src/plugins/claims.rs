//! What the plugins for volumes have in common.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::PersistentVolume, storage::v1::StorageClass};
use rk_api::{Change, Object, ResourceType};

use crate::{
    framework::Status,
    model::{PodInfo, claims_of},
};

/// Whether an object is a claim that a pod uses.
pub(super) fn is_claim_of(pod: &PodInfo, object: &Object) -> bool {
    object.kind() == "PersistentVolumeClaim"
        && object.meta().namespace == pod.namespace.as_ref()
        && claims_of(pod).any(|claim| claim.name == object.meta().name.as_str())
}

/// Whether two pods use a claim both.
pub(super) fn share(pod: &PodInfo, other: &PodInfo) -> bool {
    other.namespace == pod.namespace && claims_of(other).any(|claim| claims_of(pod).any(|own| own.name == claim.name))
}

/// Whether a volume is kept for a claim that a pod uses, or bound to it.
pub(super) fn is_kept_for(pod: &PodInfo, volume: &PersistentVolume) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        reference.namespace.as_deref() == Some(&pod.namespace)
            && claims_of(pod).any(|claim| reference.name.as_deref() == Some(&claim.name))
    })
}

/// The versions of an object before and after a change, as their type.
pub(super) fn versions<K: ResourceType>(change: &Change) -> (Option<Arc<K>>, Option<Arc<K>>) {
    let typed = |object: &Arc<Object>| object.typed::<K>().ok();
    match change {
        Change::Added(new) => (None, typed(new)),
        Change::Updated { old, new } => (typed(old), typed(new)),
        Change::Deleted(old) => (typed(old), None),
    }
}

/// The answer where a claim is not there.
pub(super) fn not_found(name: &str) -> Status {
    Status::unresolvable(format!("persistentvolumeclaim \"{name}\" not found"))
}

/// Whether claims of a class are bound once a pod uses them, and not before.
pub(super) fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}
