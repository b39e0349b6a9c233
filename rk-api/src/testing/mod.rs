//! For tests: a control plane of the test's own (`TestControlPlane`), and the conformance suites of [`Client`], `Authenticator`,
//! `Authorizer` and `Admit`: whoever implements such a contract runs its suite. All but the one of `Client` need the feature `server`.
//!
//! ```
//! # #[cfg(feature = "server")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::sync::Arc;
//! use rk_api::server::{Server, UserInfo};
//!
//! let server = Server::builder(Arc::new(rk_store::MemoryStore::new())).build().await?;
//! rk_api::testing::client_conformance(server.client(UserInfo::loopback()), "default").await;
//! # Ok::<(), rk_api::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "server")]
mod admission;
#[cfg(feature = "server")]
mod authentication;
#[cfg(feature = "server")]
mod authorization;
#[cfg(feature = "server")]
mod control_plane;
mod verbs;
mod watches;

use std::sync::Arc;

use serde_json::{Value, json};

#[cfg(feature = "server")]
pub use {
    admission::admit_conformance, authentication::authenticator_conformance, authorization::authorizer_conformance,
    control_plane::TestControlPlane,
};

use crate::{Client, DeleteOptions, Error, ListOptions, Object, Request, Resource, Verb, WriteOptions};

/// Checks every guarantee of [`Client`] with ConfigMaps in a namespace that is there and that nobody else uses.
///
/// # Panics
/// A guarantee is broken.
pub async fn client_conformance(client: Arc<dyn Client>, namespace: &str) {
    let suite = Suite { client, namespace: namespace.to_owned() };
    verbs::all(&suite).await;
    watches::all(&suite).await;
    suite.clear().await;
}

/// A client under test, and where it may write.
struct Suite {
    client: Arc<dyn Client>,
    namespace: String,
}

/// The label of all objects that the suite makes.
const LABEL: &str = "rk.dev/conformance";

fn config_maps() -> Resource {
    Resource::new("", "v1", "ConfigMap", "configmaps", true)
}

/// What a list of the suite's own objects asks for.
fn own() -> ListOptions {
    ListOptions::labels(LABEL.parse().expect("a label key is a selector"))
}

impl Suite {
    async fn request(&self, name: &str, verb: Verb) -> Result<Arc<Object>, Error> {
        let request = Request {
            resource: config_maps(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            subresource: String::new(),
            verb,
        };
        self.client.request(request).await
    }

    async fn create(&self, name: &str, value: &str) -> Arc<Object> {
        let created = self.request("", Verb::Create(body(name, value), WriteOptions::default())).await;
        created.unwrap_or_else(|error| panic!("create {name}: {error}"))
    }

    async fn clear(&self) {
        let cleared =
            self.client.delete_collection(&config_maps(), &self.namespace, DeleteOptions::default(), own()).await;
        cleared.unwrap_or_else(|error| panic!("delete the suite's objects: {error}"));
        let left = self.client.list(&config_maps(), &self.namespace, own()).await.expect("list");
        assert!(left.items.is_empty(), "a deleted collection is empty, yet {:?}", left.items);
    }
}

/// A ConfigMap of the suite.
fn body(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {LABEL: value}}, "data": {"value": value}})
}
