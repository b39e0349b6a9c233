//! The binding cycle of a placed pod.

use std::sync::Arc;

use rk_api::{Client, EventRecorder};

use super::Placement;
use crate::framework::{BindContext, Status};

impl Placement {
    fn context<'a>(&'a self, client: &'a Arc<dyn Client>, events: &'a EventRecorder) -> BindContext<'a> {
        BindContext { client, events, state: &self.state, pod: &self.pod, node: &self.node }
    }

    /// Runs PreBind and Bind, for a pod that is not held back (any more). Anything but success means that it does not get to its node: then
    /// [`Placement::unreserve`] is next.
    pub async fn bind(&self, client: &Arc<dyn Client>, events: &EventRecorder) -> Status {
        let context = self.context(client, events);
        for plugin in self.profile.enabled().iter().filter_map(|enabled| enabled.points.pre_bind.as_ref()) {
            let status = plugin.pre_bind(&context).await;
            if !status.is_success() && !status.is_skip() {
                return status.failed_at("PreBind", plugin.name());
            }
        }
        match self.by_extender().await {
            Some(bound) => bound,
            None => self.by_plugin(&context).await,
        }
    }

    /// Runs PostBind, for a pod that was bound.
    pub async fn post_bind(&self, client: &Arc<dyn Client>, events: &EventRecorder) {
        let context = self.context(client, events);
        for plugin in self.profile.enabled().iter().filter_map(|enabled| enabled.points.post_bind.as_ref()) {
            plugin.post_bind(&context).await;
        }
    }

    /// Has an extender bind the pod; `None` if none does (`extendersBinding`).
    async fn by_extender(&self) -> Option<Status> {
        for extender in &self.binders {
            match extender.bind(&self.pod, &self.node).await {
                Ok(()) => return Some(Status::success()),
                Err(error) if extender.is_ignorable() => {
                    tracing::warn!(extender = extender.name(), %error, "extender is left out, as it is ignorable");
                }
                Err(error) => return Some(Status::error(error.to_string())),
            }
        }
        None
    }

    /// Runs the Bind plugins, until one does not leave it to the next.
    async fn by_plugin(&self, context: &BindContext<'_>) -> Status {
        let mut bound = Status::error("no plugin binds pods");
        for plugin in self.profile.enabled().iter().filter_map(|enabled| enabled.points.bind.as_ref()) {
            bound = plugin.bind(context).await;
            if !bound.is_skip() {
                return bound.failed_at("Bind", plugin.name());
            }
        }
        bound
    }
}
