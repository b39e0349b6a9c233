//! DynamicResources: nodes whose devices satisfy the pod's ResourceClaims (KEP-4381, structured parameters).
//!
//! ```text
//! PreEnqueue, PreFilter: the claims, their classes, what is taken      -> State
//! Filter:   search the node's devices for all unallocated claims       -> State::found
//! Reserve:  what was found on the chosen node is in flight             (nobody else is offered it)
//! PreBind:  written to the claims with a reservation for the pod       Unreserve: given back
//! ```
//!
//! Of what is on by default in Kubernetes 1.36 it knows prioritized lists (KEP-4816), administrative access (KEP-5018), partitionable devices
//! (KEP-4815), device taints (KEP-5055) and consumable capacity (KEP-5075). It leaves devices with binding conditions (KEP-5007) to
//! others, and knows nothing of extended resources backed by devices (KEP-5004).

mod binding;
mod candidates;
mod capacity;
mod claims;
mod constraints;
mod requests;
mod result;
mod search;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use parking_lot::Mutex;
use rk_api::Client;

use self::{
    claims::{can_be_reserved, claims_of, is_reserved_for, reservations, shown, uses_claims},
    requests::{Selectors, Wanted},
    search::{Found, Pick},
};
use crate::{
    framework::{
        ClusterEvent, CycleState, Filter, Hint, NodeScore, Plugin, PreEnqueue, PreFilter, Score, Status,
        normalize_to_max,
    },
    model::{InFlight, NodeInfo, NodeTerm, PodInfo, Pools, Snapshot, Taken, allocation_of, uid_of},
};

/// Only nodes with the devices that the pod claims; better those that satisfy the first of alternative requests.
#[derive(Debug, Clone, Default)]
pub struct DynamicResources {
    selectors: Arc<Selectors>,
}

/// Subrequests of a request (`FirstAvailableDeviceRequestMaxSize`): what the first of them scores.
const MOST_ALTERNATIVES: i64 = 8;

/// A claim of the pod.
#[derive(Debug, Clone)]
struct Claim {
    claim: Arc<ResourceClaim>,
    /// The nodes it is limited to, if it is allocated and limited.
    nodes: Option<Vec<NodeTerm>>,
    /// What Reserve chose for it.
    chosen: Option<AllocationResult>,
}

/// What Filter searches.
#[derive(Debug)]
struct Task {
    wanted: Wanted,
    pools: Arc<Pools>,
    taken: Arc<Taken>,
    /// Steps of all searches so far.
    spent: AtomicU64,
}

/// The pod's cycle.
#[derive(Clone)]
struct State {
    claims: Vec<Claim>,
    /// `None` where all claims are allocated, and after Reserve.
    task: Option<Arc<Task>>,
    /// By node. Clones of the state share it, as they ask for the same devices.
    found: Arc<Mutex<HashMap<Arc<str>, Vec<Pick>>>>,
    /// Places of allocated claims that some node could not have.
    unavailable: Arc<Mutex<BTreeSet<usize>>>,
    in_flight: Arc<InFlight>,
    /// Set once claims are written, to take reservations back should the pod not get there.
    client: Arc<OnceLock<Arc<dyn Client>>>,
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::ClaimUpdate { old, new } => {
                let held =
                    |claim: &Option<Arc<ResourceClaim>>| claim.as_deref().is_some_and(|c| allocation_of(c).is_some());
                // Devices became free; or it is about one of the pod's own.
                (held(old) && !held(new)) || new.as_deref().is_some_and(|claim| concerns(pod, old.as_deref(), claim))
            }
            ClusterEvent::Object(change) => matches!(change.object().kind(), "DeviceClass" | "ResourceSlice"),
            // A binding that failed gives its devices back.
            ClusterEvent::AssignedPodDelete(gone) => uses_claims(gone),
            ClusterEvent::UnscheduledPodUpdate { .. } | ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::NodeUpdate { old, new } => old.labels() != new.labels(),
            _ => false,
        })
    }
}

/// Whether the change of a claim is one that the pod may have waited for.
fn concerns(pod: &PodInfo, old: Option<&ResourceClaim>, new: &ResourceClaim) -> bool {
    let name = new.metadata.name.as_deref().unwrap_or_default();
    new.metadata.namespace.as_deref() == Some(&pod.namespace)
        && claims::refers_to(pod, name)
        && old.is_none_or(|old| old.status != new.status || uid_of(old) != uid_of(new))
}

impl PreEnqueue for DynamicResources {
    fn pre_enqueue(&self, pod: &PodInfo, snapshot: &Snapshot) -> Status {
        match claims_of(pod, &snapshot.devices) {
            Ok(_) => Status::success(),
            Err(why) => Status::unresolvable(why),
        }
    }
}

impl PreFilter for DynamicResources {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        if !uses_claims(pod) {
            return Err(Status::skip());
        }
        let devices = &snapshot.devices;
        let all = claims_of(pod, devices).map_err(Status::unresolvable)?;
        if all.is_empty() {
            return Err(Status::skip());
        }
        let (mut claims, mut unallocated) = (Vec::new(), Vec::new());
        for claim in all {
            let mut nodes = None;
            match allocation_of(&claim) {
                Some(_) if !can_be_reserved(&claim) && !is_reserved_for(&claim, pod) => {
                    return Err(Status::unresolvable("resourceclaim in use"));
                }
                Some(allocation) => {
                    nodes = allocation.node_selector.as_ref().map(|s| NodeTerm::all(&s.node_selector_terms));
                }
                None if devices.in_flight().is_pending(uid_of(&claim)) => {
                    let why = format!("resource claim {} is in the process of being allocated", shown(&claim));
                    return Err(Status::unresolvable(why));
                }
                None => unallocated.push(Arc::clone(&claim)),
            }
            claims.push(Claim { claim, nodes, chosen: None });
        }
        let mut task = None;
        if !unallocated.is_empty() {
            task = Some(Arc::new(Task {
                wanted: Wanted::new(unallocated, devices, &self.selectors)?,
                pools: Arc::clone(devices.pools()),
                taken: devices.unavailable(),
                spent: AtomicU64::new(0),
            }));
        }
        state.insert(State {
            claims,
            task,
            found: Arc::default(),
            unavailable: Arc::default(),
            in_flight: Arc::clone(devices.in_flight()),
            client: Arc::default(),
        });
        Ok(None)
    }
}

impl Filter for DynamicResources {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        let Some(state) = state.get::<State>() else { return Status::success() };
        let allows = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(&node.name, node.labels()));
        let elsewhere = |claim: &Claim| claim.nodes.as_ref().is_some_and(|terms| !allows(terms));
        let unavailable: Vec<usize> =
            state.claims.iter().enumerate().filter(|(_, claim)| elsewhere(claim)).map(|(at, _)| at).collect();
        if !unavailable.is_empty() {
            state.unavailable.lock().extend(unavailable);
            return Status::unresolvable("resourceclaim not available on the node");
        }
        let Some(task) = &state.task else { return Status::success() };
        if state.found.lock().contains_key(&node.name) {
            return Status::success();
        }
        match search::search(&task.wanted, (&task.pools, &task.taken), (&node.name, node.labels()), &task.spent) {
            Ok(Found::Devices(picks)) => {
                state.found.lock().insert(Arc::clone(&node.name), picks);
                Status::success()
            }
            Ok(Found::Nothing) => Status::unresolvable("cannot allocate all claims"),
            Ok(Found::Refused(why)) => Status::unresolvable(why),
            Ok(Found::TooLong) => Status::unresolvable("timed out trying to allocate devices"),
            Err(why) => Status::error(why),
        }
    }
}

impl Score for DynamicResources {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let Some(state) = state.get::<State>() else { return Ok(0) };
        let Some(task) = &state.task else { return Ok(0) };
        let found = state.found.lock();
        let mut scored = BTreeSet::new();
        let mut sum = 0;
        for pick in found.get(&node.name).into_iter().flatten() {
            // A request without alternatives says nothing.
            let alternatives = task.wanted.requests[pick.request].choices[0].name.contains('/');
            if alternatives && scored.insert(pick.request) {
                sum += MOST_ALTERNATIVES - i64::try_from(pick.choice).unwrap_or(MOST_ALTERNATIVES);
            }
        }
        Ok(sum)
    }

    fn normalize(&self, _state: &CycleState, _pod: &PodInfo, scores: &mut [NodeScore]) -> Result<(), Status> {
        normalize_to_max(scores, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
