//! GangScheduling: all of a group's pods or none (KEP-4671).
//!
//! PreEnqueue keeps the pods of a gang out of the queue until the group and enough of its pods are there. Then all of them that wait are
//! tried in one *pod group cycle*, one by one on the same picture of the cluster, and only if enough of them find a node does any
//! of them get it; the others give their nodes back at once. So two gangs that compete for less room than both need can't hold
//! a part of it each: the first that fits is placed, the other waits. A group may want all of its pods in one domain of a topology
//! (KEP-5732), and less important pods go for it only if it fits as a whole then (KEP-5710).

use k8s_openapi::api::scheduling::v1alpha2::PodGroup;

use crate::{
    framework::{ClusterEvent, Hint, Plugin, PreEnqueue, Status},
    model::{PodInfo, Snapshot, group_of},
};

/// Places the pods of a gang together. Not in the default profile, as in Kubernetes 1.36, where it is an alpha feature
/// (gate `GenericWorkload`): add it with [`Profile::with_gangs`](crate::Profile::with_gangs).
#[derive(Debug, Clone, Copy, Default)]
pub struct GangScheduling;

impl GangScheduling {
    /// The plugin's name.
    pub const NAME: &'static str = "GangScheduling";

    /// Whether a gang may be placed that has so many pods on nodes, with so many more to be tried (`PlacementFeasible`).
    pub(crate) fn feasible(min_count: usize, scheduled: usize, remaining: usize) -> Status {
        let counts = || format!("{scheduled} scheduled, {remaining} remaining");
        if scheduled >= min_count {
            return Status::success();
        }
        if scheduled + remaining < min_count {
            return Status::unschedulable(format!("minCount ({min_count}) cannot be satisfied: {}", counts()));
        }
        Status::new(crate::framework::Code::Wait)
            .because(format!("minCount ({min_count}) is not yet satisfied: {}", counts()))
    }
}

impl Plugin for GangScheduling {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let Some(group) = group_of(pod) else { return Hint::Skip };
        let min_count = |group: &PodGroup| group.spec.scheduling_policy.gang.as_ref().map(|gang| gang.min_count);
        Hint::queue_if(match event {
            // Another pod of the gang may be the one that was missing.
            ClusterEvent::UnscheduledPodAdd(other) | ClusterEvent::AssignedPodAdd(other) => {
                group_of(other).as_ref() == Some(&group)
            }
            ClusterEvent::PodGroupUpdate { old, new: Some(new) } => {
                let same = new.metadata.namespace.as_deref() == Some(&group.0)
                    && new.metadata.name.as_deref() == Some(&group.1);
                same && old.as_ref().is_none_or(|old| min_count(old) != min_count(new))
            }
            _ => false,
        })
    }
}

impl PreEnqueue for GangScheduling {
    fn pre_enqueue(&self, pod: &PodInfo, snapshot: &Snapshot) -> Status {
        let Some(key) = group_of(pod) else { return Status::success() };
        let groups = &snapshot.groups;
        if groups.group(&key).is_none() {
            let name = &key.1;
            return Status::unresolvable(format!("waiting for pod's pod group {name:?} to appear in scheduling queue"));
        }
        if groups.is_short(&key) {
            return Status::unresolvable("waiting for minCount pods from a gang to appear in scheduling queue");
        }
        Status::success()
    }
}
