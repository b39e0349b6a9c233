//! What an engine decides, as data.

use std::{fmt, sync::Arc};

use k8s_openapi::api::{resource::v1::ResourceClaim, scheduling::v1alpha2::PodGroup};
use tokio::time::Instant;

use super::{GroupOutcome, Question};
use crate::{
    framework::{CycleState, Diagnosis, Extender, Profile, Status, Waited},
    model::PodInfo,
};

/// How a pod's scheduling cycle ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision {
    /// The pod has a node: bind it there, and tell the engine how that ended.
    Place(Placement),
    /// It has none; it is back in the queue.
    Refused(Refusal),
    /// It is being deleted, or went or got a node while extenders were asked, and was left out; it is no more in the queue.
    Skip(Arc<PodInfo>),
    /// Extenders have to be asked first ([`Question::ask`]); the answer leads to another decision ([`Engine::answer`](super::Engine::answer)). Only
    /// with [`SchedulerConfig::extenders`](crate::SchedulerConfig::extenders).
    Ask(Box<Question>),
    /// The pods of a group were tried, which their own decisions tell: what there is to tell of the group as a whole.
    Group(Box<GroupOutcome>),
}

impl Decision {
    /// The pod that it is about; `None` for a group.
    pub fn pod(&self) -> Option<&Arc<PodInfo>> {
        match self {
            Self::Place(placement) => Some(&placement.pod),
            Self::Refused(refusal) => Some(&refusal.pod),
            Self::Skip(pod) => Some(pod),
            Self::Ask(question) => Some(question.pod()),
            Self::Group(_) => None,
        }
    }

    /// The decision in a few words, for an explanation.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Place(placement) => format!("placed on {}", placement.node),
            Self::Refused(refusal) => refusal.message(),
            Self::Skip(_) => "left out, as it is being deleted".to_owned(),
            Self::Ask(_) => "extenders are asked".to_owned(),
            Self::Group(outcome) => outcome.message.clone(),
        }
    }
}

/// A pod with the node that it is to be bound to. For the engine it is there already.
pub struct Placement {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node's name.
    pub node: Arc<str>,
    /// The profile that placed it; its PreBind, Bind and PostBind plugins bind it.
    pub profile: Arc<Profile>,
    /// The pod's cycle.
    pub state: CycleState,
    /// What has to be waited for first, if a Permit plugin holds the pod back.
    pub waited: Option<Waited>,
    /// Extenders that bind the pod in place of the Bind plugins.
    pub binders: Vec<Arc<dyn Extender>>,
    /// How often the pod was tried, this time included.
    pub attempts: u32,
    /// When the pod was last put into the queue.
    pub since: Instant,
}

impl Placement {
    /// Takes back what the Reserve plugins noted, the last first: for a pod whose binding failed, before the engine is told.
    pub fn unreserve(&self) {
        for plugin in self.profile.enabled().iter().rev().filter_map(|enabled| enabled.points.reserve.as_ref()) {
            plugin.unreserve(&self.state, &self.pod, &self.node);
        }
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement").field("pod", &self.pod.name).field("node", &self.node).finish_non_exhaustive()
    }
}

/// Why a pod has no node.
#[derive(Debug)]
pub struct Refusal {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Why.
    pub cause: Cause,
    /// The node on which room was promised to it, if any (`status.nominatedNodeName`).
    pub nominated: Option<Arc<str>>,
    /// Who has to go for that, if that was decided just now.
    pub eviction: Option<Eviction>,
    /// The claim whose allocation is to be taken back for it: nobody uses it where it is.
    pub deallocation: Option<Arc<ResourceClaim>>,
    /// How often the pod was tried, this time included.
    pub attempts: u32,
}

/// Pods that have to leave a node; where they go for a group of pods, they may be on several.
#[derive(Debug)]
pub struct Eviction {
    /// The node's name, or the first one's.
    pub node: Arc<str>,
    /// The pods.
    pub victims: Vec<Arc<PodInfo>>,
    /// The groups of which all pods go, as their disruption mode wants it.
    pub groups: Vec<Arc<PodGroup>>,
}

/// Why a pod has no node.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// No node would do; or there was one, and a Reserve, Permit, PreBind or Bind plugin said no.
    Unfit(Box<Diagnosis>),
    /// The pod was refused as one of its group.
    Rejected(Status),
    /// A plugin failed, or the API did.
    Failed(Status),
}

impl Cause {
    /// In words.
    pub fn message(&self) -> String {
        match self {
            Self::Unfit(diagnosis) => diagnosis.to_string(),
            Self::Rejected(status) | Self::Failed(status) => status.message(),
        }
    }
}

impl Refusal {
    /// The reason of the pod's condition `PodScheduled`: `Unschedulable`, or `SchedulerError` for what is not the pod's fault.
    pub fn reason(&self) -> &'static str {
        match self.cause {
            Cause::Unfit(_) | Cause::Rejected(_) => "Unschedulable",
            Cause::Failed(_) => "SchedulerError",
        }
    }

    /// The message of the condition and of the event `FailedScheduling`.
    pub fn message(&self) -> String {
        self.cause.message()
    }
}
