//! What scheduling asks of a PersistentVolumeClaim, and of the claims of a pod.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Volume};
use rk_api::LabelSelector;

use super::{super::PodInfo, volume};

/// The annotation of claims that the volume controller has bound for good.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The annotation that tells a provisioner for which node to provide a volume.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse<'a> {
    /// Its name; its namespace is the pod's.
    pub name: Cow<'a, str>,
    /// Whether it is the pod's own: that of an ephemeral volume.
    pub own: bool,
}

impl<'a> ClaimUse<'a> {
    /// The claim behind a volume of a pod; `None` where there is none.
    pub(crate) fn of(pod: &'a PodInfo, volume: &'a Volume) -> Option<Self> {
        match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(Self { name: Cow::Borrowed(&claim.claim_name), own: false }),
            (None, Some(_)) => Some(Self { name: Cow::Owned(format!("{}-{}", pod.name, volume.name)), own: true }),
            (None, None) => None,
        }
    }
}

/// The claims that a pod uses, in the order of its volumes.
pub fn claims_of(pod: &PodInfo) -> impl Iterator<Item = ClaimUse<'_>> {
    pod.spec().volumes.iter().flatten().filter_map(|volume| ClaimUse::of(pod, volume))
}

/// The storage class of a claim, empty for none.
pub(crate) fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    volume::class_name(claim.metadata.annotations.as_ref(), spec)
}

/// Bytes that a claim asks for.
pub(crate) fn size_of(claim: &PersistentVolumeClaim) -> Option<i64> {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    volume::storage(resources.and_then(|resources| resources.requests.as_ref()))
}

/// The volume that a claim names.
pub(crate) fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a claim is bound for good (`isPVCFullyBound`).
pub(crate) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    volume_of(claim).is_some() && claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BIND_COMPLETED))
}

/// The node for which a claim's volume is to be provided.
pub(crate) fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str)
}

/// Labels of the volumes that a claim takes; `None` where they can't be read, and none will do.
pub(crate) fn selector_of(claim: &PersistentVolumeClaim) -> Option<LabelSelector> {
    match claim.spec.as_ref().and_then(|spec| spec.selector.as_ref()) {
        None => Some(LabelSelector::everything()),
        Some(spec) => LabelSelector::from_spec(spec).ok(),
    }
}

/// The uid of what controls a claim: of the pod, for an ephemeral volume's.
pub(super) fn owner_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// Whether a claim of that name is the pod's own (`VolumeIsForPod`).
///
/// # Errors
/// It is somebody else's; the text says so.
pub(crate) fn check_owner(claim: &PersistentVolumeClaim, pod: &PodInfo) -> Result<(), String> {
    if owner_of(claim) == Some(pod.uid.as_ref()) {
        return Ok(());
    }
    let (namespace, name) = (&pod.namespace, claim.metadata.name.as_deref().unwrap_or_default());
    Err(format!("PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)", pod.name))
}
