//! The etcd v3 API (feature `etcd`): etcd's clients and tools on any [`Store`](crate::Store), and a store over any etcd cluster.
//!
//! ```text
//! socket ─► listen: TLS, HTTP/1 and 2 ─► service ─┬─► kv, lease, members, maintenance, auth ──┐
//!                                                 ├─► watch, snapshot: streams                ├─► Store, Cluster
//!                                                 ├─► lock, election ─► queue: waiting by keys│
//!                                                 └─► web: health, version, metrics ──────────┘
//! client: EtcdStore ─► any etcd cluster
//! ```
//!
//! - The messages and the client are generated from `proto/`; the server's side of gRPC is the crate's own (`grpc`), which is
//!   leaner. `convert` and `status` hold what both sides know of etcd's messages and errors.
//! - Every answer has etcd's codes and texts; a test sends wrong requests to the real etcd and to this server and compares.
//! - There are no users and roles: the Auth service answers as that of an etcd whose authentication is off and that has none. Such an
//!   etcd would keep those that are added; here adding one is `Unimplemented`.
//! - Snapshots are files of etcd's. [`SnapshotFile`] reads them, for any store that can be restored.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use rk_store::{Member, MemoryStore, etcd::{EtcdServer, ServerOptions, Standalone}};
//!
//! let store = Arc::new(MemoryStore::new());
//! let cluster = Arc::new(Standalone::new(1, Member { id: 1, ..Member::default() }, store.clone()));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:2379").await?;
//! EtcdServer::new(store, cluster, ServerOptions::default()).serve(listener, None).await;
//! # Ok(()) }
//! ```

mod alone;
mod auth;
mod authority;
mod client;
mod convert;
mod election;
mod gate;
mod grpc;
mod kv;
mod lease;
mod listen;
mod lock;
mod maintenance;
mod members;
mod metered;
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
    snapshot::SnapshotFile,
    tls::server_tls,
};
