//! Service proxying: services and endpoint slices into a backend's rules, and ingress.
//!
//! - [`ServiceProxy`]: watches services and endpoint slices and tells a backend what changed.
//! - [`ProxyBackend`]: the contract of what makes service addresses lead to endpoints; its conformance suite is in
//!   `testing` (feature).
//! - [`userspace`] (feature): the backend that forwards through this process and needs no privileges.
//! - [`ingress`] (feature): the HTTP router for Ingress objects.
//! - [`LoadBalancers`]: addresses for services of type LoadBalancer.
//!
//! A backend can be used by itself:
//! ```
//! # #[cfg(feature = "userspace")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::sync::Arc;
//!
//! use rk_proxy::{
//!     Endpoint, PortKey, Protocol, ProxyBackend, ServiceChange, ServiceKey, ServicePort,
//!     userspace::{Userspace, UserspaceConfig},
//! };
//!
//! let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let endpoint =
//!     Endpoint { address: server.local_addr()?, ready: true, serving: true, terminating: false, node: None };
//! let port = ServicePort {
//!     key: PortKey { service: ServiceKey::new("default", "web"), port: "".into(), protocol: Protocol::Tcp },
//!     uid: "".into(),
//!     cluster_ips: vec!["127.71.3.9".parse()?],
//!     external_ips: Vec::new(),
//!     port: 8080,
//!     node_port: None,
//!     affinity: None,
//!     external_local: false,
//!     internal_local: false,
//!     endpoints: vec![endpoint],
//! };
//! let backend = Userspace::new(UserspaceConfig::default());
//! let unserved = backend.apply(ServiceChange { upserts: vec![Arc::new(port)], removals: Vec::new() }).await?;
//! assert!(unserved.is_empty());
//! let client = tokio::net::TcpStream::connect("127.71.3.9:8080").await?;
//! let (_connection, _from) = server.accept().await?;
//! # drop(client);
//! # Ok(())
//! # })
//! # }
//! # #[cfg(not(feature = "userspace"))]
//! # fn main() {}
//! ```

mod backend;
#[cfg(feature = "ingress")]
pub mod ingress;
mod load_balancer;
mod model;
#[cfg(feature = "testing")]
pub mod testing;
mod tracker;
#[cfg(feature = "userspace")]
pub mod userspace;
mod watch;

pub use backend::{BackendError, ProxyBackend, Unserved};
pub use load_balancer::{LoadBalancerConfig, LoadBalancers};
pub use model::{Endpoint, PortKey, Protocol, ServiceChange, ServiceKey, ServicePort, usable};
pub use tracker::{Tracker, service_of};
pub use watch::{ProxyConfig, ServiceProxy};
