//! From what was found to what the claims say: Reserve, Unreserve, PreBind, and PostFilter, which frees a claim that is held
//! elsewhere for nobody.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use rk_api::{Api, Client, Error, Patch};
use serde_json::json;

use super::{Claim, DynamicResources, State, claims::shown, is_reserved_for, reservations, result};
use crate::{
    framework::{BindContext, Code, CycleState, PostFilter, PostFilterContext, PreBind, Reserve, Status},
    model::{PodInfo, allocation_of, uid_of},
};

/// What keeps an allocated claim from being deleted (`resource.k8s.io/delete-protection`).
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How often a write is tried where others write as well (`retry.DefaultRetry`).
const TRIES: u32 = 5;

impl PostFilter for DynamicResources {
    fn post_filter(&self, context: &PostFilterContext<'_>) -> Result<(Arc<str>, Vec<Arc<PodInfo>>), Status> {
        if !super::uses_claims(context.pod) {
            return Err(Status::new(Code::Unschedulable));
        }
        let Some(state) = context.state.get::<State>() else {
            return Err(Status::unschedulable("no new claims to deallocate"));
        };
        for at in state.unavailable.lock().iter() {
            let claim = &state.claims[*at].claim;
            // Nobody else uses it: elsewhere it may be of use.
            if reservations(claim).all(|uid| uid == context.pod.uid.as_ref()) && reservations(claim).count() <= 1 {
                context.deallocate(Arc::clone(claim));
                return Err(Status::unschedulable("deallocation of ResourceClaim completed"));
            }
        }
        Err(Status::unschedulable("still not schedulable"))
    }
}

impl Reserve for DynamicResources {
    fn reserve(&self, state: &mut CycleState, _pod: &PodInfo, node: &str) -> Status {
        let Some(state) = state.get_mut::<State>() else { return Status::success() };
        let Some(task) = state.task.take() else { return Status::success() };
        let Some(picks) = state.found.lock().remove(node) else {
            return Status::error("claim allocation not found for node");
        };
        state.found = Arc::default();
        let allocations = result::allocations(&task.wanted, &picks, node);
        for (claim, allocation) in task.wanted.claims.iter().zip(allocations) {
            if !state.in_flight.choose(claim, allocation.clone()) {
                let why = format!("internal error, couldn't signal allocation for claim {}", shown(claim));
                return Status::error(why);
            }
            let own = state.claims.iter_mut().find(|own| uid_of(&own.claim) == uid_of(claim));
            if let Some(own) = own {
                own.chosen = Some(allocation);
            }
        }
        Status::success()
    }

    fn unreserve(&self, state: &CycleState, pod: &PodInfo, _node: &str) {
        let Some(state) = state.get::<State>() else { return };
        for own in state.claims.iter().filter(|own| own.chosen.is_some()) {
            state.in_flight.forget(uid_of(&own.claim));
        }
        let Some(client) = state.client.get() else { return };
        for own in &state.claims {
            let (namespace, name) = names(&own.claim);
            let patch = json!({
                "metadata": {"uid": uid_of(&own.claim)},
                "status": {"reservedFor": [{"$patch": "delete", "uid": pod.uid.as_ref()}]},
            });
            let api = Api::<ResourceClaim>::namespaced(Arc::clone(client), &namespace);
            tokio::spawn(async move {
                match api.patch_status(&name, Patch::strategic(patch)).await {
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {}
                    // The pod is tried again, and so is this.
                    Err(error) => tracing::warn!(%error, claim = %name, %namespace, "reservation not taken back"),
                }
            });
        }
    }
}

#[async_trait]
impl PreBind for DynamicResources {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        let Some(state) = context.state.get::<State>() else { return Status::skip() };
        for own in &state.claims {
            if is_reserved_for(&own.claim, context.pod) {
                continue;
            }
            state.client.get_or_init(|| Arc::clone(context.client));
            match bind(context.client, context.pod, own).await {
                Ok(claim) if own.chosen.is_some() => state.in_flight.write(claim),
                Ok(_) => {}
                Err(why) => return Status::error(why),
            }
        }
        Status::success()
    }
}

fn names(claim: &ResourceClaim) -> (String, String) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    (text(&claim.metadata.namespace), text(&claim.metadata.name))
}

/// Writes the allocation that was chosen, if one was, and reserves the claim for the pod.
async fn bind(client: &Arc<dyn Client>, pod: &PodInfo, own: &Claim) -> Result<Arc<ResourceClaim>, String> {
    let (namespace, name) = names(&own.claim);
    let api = Api::<ResourceClaim>::namespaced(Arc::clone(client), &namespace);
    let mut claim = Arc::clone(&own.claim);
    let mut tries = 0;
    loop {
        tries += 1;
        match write(&api, &claim, pod, own.chosen.as_ref()).await {
            Ok(written) => return Ok(written),
            Err(Failure::Api(error, _)) if error.is_conflict() && tries < TRIES => {}
            Err(failure) => return Err(failure.said(&shown(&claim))),
        }
        claim = api
            .get(&name)
            .await
            .map_err(|error| format!("get updated claim {namespace}/{name} after conflict: {error}"))?;
        if uid_of(&claim) != uid_of(&own.claim) {
            return Err(format!("claim {namespace}/{name} got replaced in the meantime"));
        }
    }
}

enum Failure {
    Deleted,
    Elsewhere,
    Api(Error, &'static str),
}

impl Failure {
    fn said(&self, claim: &str) -> String {
        match self {
            Self::Deleted => format!("claim {claim} got deleted in the meantime"),
            Self::Elsewhere => format!("claim {claim} got allocated elsewhere in the meantime"),
            Self::Api(error, what) => format!("{what} claim {claim}: {error}"),
        }
    }
}

async fn write(
    api: &Api<ResourceClaim>,
    claim: &ResourceClaim,
    pod: &PodInfo,
    chosen: Option<&AllocationResult>,
) -> Result<Arc<ResourceClaim>, Failure> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Failure::Deleted);
    }
    let mut claim = claim.clone();
    if let Some(allocation) = chosen {
        if allocation_of(&claim).is_some() {
            return Err(Failure::Elsewhere);
        }
        // The finalizer is no part of the status, so it takes a write of its own.
        if claim.metadata.finalizers.iter().flatten().all(|known| known != FINALIZER) {
            claim.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
            let updated = api.update(&claim).await.map_err(|error| Failure::Api(error, "add finalizer to"))?;
            claim = (*updated).clone();
        }
        claim.status.get_or_insert_default().allocation = Some(allocation.clone());
    } else if allocation_of(&claim).is_none() {
        // It was deallocated since the pod was placed.
        return Err(Failure::Elsewhere);
    }
    if !is_reserved_for(&claim, pod) {
        let consumer = ResourceClaimConsumerReference {
            resource: "pods".to_owned(),
            name: pod.name.to_string(),
            uid: pod.uid.to_string(),
            ..ResourceClaimConsumerReference::default()
        };
        claim.status.get_or_insert_default().reserved_for.get_or_insert_default().push(consumer);
    }
    let what = if chosen.is_some() { "add allocation and reservation to" } else { "add reservation to" };
    api.update_status(&claim).await.map_err(|error| Failure::Api(error, what))
}
