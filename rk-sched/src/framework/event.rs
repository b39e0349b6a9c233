//! Changes of the cluster that may make room for a pod.

use std::sync::Arc;

use k8s_openapi::api::{resource::v1::ResourceClaim, scheduling::v1alpha2::PodGroup};
use rk_api::Change;

use crate::model::{NodeInfo, PodInfo};

/// A change of the cluster that unschedulable pods may have waited for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A pod is on a node now.
    AssignedPodAdd(Arc<PodInfo>),
    /// A pod on a node changed: labels, requests, or it is being deleted now.
    AssignedPodUpdate {
        /// Before.
        old: Arc<PodInfo>,
        /// Now.
        new: Arc<PodInfo>,
    },
    /// A pod on a node is gone or has ended.
    AssignedPodDelete(Arc<PodInfo>),
    /// The unschedulable pod itself changed.
    UnscheduledPodUpdate {
        /// Before.
        old: Arc<PodInfo>,
        /// Now.
        new: Arc<PodInfo>,
    },
    /// A pod that is in a group waits for a node now. Of others it is not told.
    UnscheduledPodAdd(Arc<PodInfo>),
    /// A node is new. Of nodes events tell all but the pods on them.
    NodeAdd(Arc<NodeInfo>),
    /// A node changed: allocatable resources, labels, taints or whether it is cordoned. Mere heartbeats are no event.
    NodeUpdate {
        /// Before.
        old: Arc<NodeInfo>,
        /// Now.
        new: Arc<NodeInfo>,
    },
    /// A node is gone.
    NodeDelete(Arc<NodeInfo>),
    /// A ResourceClaim is new, changed or gone.
    ClaimUpdate {
        /// Before; `None` for a new one.
        old: Option<Arc<ResourceClaim>>,
        /// Now; `None` for one that is gone.
        new: Option<Arc<ResourceClaim>>,
    },
    /// A PodGroup is new, changed or gone.
    PodGroupUpdate {
        /// Before; `None` for a new one.
        old: Option<Arc<PodGroup>>,
        /// Now; `None` for one that is gone.
        new: Option<Arc<PodGroup>>,
    },
    /// An object of another watched kind (a Namespace, a volume, a claim) is new, changed or gone. One of the same name that was made in the
    /// place of another is told as two events.
    Object(Change),
}

impl ClusterEvent {
    /// The name of its kind: `AssignedPodAdd`, `NodeUpdate` and so on.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AssignedPodAdd(_) => "AssignedPodAdd",
            Self::AssignedPodUpdate { .. } => "AssignedPodUpdate",
            Self::AssignedPodDelete(_) => "AssignedPodDelete",
            Self::UnscheduledPodUpdate { .. } => "UnscheduledPodUpdate",
            Self::NodeAdd(_) => "NodeAdd",
            Self::NodeUpdate { .. } => "NodeUpdate",
            Self::NodeDelete(_) => "NodeDelete",
            Self::UnscheduledPodAdd(_) => "UnscheduledPodAdd",
            Self::ClaimUpdate { .. } => "ClaimUpdate",
            Self::PodGroupUpdate { .. } => "PodGroupUpdate",
            Self::Object(_) => "Object",
        }
    }
}

/// Whether an event is worth another try of a pod that a plugin refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// It may have changed the plugin's mind.
    Queue,
    /// It has not.
    Skip,
}

impl Hint {
    /// [`Hint::Queue`] if `yes`.
    pub fn queue_if(yes: bool) -> Self {
        if yes { Self::Queue } else { Self::Skip }
    }
}
