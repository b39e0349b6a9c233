//! Nodes: whether they live, what becomes of their pods when they don't, and their ranges of pod addresses.
//!
//! `lifecycle` watches heartbeats and says by taints what is wrong with a node; `eviction` deletes the pods that don't
//! tolerate a taint; `pod_gc` removes what a node that is gone has left behind; `ipam` gives each node its `podCIDR`.

mod eviction;
mod ipam;
mod lifecycle;
mod pod_gc;
mod zone;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint};
use rk_api::{Api, Informer, Patch};
use serde_json::json;

use crate::{
    Error,
    common::{condition, condition::Condition, meta, pod},
};

pub(crate) use eviction::tolerates;
pub use eviction::{TaintEvictionController, run as run_taint_eviction};
pub use ipam::{CidrError, NodeCidrs, NodeIpamController, run as run_ipam};
pub use lifecycle::{NodeLifecycleConfig, NodeLifecycleController, run as run_lifecycle};
pub use pod_gc::{PodGarbageCollector, run as run_pod_gc};

/// Taints of a node that is not ready, or that nobody has heard of for long.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The status of the condition Ready: `True`, `False` or `Unknown`, which it is too where there is none.
fn ready_status(node: &Node) -> &str {
    let conditions = node.status.as_ref().map(|status| &status.conditions);
    conditions.and_then(|conditions| condition::get(conditions, "Ready")).map_or("Unknown", |ready| &ready.status)
}

/// The pods that are bound to a node.
fn pods_on(pods: &Informer, node: &str) -> Result<Vec<Arc<Pod>>, Error> {
    let mut bound = Vec::new();
    for object in pods.list() {
        let pod: Arc<Pod> = object.typed()?;
        if pod::node_name(&pod) == node {
            bound.push(pod);
        }
    }
    Ok(bound)
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

/// Says in a pod's status why it is about to be deleted (KEP-3329), and that it has failed, where nobody else will.
async fn mark_disrupted(
    api: &Api<Pod>,
    pod: &Pod,
    reason: &str,
    message: &str,
    failed: bool,
) -> Result<(), rk_api::Error> {
    let mut status = pod.status.clone().unwrap_or_default();
    condition::set(&mut status.conditions, PodCondition::new("DisruptionTarget", "True", reason, message.to_owned()));
    let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": status.conditions}});
    if failed && !pod::is_terminal(pod) {
        patch["status"]["phase"] = "Failed".into();
    }
    api.patch_status(meta::name(&pod.metadata), Patch::merge(patch)).await.map(drop)
}
