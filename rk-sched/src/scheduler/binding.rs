//! The binding cycle of a placed pod, in a task of its own.

use std::sync::Arc;

use rk_api::{Client, EventRecorder, object_reference};
use tokio::sync::mpsc;

use crate::{engine::Placement, framework::Status};

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

    /// Binds the pod and tells of it.
    async fn bind(&self) -> Status {
        let Placement { pod, node, .. } = &self.placement;
        let bound = self.placement.bind(&self.client, &self.events).await;
        if bound.is_success() {
            let message = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
            self.events.normal(&object_reference(&*pod.pod), "Scheduled", message);
            self.placement.post_bind(&self.client, &self.events).await;
        }
        bound
    }
}
