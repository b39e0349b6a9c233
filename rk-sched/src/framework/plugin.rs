//! The extension points.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::resource::v1::ResourceClaim;
use parking_lot::Mutex;
use rk_api::{Client, EventRecorder};

use super::{Candidates, ClusterEvent, CycleState, Diagnosis, Hint, NodeVictims, Status};
use crate::{
    cycle::Cluster,
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
    queue::QueuedPod,
};

/// The lowest score of a node.
pub const MIN_SCORE: i64 = 0;
/// The highest score of a node.
pub const MAX_SCORE: i64 = 100;

/// What every plugin has. It implements the traits of its extension points besides.
pub trait Plugin: Send + Sync + 'static {
    /// Its name, such as `NodeAffinity`; unique in a profile.
    fn name(&self) -> &'static str;

    /// Whether an event may make a pod schedulable that this plugin refused. When in doubt, [`Hint::Queue`].
    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent) -> Hint {
        Hint::Queue
    }
}

/// Orders the pods that wait. One per scheduler.
pub trait QueueSort: Plugin {
    /// Whether `a` goes before `b`.
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool;
}

/// Says whether a pod may be tried at all.
pub trait PreEnqueue: Plugin {
    /// Anything but success keeps the pod out until an event that the plugin's hint wants.
    fn pre_enqueue(&self, pod: &PodInfo, snapshot: &Snapshot) -> Status;
}

/// Looks at the pod and the whole cluster once, before the nodes are tried.
pub trait PreFilter: Plugin {
    /// Names of the only nodes to try, where the plugin knows; `None` for all.
    ///
    /// # Errors
    /// A status: [`Status::skip`] if the plugin's Filter has nothing to do for this pod; a rejection refuses all nodes.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status>;

    /// Changes the state as if `added` were on `node` also. [`PreFilter::remove_pod`] undoes it.
    fn add_pod(&self, _state: &mut CycleState, _pod: &PodInfo, _added: &PodInfo, _node: &NodeInfo) {}

    /// Changes the state as if `removed` were not on `node`.
    fn remove_pod(&self, _state: &mut CycleState, _pod: &PodInfo, _removed: &PodInfo, _node: &NodeInfo) {}
}

/// Says whether a pod may run on a node. It is asked for many nodes in a row and must be quick, and answer the same
/// to the same question.
pub trait Filter: Plugin {
    /// Success, or why not.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status;

    /// The batch form: takes the nodes out of `nodes` that [`Filter::filter`] refuses, with the same answers. By default it asks for one after the
    /// other.
    fn filter_batch(&self, state: &CycleState, pod: &PodInfo, nodes: &mut Candidates<'_>) {
        nodes.keep(|node| self.filter(state, pod, node));
    }
}

/// Tries to make room when no node will do.
pub trait PostFilter: Plugin {
    /// The name of a node where the pod will fit, and the pods that have to go for it; the scheduler evicts them.
    ///
    /// # Errors
    /// Why it can't help.
    fn post_filter(&self, context: &PostFilterContext<'_>) -> Result<(Arc<str>, Vec<Arc<PodInfo>>), Status>;
}

/// What a PostFilter plugin has to go by.
pub struct PostFilterContext<'a> {
    /// The pod.
    pub pod: &'a PodInfo,
    /// The pod's cycle.
    pub state: &'a CycleState,
    /// Why no node would do.
    pub diagnosis: &'a Diagnosis,
    /// Where to begin among equals: a random number.
    pub offset: usize,
    pub(crate) cluster: Cluster<'a>,
    /// See [`PostFilterContext::deallocate`].
    pub(crate) deallocated: Mutex<Option<Arc<ResourceClaim>>>,
    /// Whether pods may go for this one alone; they may not where its whole group has no room.
    pub(crate) preempts: bool,
    /// Where to note all proposals of preemption, for extenders that have a say on them.
    pub(crate) proposals: Option<&'a Mutex<Vec<NodeVictims>>>,
}

impl<'a> PostFilterContext<'a> {
    /// The cluster.
    pub fn snapshot(&self) -> &'a Snapshot {
        self.cluster.snapshot
    }

    /// Asks for the allocation of a claim to be taken back, which nobody uses where it is.
    pub fn deallocate(&self, claim: Arc<ResourceClaim>) {
        *self.deallocated.lock() = Some(claim);
    }
}

/// Looks at the nodes that passed, before they are scored.
pub trait PreScore: Plugin {
    /// [`Status::skip`] if the plugin's Score has nothing to say on this pod.
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, nodes: &[NodeIndex]) -> Status;
}

/// A node's score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeScore {
    /// The node.
    pub node: NodeIndex,
    /// The score.
    pub score: i64,
}

/// Says how good a node is. After [`Score::normalize`] scores are between [`MIN_SCORE`] and [`MAX_SCORE`].
pub trait Score: Plugin {
    /// The score of one node, on a scale of the plugin's own where it normalizes.
    ///
    /// # Errors
    /// The plugin failed.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status>;

    /// The batch form: sets the score of each node to that of [`Score::score`]. By default it asks for one after the other.
    ///
    /// # Errors
    /// The plugin failed.
    fn score_batch(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        for score in scores {
            score.score = self.score(state, pod, snapshot.node(score.node))?;
        }
        Ok(())
    }

    /// Brings the scores of all nodes to the common scale. By default they are on it already.
    ///
    /// # Errors
    /// The plugin failed.
    fn normalize(&self, _state: &CycleState, _pod: &PodInfo, _scores: &mut [NodeScore]) -> Result<(), Status> {
        Ok(())
    }
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; `reverse` makes the highest the lowest
/// (`helper.DefaultNormalizeScore`).
pub fn normalize_to_max(scores: &mut [NodeScore], reverse: bool) {
    let highest = scores.iter().map(|score| score.score).max().unwrap_or(0);
    for score in scores {
        if highest > 0 {
            score.score = score.score * MAX_SCORE / highest;
        }
        if reverse {
            score.score = MAX_SCORE - score.score;
        }
    }
}

/// Keeps account of what a chosen node will give, before it does.
pub trait Reserve: Plugin {
    /// Notes that the pod will take its part of the node.
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Status;

    /// Takes it back. Called for every plugin, reserved or not, when the pod does not get there after all.
    fn unreserve(&self, state: &CycleState, pod: &PodInfo, node: &str);
}

/// What a Permit plugin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermitAnswer {
    /// Go on.
    Allow,
    /// Give the node back.
    Deny(Status),
    /// Wait for [`WaitingPods::allow`](super::WaitingPods::allow), at most so long; then give the node back.
    Wait(Duration),
}

/// May hold a pod back that has its node, such as until its whole gang has theirs.
pub trait Permit: Plugin {
    /// The answer.
    fn permit(&self, state: &CycleState, pod: &PodInfo, node: &str) -> PermitAnswer;
}

/// What binding plugins have to go by.
pub struct BindContext<'a> {
    /// The API.
    pub client: &'a Arc<dyn Client>,
    /// Where to tell of it.
    pub events: &'a EventRecorder,
    /// The pod's cycle.
    pub state: &'a CycleState,
    /// The pod.
    pub pod: &'a PodInfo,
    /// The chosen node's name.
    pub node: &'a str,
}

/// Does what must be done before a pod is bound, such as providing its volumes.
#[async_trait]
pub trait PreBind: Plugin {
    /// Anything but success gives the node back.
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status;
}

/// Binds the pod.
#[async_trait]
pub trait Bind: Plugin {
    /// Success ends the cycle; [`Status::skip`] leaves it to the next plugin.
    async fn bind(&self, context: &BindContext<'_>) -> Status;
}

/// Hears of pods that were bound.
#[async_trait]
pub trait PostBind: Plugin {
    /// Cleans up.
    async fn post_bind(&self, context: &BindContext<'_>);
}
