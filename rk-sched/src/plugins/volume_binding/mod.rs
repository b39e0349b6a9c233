//! VolumeBinding: only nodes that the pod's volumes can be used on, and volumes for claims that waited for a node.
//!
//! A claim of a class that binds at once is the volume controller's to bind, and the pod waits for that. For a claim of a class that
//! waits for its first consumer the plugin finds, per node, the smallest volume that will do, or else whether one can be provided there
//! (`find`). For the chosen node these are promised to the pod's claims ([`Reserve`]), and before the pod is bound the
//! promises are written to the API, from which the volume controller and provisioners go on, and their work is waited for (`bind`).
//!
//! Reserve, PreFilter and Filter see promises of all profiles of a scheduler. Another scheduler's are seen once they are written;
//! where both write, the second one's write fails, as it says which version it means to change.

mod bind;
mod claims;
mod find;
mod hints;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{
    bind::Task,
    claims::PodClaims,
    find::{BIND_CONFLICT, Found},
};
use crate::{
    framework::{
        BindContext, Candidates, ClusterEvent, CycleState, Filter, Hint, Plugin, PreBind, PreFilter, Reserve, Status,
    },
    model::{
        NodeInfo, PodInfo, Snapshot, claims_of,
        volumes::{Given, Tables, TablesView, selected_node},
    },
};

/// Checks a pod's claims, and has those bound that waited for a node.
#[derive(Debug, Clone)]
pub struct VolumeBinding {
    /// How long a pod waits for its claims to be bound before its node is given back (`bindTimeoutSeconds`).
    pub bind_timeout: Duration,
}

impl Default for VolumeBinding {
    fn default() -> Self {
        Self { bind_timeout: Duration::from_secs(600) }
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::Object(change) => hints::change_helps(pod, change),
            ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::NodeUpdate { old, new } => old.labels() != new.labels(),
            // What was promised to it may be free again.
            ClusterEvent::AssignedPodDelete(gone) => claims_of(gone).next().is_some(),
            _ => false,
        })
    }
}

impl PreFilter for VolumeBinding {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        if claims_of(pod).next().is_none() {
            return Err(Status::skip());
        }
        let claims = PodClaims::new(pod, &snapshot.volumes)?;
        if claims.suit_every_node() {
            return Err(Status::skip());
        }
        state.insert(claims);
        Ok(None)
    }
}

impl Filter for VolumeBinding {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        match state.get::<PodClaims>() {
            Some(claims) => check(claims, claims.tables.get().as_deref(), node),
            None => Status::success(),
        }
    }

    fn filter_batch(&self, state: &CycleState, _pod: &PodInfo, nodes: &mut Candidates<'_>) {
        if let Some(claims) = state.get::<PodClaims>() {
            let tables = claims.tables.get();
            nodes.keep(|node| check(claims, tables.as_deref(), node));
        }
    }
}

/// Whether the pod's claims can be used or bound on a node; what was found is kept for Reserve.
fn check(claims: &PodClaims, tables: Option<&Tables>, node: &NodeInfo) -> Status {
    let Some(tables) = tables else { return Status::error("volumes changed within a scheduling cycle") };
    match find::find(claims, node, tables) {
        Ok(found) => {
            if !claims.unbound.is_empty() {
                claims.found.lock().insert(Arc::clone(&node.name), found);
            }
            Status::success()
        }
        Err(status) => status,
    }
}

impl Reserve for VolumeBinding {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Status {
        let Some(claims) = state.get_mut::<PodClaims>() else { return Status::success() };
        claims.tables = TablesView::default();
        if claims.unbound.is_empty() {
            return Status::success();
        }
        let Some(found) = claims.found.lock().remove(node) else {
            return Status::error(format!("no pod volumes found for node {node:?}"));
        };
        match promise(claims, pod, node, found) {
            Some(tasks) => {
                claims.tasks = tasks.into();
                Status::success()
            }
            None => {
                claims.assumed.give_back(&pod.uid);
                Status::unschedulable(BIND_CONFLICT)
            }
        }
    }

    fn unreserve(&self, state: &CycleState, pod: &PodInfo, _node: &str) {
        if let Some(claims) = state.get::<PodClaims>() {
            claims.assumed.give_back(&pod.uid);
        }
    }
}

/// Promises what was found to the pod's claims; `None` if some of it was promised to others meanwhile.
fn promise(claims: &PodClaims, pod: &PodInfo, node: &str, found: Found) -> Option<Vec<Task>> {
    let csi = Arc::new(found.csi);
    let mut tasks = Vec::new();
    for (index, volume) in found.volumes {
        let unbound = &claims.unbound[index];
        let given = match bind::is_written(&volume, &unbound.claim) {
            true => Given::Already,
            false => claims.assumed.promise_volume(&volume.name, &unbound.key, &pod.uid),
        };
        if given == Given::Refused {
            return None;
        }
        tasks.push(Task::new(unbound, Some(volume), given == Given::Now, &csi));
    }
    for index in found.provided {
        let unbound = &claims.unbound[index];
        let given = match selected_node(&unbound.claim) == Some(node) {
            true => Given::Already,
            false => claims.assumed.promise_node(&unbound.key, node, &pod.uid),
        };
        if given == Given::Refused {
            return None;
        }
        tasks.push(Task::new(unbound, None, given == Given::Now, &csi));
    }
    Some(tasks)
}

#[async_trait]
impl PreBind for VolumeBinding {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        let Some(claims) = context.state.get::<PodClaims>().filter(|claims| !claims.tasks.is_empty()) else {
            return Status::skip();
        };
        match bind::bind(claims, context, self.bind_timeout).await {
            Ok(()) => Status::success(),
            Err(reason) => Status::error(reason),
        }
    }
}
