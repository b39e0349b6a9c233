//! The claims of a pod (`k8s.io/dynamic-resource-allocation/resourceclaim`).

use std::sync::Arc;

use k8s_openapi::api::{core::v1::PodResourceClaim, resource::v1::ResourceClaim};

use crate::model::{Devices, PodInfo};

/// Pods that may use a claim at the same time (`ResourceClaimReservedForMaxSize`).
const MOST_CONSUMERS: usize = 256;

/// Whether the pod uses claims at all.
pub(super) fn uses_claims(pod: &PodInfo) -> bool {
    pod.spec().resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
}

/// The name of the claim that the pod refers to, and whether it is to be the pod's own; `None` where none was needed.
///
/// # Errors
/// The claim was not made from its template yet.
fn name_of<'a>(pod: &'a PodInfo, wanted: &'a PodResourceClaim) -> Result<Option<(&'a str, bool)>, String> {
    if let Some(name) = &wanted.resource_claim_name {
        return Ok(Some((name, false)));
    }
    let (namespace, name) = (&pod.namespace, &pod.name);
    if wanted.resource_claim_template_name.is_none() {
        return Err(format!(
            "pod \"{namespace}/{name}\", spec.resourceClaim {:?}: none of the supported fields are set",
            wanted.name
        ));
    }
    let made = pod.pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
    match made.into_iter().flatten().find(|made| made.name == wanted.name) {
        Some(made) => Ok(made.resource_claim_name.as_deref().map(|name| (name, true))),
        None => Err(format!("pod \"{namespace}/{name}\": ResourceClaim not created yet")),
    }
}

/// Whether the pod refers to a claim of its namespace by this name.
pub(super) fn refers_to(pod: &PodInfo, name: &str) -> bool {
    let wanted = pod.spec().resource_claims.iter().flatten();
    wanted.into_iter().any(|wanted| matches!(name_of(pod, wanted), Ok(Some((known, _))) if known == name))
}

/// The pod's claims.
///
/// # Errors
/// Why they can't be used yet: one is not there, is being deleted or is another pod's.
pub(super) fn claims_of(pod: &PodInfo, devices: &Devices) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let mut claims: Vec<Arc<ResourceClaim>> = Vec::new();
    for wanted in pod.spec().resource_claims.iter().flatten() {
        let Some((name, own)) = name_of(pod, wanted)? else { continue };
        let claim = devices
            .newest_claim(&pod.namespace, name)
            .ok_or_else(|| format!("could not find claim \"{}/{name}\"", pod.namespace))?;
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("resourceclaim {name:?} is being deleted"));
        }
        let owner = claim.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        if own && owner.is_none_or(|owner| owner.uid != pod.uid.as_ref()) {
            let namespace = &pod.namespace;
            return Err(format!(
                "ResourceClaim {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
                pod.name
            ));
        }
        // Two names in the pod may be the same claim.
        if claims.iter().all(|known| known.metadata.name != claim.metadata.name) {
            claims.push(claim);
        }
    }
    Ok(claims)
}

/// Whether the claim is reserved for the pod.
pub(super) fn is_reserved_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    reservations(claim).any(|uid| uid == pod.uid.as_ref())
}

/// Whether one more pod may use the claim.
pub(super) fn can_be_reserved(claim: &ResourceClaim) -> bool {
    reservations(claim).count() < MOST_CONSUMERS
}

/// The uids of those that the claim is reserved for.
pub(super) fn reservations(claim: &ResourceClaim) -> impl Iterator<Item = &str> {
    let status = claim.status.as_ref();
    status.into_iter().flat_map(|status| status.reserved_for.iter().flatten()).map(|consumer| consumer.uid.as_str())
}

/// Namespace and name, as Kubernetes writes them.
pub(super) fn shown(claim: &ResourceClaim) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}/{}", text(&claim.metadata.namespace), text(&claim.metadata.name))
}
