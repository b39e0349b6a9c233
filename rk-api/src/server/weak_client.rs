//! A client in the server's own process that does not keep the server: for its own tasks, which end with it.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use super::{Server, UserInfo, pipeline::Core};
use crate::{
    Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Request, Resource, WatchOptions, status,
};

/// Calls the server as itself, as long as it is there.
pub(crate) struct WeakClient(Weak<Core>);

impl WeakClient {
    /// A client of the server whose core this is.
    pub(crate) fn of(core: &Weak<Core>) -> Arc<dyn Client> {
        Arc::new(Self(Weak::clone(core)))
    }

    fn client(&self) -> Result<Arc<dyn Client>, Error> {
        let core = self.0.upgrade().ok_or_else(|| status::unavailable("the server has ended"))?;
        Ok(Server { core }.client(UserInfo::loopback()))
    }
}

#[async_trait]
impl Client for WeakClient {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        self.client()?.request(request).await
    }

    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error> {
        self.client()?.list(resource, namespace, options).await
    }

    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error> {
        self.client()?.watch(resource, namespace, options).await
    }

    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error> {
        self.client()?.delete_collection(resource, namespace, delete, list).await
    }
}
