//! The HTTP router for Ingress objects.
//!
//! Data flow: informers of Ingresses, Services and EndpointSlices (and the Secrets that Ingresses name) keep a [`Router`]
//! (hosts and paths to backends) and a [`Directory`] (backends to endpoints) up to date; a listener's
//! connections ask both per request and forward to an endpoint directly, not through the service's
//! address.

mod controller;
mod directory;
mod follow;
mod forward;
mod pages;
mod path;
mod router;
mod serve;
mod tls;

pub use controller::{IngressConfig, IngressController};
pub use directory::Directory;
pub use path::{PathMatch, PathRule};
pub use router::{BackendPort, BackendRef, Router};
