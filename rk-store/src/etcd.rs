//! The etcd v3 API (feature `etcd`): etcd's clients and tools on any [`Store`](crate::Store).
//!
//! ```text
//! socket ─► listen: TLS, HTTP/1 and 2 ─► service: by path ─┬─► kv ─► convert ─► Store
//!                                                          └─► watch
//! ```

mod alone;
mod auth;
mod authority;
mod client;
mod convert;
mod election;
mod grpc;
mod kv;
mod lease;
mod listen;
mod lock;
mod maintenance;
mod members;
mod metrics;
#[allow(missing_docs, clippy::all)]
pub mod proto;
mod queue;
mod service;
mod snapshot;
mod status;
mod tls;
mod watch;
mod web;

/// The version of etcd whose API this is.
pub const VERSION: &str = "3.6.0";

pub use self::{
    alone::Standalone,
    client::{EtcdOptions, EtcdStore},
    grpc::Body,
    service::{EtcdServer, ServerOptions},
    tls::server_tls,
};
