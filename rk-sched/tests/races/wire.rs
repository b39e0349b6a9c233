//! The way between a scheduler's bindings and the API: the world decides when a request arrives, whether it does, and whether its answer does.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rk_api::{Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Request, Resource, WatchOptions};
use tokio::sync::oneshot;

/// A request on its way.
pub struct Call {
    pub request: Request,
    pub reply: oneshot::Sender<Result<Arc<Object>, Error>>,
}

/// What the client says where no answer comes.
pub fn silence() -> Error {
    Error::Transport("no answer".to_owned())
}

/// All requests of a scheduler that are on their way, the oldest first.
#[derive(Clone, Default)]
pub struct Wire(pub Arc<Mutex<Vec<Call>>>);

#[async_trait]
impl Client for Wire {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        let (reply, answer) = oneshot::channel();
        self.0.lock().push(Call { request, reply });
        answer.await.unwrap_or_else(|_| Err(silence()))
    }

    async fn list(&self, _: &Resource, _: &str, _: ListOptions) -> Result<List, Error> {
        Err(silence())
    }

    async fn watch(&self, _: &Resource, _: &str, _: WatchOptions) -> Result<EventStream, Error> {
        Err(silence())
    }

    async fn delete_collection(&self, _: &Resource, _: &str, _: DeleteOptions, _: ListOptions) -> Result<(), Error> {
        Err(silence())
    }
}
