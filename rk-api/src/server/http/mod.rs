//! The server as a `tower::Service` of HTTP requests, with or without a socket in front of it.
//!
//! ```text
//! request -> path, query, who asks -> pipeline -> object, list or events -> the form the client takes
//! ```
//! Paths that are no resources (`/api`, `/version`, `/readyz`, `/metrics`, ...) are answered here too.

#[cfg(feature = "serve")]
mod aggregated;
mod answer;
mod audited;
mod body;
#[cfg(feature = "serve")]
mod connect;
mod deadline;
mod discovery;
mod health;
mod identity;
mod impersonation;
mod list;
mod metrics;
mod negotiate;
mod openapi;
mod panicking;
mod path;
mod query;
mod resource;
mod seated;
mod service;
#[cfg(feature = "serve")]
mod shell;
mod table;
#[cfg(feature = "serve")]
mod tls;
mod watch;

pub use body::Body;
#[cfg(feature = "serve")]
pub use connect::KubeletClient;
#[cfg(feature = "serve")]
pub(crate) use connect::Reach;
pub(crate) use discovery::{Documents, body_of};
pub use identity::ClientCertificate;
use identity::Peer;
#[cfg(feature = "serve")]
pub(crate) use identity::drop_headers;
pub(crate) use metrics::Metrics;
#[cfg(feature = "serve")]
pub(crate) use path::unescape;
pub use service::HttpService;
#[cfg(feature = "serve")]
pub use shell::serve;
#[cfg(feature = "serve")]
pub(crate) use tls::roots;
#[cfg(feature = "serve")]
pub use tls::{Tls, TlsError, TlsFiles, tls_config};
