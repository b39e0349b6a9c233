//! Plugins can't stop the scheduler.
//!
//! Every plugin in a [`Profile`](super::Profile) is called through a [`Guarded`]. A panic is caught, told in the log, and becomes the answer
//! that fails this pod's cycle ([`Code::Error`](super::Code::Error), with the plugin's name), so that the pod is tried again after its
//! back-off and others go on. Where a plugin has no answer to give, the safe one is taken: an event may always change its mind, the queue is
//! sorted as PrioritySort does. A program that is built with `panic = "abort"` ends all the same.
//!
//! A plugin that is not one of Kubernetes' own and that takes longer than [`SLOW_PLUGIN`] for one call is told in the log by its name.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::FutureExt;

use super::{
    Bind, BindContext, Candidates, ClusterEvent, CycleState, Filter, Hint, NodeScore, Permit, PermitAnswer, Plugin,
    PostBind, PostFilter, PostFilterContext, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score,
    Status,
};
use crate::{
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
    plugins::PrioritySort,
    queue::QueuedPod,
};

/// A call of a plugin of the user's that takes longer than this is told in the log: kube-scheduler's own bound of a slow cycle.
/// The calls are those of one pod's cycle; Filter and Score are one call for all nodes that are tried together.
pub const SLOW_PLUGIN: Duration = Duration::from_millis(100);

/// A plugin whose panics are caught.
pub(crate) struct Guarded<T: ?Sized> {
    plugin: Arc<T>,
    name: &'static str,
    /// Whether it is one of Kubernetes' own, which are not timed.
    own: bool,
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

impl<T: ?Sized + Plugin> Guarded<T> {
    pub(crate) fn new(plugin: Arc<T>, own: bool) -> Self {
        Self { name: plugin.name(), plugin, own }
    }

    /// The answer in place of one that did not come.
    fn panicked(&self, point: &str, panic: &(dyn Any + Send)) -> Status {
        let text = text(panic);
        tracing::error!(plugin = self.name, point, text, "plugin panicked");
        Status::error(format!("panicked in {point}: {text}")).from_plugin(self.name)
    }

    /// Calls the plugin.
    fn call<R>(&self, point: &str, call: impl FnOnce(&T) -> R) -> Result<R, Status> {
        let called = catch_unwind(AssertUnwindSafe(|| call(&self.plugin)));
        called.map_err(|panic| self.panicked(point, &*panic))
    }

    /// Calls the plugin once in a cycle.
    fn timed<R>(&self, point: &str, pod: &PodInfo, call: impl FnOnce(&T) -> R) -> Result<R, Status> {
        if self.own {
            return self.call(point, call);
        }
        let began = Instant::now();
        let answer = self.call(point, call);
        let took = began.elapsed();
        if took > SLOW_PLUGIN {
            tracing::warn!(
                plugin = self.name, point, pod = %pod.name, namespace = %pod.namespace, ?took, "slow plugin"
            );
        }
        answer
    }
}

/// Of two results that are the same in kind.
fn either<T>(result: Result<T, T>) -> T {
    result.unwrap_or_else(|other| other)
}

impl<T: ?Sized + Plugin> Plugin for Guarded<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        self.call("QueueingHint", |plugin| plugin.hint(pod, event)).unwrap_or(Hint::Queue)
    }
}

impl QueueSort for Guarded<dyn QueueSort> {
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        self.call("QueueSort", |plugin| plugin.less(a, b)).unwrap_or_else(|_| PrioritySort.less(a, b))
    }
}

impl PreEnqueue for Guarded<dyn PreEnqueue> {
    fn pre_enqueue(&self, pod: &PodInfo, snapshot: &Snapshot) -> Status {
        either(self.timed("PreEnqueue", pod, |plugin| plugin.pre_enqueue(pod, snapshot)))
    }
}

impl PreFilter for Guarded<dyn PreFilter> {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        self.timed("PreFilter", pod, |plugin| plugin.pre_filter(state, pod, snapshot)).and_then(|answer| answer)
    }

    fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, added: &PodInfo, node: &NodeInfo) {
        if let Err(status) = self.call("AddPod", |plugin| plugin.add_pod(state, pod, added, node)) {
            state.fail(status);
        }
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, removed: &PodInfo, node: &NodeInfo) {
        if let Err(status) = self.call("RemovePod", |plugin| plugin.remove_pod(state, pod, removed, node)) {
            state.fail(status);
        }
    }
}

impl Filter for Guarded<dyn Filter> {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        match state.failure() {
            // What was added to the state or taken from it is not known.
            Some(status) => status.clone(),
            None => either(self.call("Filter", |plugin| plugin.filter(state, pod, node))),
        }
    }

    fn filter_batch(&self, state: &CycleState, pod: &PodInfo, nodes: &mut Candidates<'_>) {
        if let Err(status) = self.timed("Filter", pod, |plugin| plugin.filter_batch(state, pod, nodes)) {
            nodes.fail(status);
        }
    }
}

impl PostFilter for Guarded<dyn PostFilter> {
    fn post_filter(&self, context: &PostFilterContext<'_>) -> Result<(Arc<str>, Vec<Arc<PodInfo>>), Status> {
        self.timed("PostFilter", context.pod, |plugin| plugin.post_filter(context)).and_then(|answer| answer)
    }
}

impl PreScore for Guarded<dyn PreScore> {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, nodes: &[NodeIndex]) -> Status {
        either(self.timed("PreScore", pod, |plugin| plugin.pre_score(state, pod, snapshot, nodes)))
    }
}

impl Score for Guarded<dyn Score> {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        self.call("Score", |plugin| plugin.score(state, pod, node)).and_then(|answer| answer)
    }

    fn score_batch(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        self.timed("Score", pod, |plugin| plugin.score_batch(state, pod, snapshot, scores)).and_then(|answer| answer)
    }

    fn normalize(&self, state: &CycleState, pod: &PodInfo, scores: &mut [NodeScore]) -> Result<(), Status> {
        self.timed("NormalizeScore", pod, |plugin| plugin.normalize(state, pod, scores)).and_then(|answer| answer)
    }
}

impl Reserve for Guarded<dyn Reserve> {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Status {
        either(self.timed("Reserve", pod, |plugin| plugin.reserve(state, pod, node)))
    }

    fn unreserve(&self, state: &CycleState, pod: &PodInfo, node: &str) {
        // It was told; the others take back what they noted all the same.
        let _ = self.timed("Unreserve", pod, |plugin| plugin.unreserve(state, pod, node));
    }
}

impl Permit for Guarded<dyn Permit> {
    fn permit(&self, state: &CycleState, pod: &PodInfo, node: &str) -> PermitAnswer {
        self.timed("Permit", pod, |plugin| plugin.permit(state, pod, node)).unwrap_or_else(PermitAnswer::Deny)
    }
}

#[async_trait]
impl PreBind for Guarded<dyn PreBind> {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        let answer = AssertUnwindSafe(self.plugin.pre_bind(context)).catch_unwind().await;
        answer.unwrap_or_else(|panic| self.panicked("PreBind", &*panic))
    }
}

#[async_trait]
impl Bind for Guarded<dyn Bind> {
    async fn bind(&self, context: &BindContext<'_>) -> Status {
        let answer = AssertUnwindSafe(self.plugin.bind(context)).catch_unwind().await;
        answer.unwrap_or_else(|panic| self.panicked("Bind", &*panic))
    }
}

#[async_trait]
impl PostBind for Guarded<dyn PostBind> {
    async fn post_bind(&self, context: &BindContext<'_>) {
        if let Err(panic) = AssertUnwindSafe(self.plugin.post_bind(context)).catch_unwind().await {
            // The pod is bound.
            self.panicked("PostBind", &*panic);
        }
    }
}
