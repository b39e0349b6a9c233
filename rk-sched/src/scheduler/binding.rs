//! The binding cycle of a placed pod, in a task of its own.

use std::sync::Arc;

use rk_api::{Client, EventRecorder, object_reference};
use tokio::sync::mpsc;

use crate::{
    engine::Placement,
    framework::{BindContext, Profile, Status},
};

/// How a binding cycle ended.
pub(super) struct Outcome {
    pub(super) uid: Arc<str>,
    pub(super) status: Status,
}

pub(super) struct Binding {
    pub(super) client: Arc<dyn Client>,
    pub(super) events: EventRecorder,
    pub(super) placement: Placement,
    pub(super) outcome: mpsc::UnboundedSender<Outcome>,
}

impl Binding {
    pub(super) async fn run(mut self) {
        let status = match self.placement.waited.take() {
            Some(waited) => waited.decided().await,
            None => Status::success(),
        };
        let status = if status.is_success() { self.bind().await } else { status };
        if !status.is_success() {
            self.placement.unreserve();
        }
        let outcome = Outcome { uid: Arc::clone(&self.placement.pod.uid), status };
        // The scheduler that would hear it may have stopped; the API knows it all.
        let _ = self.outcome.send(outcome);
    }

    /// Runs PreBind, Bind and PostBind.
    async fn bind(&self) -> Status {
        let Placement { pod, node, profile, state, .. } = &self.placement;
        let context = BindContext { client: &self.client, events: &self.events, state, pod, node };
        for plugin in profile.enabled().iter().filter_map(|enabled| enabled.points.pre_bind.as_ref()) {
            let status = plugin.pre_bind(&context).await;
            if !status.is_success() && !status.is_skip() {
                return status.from_plugin(plugin.name());
            }
        }
        let bound = match self.by_extender().await {
            Some(bound) => bound,
            None => by_plugin(profile, &context).await,
        };
        if !bound.is_success() {
            return bound;
        }
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
        self.events.normal(&object_reference(&*pod.pod), "Scheduled", message);
        for plugin in profile.enabled().iter().filter_map(|enabled| enabled.points.post_bind.as_ref()) {
            plugin.post_bind(&context).await;
        }
        Status::success()
    }

    /// Has an extender bind the pod; `None` if none does (`extendersBinding`).
    async fn by_extender(&self) -> Option<Status> {
        let Placement { pod, node, binders, .. } = &self.placement;
        for extender in binders {
            match extender.bind(pod, node).await {
                Ok(()) => return Some(Status::success()),
                Err(error) if extender.is_ignorable() => {
                    tracing::warn!(extender = extender.name(), %error, "extender is left out, as it is ignorable");
                }
                Err(error) => return Some(Status::error(error.to_string())),
            }
        }
        None
    }
}

/// Runs the Bind plugins, until one does not leave it to the next.
async fn by_plugin(profile: &Profile, context: &BindContext<'_>) -> Status {
    let mut bound = Status::error("no plugin binds pods");
    for plugin in profile.enabled().iter().filter_map(|enabled| enabled.points.bind.as_ref()) {
        bound = plugin.bind(context).await;
        if !bound.is_skip() {
            return bound.from_plugin(plugin.name());
        }
    }
    bound
}
