//! What the plugins for volumes have in common.

use k8s_openapi::api::storage::v1::StorageClass;
use rk_api::Object;

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

/// The answer where a claim is not there.
pub(super) fn not_found(name: &str) -> Status {
    Status::unresolvable(format!("persistentvolumeclaim \"{name}\" not found"))
}

/// Whether claims of a class are bound once a pod uses them, and not before.
pub(super) fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}
