//! The Kubernetes object model and client contract, and the API server that serves them.
//!
//! - [`Object`]: one version of one object: its canonical JSON, its parsed metadata, and its typed
//!   form, decoded at most once however many readers want it.
//! - [`Resource`]: which collection of which API an object belongs to.
//! - [`Client`]: the contract of anything that answers Kubernetes' API verbs: the server in this
//!   process, or (feature `remote`) any API server over HTTP. [`Api`] is its typed face.
//! - [`Quantity`]: amounts of resources, in exact arithmetic.
//! - [`Informer`]: a shared, always current copy of a collection.
//! - [`EventRecorder`]: tells people what happens to an object.
//! - `server` (feature): the API server, a `tower::Service`.

mod client;
mod clock;
mod error;
mod object;
mod quantity;
mod resource;
mod selector;
#[cfg(feature = "server")]
pub mod server;

pub use client::*;
pub use clock::now;
pub use error::{Error, StatusExt, status};
pub use object::{Meta, Object, OwnerRef};
pub use quantity::{Quantity, QuantityError, QuantityFormat};
pub use resource::{Resource, ResourceType, Scope};
pub use selector::{FieldSelector, LabelSelector, Requirement, SelectorError};

pub use k8s_openapi;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
