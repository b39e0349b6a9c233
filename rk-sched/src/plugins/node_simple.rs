//! NodeName, NodeUnschedulable and NodePorts: one condition each.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use crate::{
    framework::{Candidates, ClusterEvent, CycleState, Filter, Hint, Plugin, PreFilter, Status},
    model::{Mark, NodeInfo, PodInfo, Snapshot, tolerates},
};

/// Only the node that `spec.nodeName` names.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(matches!(event, ClusterEvent::NodeAdd(node) if pod.node_name() == Some(&*node.name)))
    }
}

impl Filter for NodeName {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        match pod.node_name() {
            Some(name) if name != node.name.as_ref() => {
                Status::unresolvable("node(s) didn't match the requested node name")
            }
            _ => Status::success(),
        }
    }

    fn filter_batch(&self, state: &CycleState, pod: &PodInfo, nodes: &mut Candidates<'_>) {
        if pod.node_name().is_some() {
            nodes.keep(|node| self.filter(state, pod, node));
        }
    }
}

/// No node that is cordoned, unless the pod tolerates that.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn hint(&self, _pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(node) => !node.unschedulable(),
            ClusterEvent::NodeUpdate { old, new } => old.unschedulable() && !new.unschedulable(),
            ClusterEvent::UnscheduledPodUpdate { new, .. } => tolerates_cordon(new),
            _ => false,
        })
    }
}

/// Whether a pod may go to cordoned nodes.
fn tolerates_cordon(pod: &PodInfo) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    pod.tolerations().iter().any(|toleration| tolerates(toleration, &taint))
}

const UNSCHEDULABLE: &str = "node(s) were unschedulable";

impl Filter for NodeUnschedulable {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        if !node.unschedulable() || tolerates_cordon(pod) {
            return Status::success();
        }
        Status::unresolvable(UNSCHEDULABLE)
    }

    fn filter_batch(&self, _state: &CycleState, pod: &PodInfo, nodes: &mut Candidates<'_>) {
        let columns = nodes.columns();
        if columns.count(Mark::Unschedulable) > 0 && !tolerates_cordon(pod) {
            let code = |node| columns.has(node, Mark::Unschedulable).into();
            nodes.keep_coded(code, |_| Status::unresolvable(UNSCHEDULABLE));
        }
    }
}

/// No node where a pod holds a `hostPort` that this one wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::AssignedPodDelete(gone) => {
                gone.host_ports.iter().any(|held| pod.host_ports.iter().any(|wanted| wanted.conflicts(held)))
            }
            _ => false,
        })
    }
}

impl PreFilter for NodePorts {
    fn pre_filter(
        &self,
        _state: &mut CycleState,
        pod: &PodInfo,
        _snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        if pod.host_ports.is_empty() { Err(Status::skip()) } else { Ok(None) }
    }
}

impl Filter for NodePorts {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        if node.port_conflict(pod) {
            return Status::unschedulable("node(s) didn't have free ports for the requested pod ports");
        }
        Status::success()
    }
}
