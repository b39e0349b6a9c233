//! The etcd v3 API (feature `etcd`): etcd's clients and tools on any [`Store`](crate::Store).
//!
//! ```text
//! socket ─► listen: TLS, HTTP/1 and 2 ─► service: by path ─┬─► kv ─► convert ─► Store
//!                                                          └─► watch
//! ```

mod alone;
mod convert;
mod grpc;
mod kv;
mod listen;
#[allow(missing_docs, clippy::all)]
pub mod proto;
mod service;
mod status;
mod watch;

pub use self::{
    alone::Standalone,
    grpc::Body,
    service::{EtcdServer, ServerOptions},
};
