//! Giving the devices of a claim back in the API.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use rk_api::{Api, Client, DeleteOptions, Error};

use super::binding::FINALIZER;
use crate::model::pod_of_extended;

/// How often a write is tried where others write as well (`retry.DefaultRetry`).
pub(super) const TRIES: u32 = 5;

/// Gives back what a claim that nobody uses holds: one that was made for a pod's extended resources is deleted, as a new one is made when
/// the pod gets its node; another is deallocated, unless somebody has come to use it.
pub(crate) async fn release(client: Arc<dyn Client>, claim: &ResourceClaim) {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<ResourceClaim>::namespaced(client, namespace);
    let done = if pod_of_extended(claim).is_some() { delete(&api, claim).await } else { deallocate(&api, claim).await };
    match done {
        Ok(()) => {}
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) => tracing::warn!(%error, claim = ?claim.metadata.name, %namespace, "devices not given back"),
    }
}

async fn deallocate(api: &Api<ResourceClaim>, claim: &ResourceClaim) -> Result<(), Error> {
    let mut claim = claim.clone();
    if let Some(status) = &mut claim.status {
        (status.allocation, status.reserved_for, status.devices) = (None, None, None);
    }
    api.update_status(&claim).await.map(drop)
}

/// Takes the finalizer away, for which no controller would wait, and deletes the claim.
async fn delete(api: &Api<ResourceClaim>, claim: &ResourceClaim) -> Result<(), Error> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let mut claim = claim.clone();
    let mut tries = 0;
    loop {
        tries += 1;
        claim.metadata.finalizers.iter_mut().for_each(|finalizers| finalizers.retain(|known| known != FINALIZER));
        match api.update(&claim).await {
            Ok(_) => break,
            Err(error) if error.is_conflict() && tries < TRIES => claim = (*api.get(name).await?).clone(),
            Err(error) => return Err(error),
        }
    }
    api.delete(name, DeleteOptions::default()).await.map(drop)
}
