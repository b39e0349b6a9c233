//! The Kubernetes object model and client contract, and the API server that serves them.
//!
//! - [`Object`]: one version of one object: its canonical JSON, its parsed metadata, and its typed
//!   form, decoded at most once however many readers want it.
//! - [`Resource`]: which collection of which API an object belongs to.
//! - [`Client`]: the contract of anything that answers Kubernetes' API verbs: the server in this
//!   process, or (feature `remote`) any API server over HTTP. [`Api`] is its typed face.
//! - [`Informer`]: a shared, always current copy of a collection.
//! - `cel` (feature): expressions of the Common Expression Language, and those that select devices.
//! - `server` (feature): the API server, a `tower::Service`; `serve` puts hyper and rustls around it.
//! - `testing` (feature): the conformance suites of [`Client`] and of the server's contracts, and a control plane for tests.
//!
//! A control plane inside a program, with no socket and no second process:
//!
//! ```
//! # #[cfg(feature = "server")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::{collections::BTreeMap, sync::Arc};
//!
//! use rk_api::{
//!     Api, ListOptions,
//!     k8s_openapi::api::core::v1::ConfigMap,
//!     server::{Server, UserInfo},
//! };
//! use rk_store::MemoryStore;
//!
//! let server = Server::builder(Arc::new(MemoryStore::new())).build().await?;
//! let config_maps = Api::<ConfigMap>::namespaced(server.client(UserInfo::loopback()), "default");
//!
//! let mut settings = ConfigMap::default();
//! settings.metadata.name = Some("settings".to_owned());
//! settings.data = Some(BTreeMap::from([("colour".to_owned(), "blue".to_owned())]));
//! config_maps.create(&settings).await?;
//!
//! let list = config_maps.list(ListOptions::default()).await?;
//! assert_eq!(list.items[0].data.as_ref().unwrap()["colour"], "blue");
//! # Ok::<(), rk_api::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg_attr(not(feature = "cel"), allow(dead_code))]
mod addresses;
#[cfg(feature = "cel")]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub mod cel;
mod client;
mod clock;
mod error;
#[cfg(feature = "cel")]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
mod formats;
#[cfg(feature = "cel")]
#[cfg_attr(not(feature = "server"), allow(dead_code))]
mod names;
mod object;
mod quantity;
pub mod quota;
mod resource;
mod selector;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;
mod tree;

pub use addresses::{Network, NetworkError};
pub use client::*;
pub use clock::{Clock, now};
pub use error::{Error, StatusExt, status};
pub use object::{Meta, Object, OwnerRef};
pub use quantity::{Quantity, QuantityError, QuantityFormat};
pub use resource::{Resource, ResourceType, Scope};
pub use selector::{FieldSelector, LabelSelector, Requirement, SelectorError};

pub use k8s_openapi;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
