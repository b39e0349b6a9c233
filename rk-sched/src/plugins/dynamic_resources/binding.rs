//! From what was found to what the claims say: Reserve, Unreserve, PreBind, and PostFilter, which frees a claim that is held
//! elsewhere for nobody.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use rk_api::{Api, Client, Error, Patch, object_reference};
use serde_json::json;

use super::{
    super::default_binder::{FIRST_WAIT, LONGEST_WAIT, is_definite},
    Claim, DynamicResources, State,
    claims::shown,
    conditions::{self, Readiness},
    extended::to_create,
    is_reserved_for,
    release::{TRIES, release},
    reservations, result,
};
use crate::{
    framework::{BindContext, Code, CycleState, PostFilter, PostFilterContext, PreBind, Reserve, Status},
    model::{PodInfo, allocation_of, uid_of},
};

/// What keeps an allocated claim from being deleted (`resource.k8s.io/delete-protection`).
pub(super) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

impl PostFilter for DynamicResources {
    fn post_filter(&self, context: &PostFilterContext<'_>) -> Result<(Arc<str>, Vec<Arc<PodInfo>>), Status> {
        let Some(state) = context.state.get::<State>() else {
            let none = Status::new(Code::Unschedulable);
            let uses_claims = super::uses_claims(context.pod);
            return Err(if uses_claims { none.because("no new claims to deallocate") } else { none });
        };
        for at in state.unavailable.lock().iter() {
            let claim = &state.claims[*at].claim;
            // Nobody else uses it: elsewhere it may be of use.
            if reservations(claim).all(|uid| uid == context.pod.uid.as_ref()) && reservations(claim).count() <= 1 {
                context.deallocate(Arc::clone(claim));
                return Err(Status::unschedulable("deallocation of ResourceClaim completed"));
            }
        }
        if let Some(claim) = &state.left_over {
            context.deallocate(Arc::clone(claim));
            return Err(Status::unschedulable("deletion of ResourceClaim completed"));
        }
        Err(Status::unschedulable("still not schedulable"))
    }
}

impl Reserve for DynamicResources {
    fn reserve(&self, state: &mut CycleState, _pod: &PodInfo, node: &str) -> Status {
        let Some(state) = state.get_mut::<State>() else { return Status::success() };
        let Some(task) = state.task.take() else { return Status::success() };
        let Some(on_node) = state.found.lock().remove(node) else {
            return Status::error("claim allocation not found for node");
        };
        state.found = Arc::default();
        let allocations = result::allocations(&on_node.wanted, &on_node.picks, node);
        for (claim, allocation) in on_node.wanted.claims.iter().zip(allocations) {
            if !state.in_flight.choose(claim, allocation.clone()) {
                let why = format!("internal error, couldn't signal allocation for claim {}", shown(claim));
                return Status::error(why);
            }
            let own = state.claims.iter_mut().find(|own| uid_of(&own.claim) == uid_of(claim));
            match (own, &task.extended) {
                (Some(own), _) => own.chosen = Some(allocation),
                (None, Some(extended)) => {
                    let unmade = Some(extended.mappings(claim));
                    let chosen = Some(allocation);
                    state.claims.push(Claim { chosen, unmade, ..Claim::new(Arc::clone(claim)) });
                }
                (None, None) => {}
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
        if let Some(made) = state.made.get() {
            let (client, made, in_flight) = (Arc::clone(client), Arc::clone(made), Arc::clone(&state.in_flight));
            tokio::spawn(async move {
                release(client, &made).await;
                in_flight.remove(uid_of(&made));
            });
        }
        for own in state.claims.iter().filter(|own| own.unmade.is_none()) {
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
        let mut written = Vec::with_capacity(state.claims.len());
        for own in &state.claims {
            if is_reserved_for(&own.claim, context.pod) {
                written.push(Arc::clone(&own.claim));
                continue;
            }
            state.client.get_or_init(|| Arc::clone(context.client));
            match write_one(context, state, own).await {
                Ok(claim) => written.push(claim),
                Err(why) => return Status::error(why),
            }
        }
        match made_ready(context, written, self.binding_timeout).await {
            Ok(()) => Status::success(),
            Err(why) => Status::error(why),
        }
    }
}

/// Writes what was chosen for one of the pod's claims, and makes the claim first where that is still to be done.
async fn write_one(context: &BindContext<'_>, state: &State, own: &Claim) -> Result<Arc<ResourceClaim>, String> {
    let (client, pod) = (context.client, context.pod);
    let Some(mappings) = &own.unmade else {
        let claim = bind(client, pod, &own.claim, own.chosen.as_ref()).await?;
        if own.chosen.is_some() {
            state.in_flight.write(Arc::clone(&claim));
        }
        return Ok(claim);
    };
    let api = Api::<ResourceClaim>::namespaced(Arc::clone(client), &pod.namespace);
    let made = api.create(&to_create(&own.claim)).await;
    let made = made.map_err(|error| format!("create claim for extended resources {}: {error}", shown(&own.claim)))?;
    let made = Arc::clone(state.made.get_or_init(|| made));
    let claim = bind(client, pod, &made, own.chosen.as_ref()).await?;
    state.in_flight.write_new(uid_of(&own.claim), Arc::clone(&claim));
    let status = json!({"requestMappings": mappings, "resourceClaimName": claim.metadata.name});
    let patch = json!({"metadata": {"uid": pod.uid.as_ref()}, "status": {"extendedResourceClaimStatus": status}});
    let pods = Api::<Pod>::namespaced(Arc::clone(client), &pod.namespace);
    match pods.patch_status(&pod.name, Patch::merge(patch)).await {
        Ok(_) => Ok(claim),
        Err(error) => Err(format!("update pod {}/{} ExtendedResourceClaimStatus: {error}", pod.namespace, pod.name)),
    }
}

/// How long is between two looks at claims whose devices are being made ready.
const LOOK: Duration = Duration::from_secs(5);

/// Waits until the drivers have made all devices ready, at most so long.
async fn made_ready(
    context: &BindContext<'_>,
    mut claims: Vec<Arc<ResourceClaim>>,
    patience: Duration,
) -> Result<(), String> {
    claims.retain(|claim| conditions::is_conditional(claim));
    if claims.is_empty() {
        return Ok(());
    }
    let message = format!("waiting for binding conditions for device on node {}", context.node);
    context.events.normal(&object_reference(&*context.pod.pod), "BindingConditionsPending", message);
    let done = async {
        loop {
            let mut ready = true;
            for claim in &claims {
                match conditions::readiness(claim) {
                    Readiness::Ready => {}
                    Readiness::Failed(why) => return Err(why),
                    Readiness::Pending => ready = false,
                }
            }
            if ready {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
            for claim in &mut claims {
                let (namespace, name) = names(claim);
                match Api::<ResourceClaim>::namespaced(Arc::clone(context.client), &namespace).get(&name).await {
                    Ok(newest) if uid_of(&newest) == uid_of(claim) && allocation_of(&newest).is_some() => {
                        *claim = newest
                    }
                    Ok(_) => return Err(format!("claim {namespace}/{name} got replaced in the meantime")),
                    Err(error) if error.is_not_found() => return Err(format!("claim {namespace}/{name}: {error}")),
                    // A server that is away for a moment says nothing of the devices.
                    Err(error) => {
                        tracing::warn!(%error, claim = %name, %namespace, "not known whether devices are ready")
                    }
                }
            }
        }
    };
    tokio::time::timeout(patience, done).await.unwrap_or_else(|_| Err("device binding timeout".to_owned()))
}

fn names(claim: &ResourceClaim) -> (String, String) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    (text(&claim.metadata.namespace), text(&claim.metadata.name))
}

/// Writes the allocation that was chosen, if one was, and reserves the claim for the pod.
///
/// Where no answer comes, or one that leaves open what was done, it looks at what became of the claim, and writes again if nothing did: the first
/// write is of an older version then, and comes too late. The devices are not given to others meanwhile.
async fn bind(
    client: &Arc<dyn Client>,
    pod: &PodInfo,
    first: &Arc<ResourceClaim>,
    chosen: Option<&AllocationResult>,
) -> Result<Arc<ResourceClaim>, String> {
    let (namespace, name) = names(first);
    let api = Api::<ResourceClaim>::namespaced(Arc::clone(client), &namespace);
    let mut claim = Arc::clone(first);
    let (mut tries, mut wait, mut open) = (0, FIRST_WAIT, false);
    loop {
        tries += 1;
        match write(&api, &claim, pod, chosen).await {
            Ok(written) => return Ok(written),
            Err(Failure::Api(error, what)) if !is_definite(&error) => {
                tracing::warn!(%error, claim = %name, %namespace, "not known whether it was done: {what} claim");
                open = true;
            }
            Err(Failure::Api(error, _)) if error.is_conflict() && tries < TRIES => {}
            Err(failure) => return Err(failure.said(&shown(&claim))),
        }
        claim = loop {
            if open {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            match api.get(&name).await {
                Ok(newest) => break newest,
                Err(error) if open && !is_definite(&error) => {}
                Err(error) => return Err(format!("get updated claim {namespace}/{name} after conflict: {error}")),
            }
        };
        if uid_of(&claim) != uid_of(first) {
            return Err(format!("claim {namespace}/{name} got replaced in the meantime"));
        }
        if open && is_done(&claim, pod, chosen) {
            return Ok(claim);
        }
    }
}

/// Whether the claim is as it was to be written.
fn is_done(claim: &ResourceClaim, pod: &PodInfo, chosen: Option<&AllocationResult>) -> bool {
    let same = |found: &AllocationResult| {
        chosen.is_none_or(|chosen| (&found.devices, &found.node_selector) == (&chosen.devices, &chosen.node_selector))
    };
    is_reserved_for(claim, pod) && allocation_of(claim).is_some_and(same)
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
    if let Some(allocation) = claim.status.as_mut().and_then(|status| status.allocation.as_mut()) {
        // How long its devices have been waited for is counted from here.
        allocation.allocation_timestamp.get_or_insert_with(|| Time(rk_api::now()));
    }
    let what = if chosen.is_some() { "add allocation and reservation to" } else { "add reservation to" };
    api.update_status(&claim).await.map_err(|error| Failure::Api(error, what))
}
