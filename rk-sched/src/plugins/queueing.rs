//! PrioritySort and SchedulingGates.

use crate::{
    framework::{ClusterEvent, Hint, Plugin, PreEnqueue, QueueSort, Status},
    model::{PodInfo, Snapshot},
    queue::QueuedPod,
};

/// Higher priority first, then the one that waits longer.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
}

impl QueueSort for PrioritySort {
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        (b.pod.priority, a.since) < (a.pod.priority, b.since)
    }
}

/// Keeps pods with `spec.schedulingGates` out of the queue (KEP-3521).
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn hint(&self, _pod: &PodInfo, event: &ClusterEvent) -> Hint {
        // Gates only go by a change of the pod itself.
        Hint::queue_if(matches!(event, ClusterEvent::UnscheduledPodUpdate { new, .. } if gates(new).is_empty()))
    }
}

fn gates(pod: &PodInfo) -> Vec<&str> {
    pod.spec().scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect()
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo, _snapshot: &Snapshot) -> Status {
        let gates = gates(pod);
        if gates.is_empty() {
            return Status::success();
        }
        Status::unresolvable(format!("waiting for scheduling gates: [{}]", gates.join(" ")))
    }
}
