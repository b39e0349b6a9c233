//! Service proxying: services and endpoint slices into a backend's rules, and ingress.
//!
//! - [`ServiceProxy`]: watches services and endpoint slices and tells a backend what changed.
//! - [`ProxyBackend`]: the contract of what makes service addresses lead to endpoints.
//! - [`userspace`] (feature): the backend that forwards through this process and needs no privileges.
//! - [`ingress`] (feature): the HTTP router for Ingress objects.

mod backend;
#[cfg(feature = "ingress")]
pub mod ingress;
mod model;
mod tracker;
#[cfg(feature = "userspace")]
pub mod userspace;
mod watch;

pub use backend::{BackendError, ProxyBackend, Unserved};
pub use model::{Endpoint, PortKey, Protocol, ServiceChange, ServiceKey, ServicePort, usable};
pub use tracker::{Tracker, service_of};
pub use watch::{ProxyConfig, ServiceProxy};
