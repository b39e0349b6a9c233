//! DynamicResources: nodes whose devices satisfy the pod's ResourceClaims (KEP-4381, structured parameters).
//!
//! ```text
//! PreEnqueue, PreFilter: the claims, their classes, what is taken      -> State
//! Filter:   search the node's devices for all unallocated claims       -> State::found
//! Reserve:  what was found on the chosen node is in flight             (nobody else is offered it)
//! PreBind:  written to the claims with a reservation for the pod       Unreserve: given back
//! ```
//!
//! It knows all that is on by default in Kubernetes 1.36: prioritized lists (KEP-4816), administrative access (KEP-5018), partitionable
//! devices (KEP-4815), device taints (KEP-5055), consumable capacity (KEP-5075), devices with binding conditions (KEP-5007) and extended
//! resources that devices back (KEP-5004); and rules that taint devices (`DeviceTaintRule`), whose API is off by default, where
//! they are served.

#[cfg(feature = "simulate")]
mod allocate;
mod binding;
mod candidates;
mod capacity;
mod claims;
mod conditions;
mod constraints;
mod extended;
mod release;
mod requests;
mod result;
mod search;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::ContainerExtendedResourceRequest,
    resource::v1::{AllocationResult, ResourceClaim},
};
use parking_lot::Mutex;
use rk_api::Client;
use tokio::time::Instant;

#[cfg(feature = "simulate")]
pub(crate) use self::allocate::Allocator;
pub(crate) use self::release::release;
use self::{
    candidates::Supply,
    claims::{can_be_reserved, claims_of, is_reserved_for, reservations, shown, uses_claims},
    extended::Extended,
    requests::{Selectors, Wanted},
    search::{Found, Limits, Pick},
};
use crate::{
    framework::{
        ClusterEvent, CycleState, Filter, Hint, NodeScore, Plugin, PreEnqueue, PreFilter, Score, Status,
        normalize_to_max,
    },
    model::{InFlight, NodeInfo, NodeTerm, PodInfo, Snapshot, allocation_of, pod_of_extended, uid_of},
    time::after,
};

/// Only nodes with the devices that the pod claims; better those that satisfy the first of alternative requests.
#[derive(Debug, Clone)]
pub struct DynamicResources {
    /// How long Filter may look for devices on a node; 10 s. Zero is without end, but for the number of steps that a search may make.
    pub filter_timeout: Duration,
    /// How long a pod waits before it is bound for devices that have to be made ready; 10 min.
    pub binding_timeout: Duration,
    selectors: Arc<Selectors>,
}

impl Default for DynamicResources {
    fn default() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_secs(600))
    }
}

impl DynamicResources {
    /// With these timeouts for Filter and PreBind.
    pub fn new(filter_timeout: Duration, binding_timeout: Duration) -> Self {
        Self { filter_timeout, binding_timeout, selectors: Arc::default() }
    }
}

/// Subrequests of a request (`FirstAvailableDeviceRequestMaxSize`): what the first of them scores.
const MOST_ALTERNATIVES: i64 = 8;

/// A claim of the pod.
#[derive(Debug, Clone)]
struct Claim {
    claim: Arc<ResourceClaim>,
    /// The nodes it is limited to, if it is allocated and limited.
    nodes: Option<Vec<NodeTerm>>,
    /// Whether its devices failed, or were not ready in time.
    failed: bool,
    /// What Reserve chose for it.
    chosen: Option<AllocationResult>,
    /// Where the claim is still to be made, for extended resources: who gets its devices.
    unmade: Option<Vec<ContainerExtendedResourceRequest>>,
}

impl Claim {
    fn new(claim: Arc<ResourceClaim>) -> Self {
        Self { claim, nodes: None, failed: false, chosen: None, unmade: None }
    }
}

/// What Filter searches.
#[derive(Debug)]
struct Task {
    /// What a node has to give that has none of the extended resources by itself.
    wanted: Arc<Wanted>,
    extended: Option<Extended>,
    supply: Supply,
    /// Steps of all searches so far.
    spent: AtomicU64,
}

impl Task {
    /// What a node has to give.
    fn wanted_of(&self, node: &NodeInfo) -> Arc<Wanted> {
        let provided = self.extended.as_ref().map(|extended| extended.provided_by(node)).unwrap_or_default();
        if provided.is_empty() { Arc::clone(&self.wanted) } else { Arc::new(self.wanted.without(&provided)) }
    }
}

/// Devices of a node, and what they are for.
#[derive(Clone)]
struct OnNode {
    wanted: Arc<Wanted>,
    picks: Vec<Pick>,
}

/// The pod's cycle.
#[derive(Clone)]
struct State {
    claims: Vec<Claim>,
    /// `None` where all claims are allocated, and after Reserve.
    task: Option<Arc<Task>>,
    /// By node. Clones of the state share it, as they ask for the same devices.
    found: Arc<Mutex<HashMap<Arc<str>, OnNode>>>,
    /// A claim for extended resources that an earlier attempt has left: the next one makes its own.
    left_over: Option<Arc<ResourceClaim>>,
    /// Places of allocated claims that some node could not have.
    unavailable: Arc<Mutex<BTreeSet<usize>>>,
    in_flight: Arc<InFlight>,
    /// Set once claims are written, to take reservations back should the pod not get there.
    client: Arc<OnceLock<Arc<dyn Client>>>,
    /// The claim that was made for extended resources.
    made: Arc<OnceLock<Arc<ResourceClaim>>>,
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
                let own = |claim: &ResourceClaim| pod_of_extended(claim) == Some(&pod.uid);
                (held(old) && !held(new))
                    || (new.is_none() && old.as_deref().is_some_and(own))
                    || new.as_deref().is_some_and(|claim| concerns(pod, old.as_deref(), claim))
            }
            ClusterEvent::Object(change) => {
                matches!(change.object().kind(), "DeviceClass" | "ResourceSlice" | "DeviceTaintRule")
            }
            // A binding that failed gives its devices back, those that stood for extended resources too.
            ClusterEvent::AssignedPodDelete(gone) => uses_claims(gone) || !gone.requests.scalars.is_empty(),
            ClusterEvent::UnscheduledPodUpdate { .. } | ClusterEvent::NodeAdd(_) => true,
            // What a node can give decides whether devices have to stand for an extended resource there.
            ClusterEvent::NodeUpdate { old, new } => old.labels() != new.labels() || old.allocatable != new.allocatable,
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
        let devices = &snapshot.devices;
        let extended = Extended::new(pod, devices);
        if !uses_claims(pod) && extended.is_none() {
            return Err(Status::skip());
        }
        let all = claims_of(pod, devices).map_err(Status::unresolvable)?;
        if all.is_empty() && extended.is_none() {
            return Err(Status::skip());
        }
        let left_over = extended.as_ref().and_then(|_| devices.extended_claim(&pod.uid)).map(Arc::clone);
        let (mut claims, mut unallocated) = (Vec::new(), Vec::new());
        for claim in all {
            let mut own = Claim::new(Arc::clone(&claim));
            match allocation_of(&claim) {
                Some(_) if !can_be_reserved(&claim) && !is_reserved_for(&claim, pod) => {
                    return Err(Status::unresolvable("resourceclaim in use"));
                }
                Some(allocation) => {
                    own.nodes = allocation.node_selector.as_ref().map(|s| NodeTerm::all(&s.node_selector_terms));
                    own.failed = conditions::trouble(&claim, self.binding_timeout, rk_api::now()).is_some();
                }
                None if devices.in_flight().is_pending(uid_of(&claim)) => {
                    let why = format!("resource claim {} is in the process of being allocated", shown(&claim));
                    return Err(Status::unresolvable(why));
                }
                None => unallocated.push(claim),
            }
            claims.push(own);
        }
        unallocated.extend(extended.as_ref().map(|extended| Arc::clone(&extended.claim)));
        let mut task = None;
        if !unallocated.is_empty() {
            task = Some(Arc::new(Task {
                wanted: Arc::new(Wanted::new(unallocated, devices, &self.selectors)?),
                extended,
                supply: Supply {
                    pools: Arc::clone(devices.pools()),
                    taken: devices.unavailable(),
                    taint_rules: Arc::clone(devices.taint_rules()),
                },
                spent: AtomicU64::new(0),
            }));
        }
        state.insert(State {
            claims,
            task,
            found: Arc::default(),
            left_over,
            unavailable: Arc::default(),
            in_flight: Arc::clone(devices.in_flight()),
            client: Arc::default(),
            made: Arc::default(),
        });
        Ok(None)
    }
}

impl Filter for DynamicResources {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        let Some(state) = state.get::<State>() else { return Status::success() };
        if state.left_over.is_some() {
            return Status::unresolvable("cannot schedule extended resource claim");
        }
        let allows = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(&node.name, node.labels()));
        let useless = |claim: &Claim| claim.failed || claim.nodes.as_ref().is_some_and(|terms| !allows(terms));
        let unavailable: Vec<usize> =
            state.claims.iter().enumerate().filter(|(_, claim)| useless(claim)).map(|(at, _)| at).collect();
        if !unavailable.is_empty() {
            state.unavailable.lock().extend(unavailable);
            return Status::unresolvable("resourceclaim not available on the node");
        }
        let Some(task) = &state.task else { return Status::success() };
        if state.found.lock().contains_key(&node.name) {
            return Status::success();
        }
        let wanted = task.wanted_of(node);
        let until = (!self.filter_timeout.is_zero()).then(|| after(Instant::now(), self.filter_timeout));
        let limits = Limits { spent: &task.spent, until };
        match search::search(&wanted, &task.supply, (&node.name, node.labels()), limits) {
            Ok(Found::Devices(picks)) => {
                state.found.lock().insert(Arc::clone(&node.name), OnNode { wanted, picks });
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
        let found = state.found.lock();
        let Some(on_node) = found.get(&node.name) else { return Ok(0) };
        let mut scored = BTreeSet::new();
        let mut sum = 0;
        for pick in &on_node.picks {
            // A request without alternatives says nothing.
            let alternatives = on_node.wanted.requests[pick.request].choices[0].name.contains('/');
            if alternatives && scored.insert(pick.request) {
                sum += MOST_ALTERNATIVES - i64::try_from(pick.choice).unwrap_or(MOST_ALTERNATIVES);
            }
        }
        Ok(sum)
    }

    fn score_batch(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        // Most pods have no claims, and no node is looked at for them.
        let asks = state.get::<State>().is_some();
        for score in scores {
            score.score = if asks { self.score(state, pod, snapshot.node(score.node))? } else { 0 };
        }
        Ok(())
    }

    fn normalize(&self, _state: &CycleState, _pod: &PodInfo, scores: &mut [NodeScore]) -> Result<(), Status> {
        normalize_to_max(scores, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
