//! The server: which request goes to which service.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use tonic::Status;

use super::{
    convert::signed,
    grpc::{self, Body, unary},
    proto::etcdserverpb::ResponseHeader,
    status::status,
    watch,
};
use crate::{Cluster, Revision, Store};

/// What a server allows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Most bytes of a request that changes something: etcd's `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// Most operations in a txn: etcd's `--max-txn-ops`.
    pub max_txn_ops: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { max_request_bytes: crate::MAX_REQUEST_BYTES, max_txn_ops: crate::MAX_TXN_OPS }
    }
}

/// Bytes that a message may be larger than the largest request: etcd's `grpcOverheadBytes`.
const OVERHEAD: usize = 512 << 10;

/// What all services share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) options: ServerOptions,
}

impl Shared {
    /// The header of an answer at a revision.
    pub(crate) fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster.cluster_id(),
            member_id: self.cluster.member_id(),
            revision: signed(revision),
            raft_term: self.cluster.term(),
        }
    }

    /// The header of an answer now.
    pub(crate) async fn header_now(&self) -> Result<ResponseHeader, Status> {
        let revision = self.store.status().await.map_err(status)?.revision;
        Ok(self.header(revision))
    }

    /// Most bytes in a message.
    pub(crate) fn max_message(&self) -> usize {
        self.options.max_request_bytes.saturating_add(OVERHEAD)
    }
}

/// The etcd v3 API over a store. Clones are handles of one server.
#[derive(Clone)]
pub struct EtcdServer {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for EtcdServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdServer").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl EtcdServer {
    /// A server of this store, which is kept by this cluster.
    pub fn new(store: Arc<dyn Store>, cluster: Arc<dyn Cluster>, options: ServerOptions) -> Self {
        Self { shared: Arc::new(Shared { store, cluster, options }) }
    }

    /// Answers a request, gRPC or plain HTTP.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if !is_grpc {
            let mut response = Response::new(Body::plain("404 page not found\n"));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return response;
        }
        let shared = &*self.shared;
        let limit = shared.max_message();
        match request.uri().path() {
            "/etcdserverpb.KV/Range" => unary(request, limit, async |m| shared.range(m).await).await,
            "/etcdserverpb.KV/Put" => unary(request, limit, async |m| shared.put(m).await).await,
            "/etcdserverpb.KV/DeleteRange" => unary(request, limit, async |m| shared.delete_range(m).await).await,
            "/etcdserverpb.KV/Txn" => unary(request, limit, async |m| shared.txn(m).await).await,
            "/etcdserverpb.KV/Compact" => unary(request, limit, async |m| shared.compact(m).await).await,
            "/etcdserverpb.Watch/Watch" => watch::serve(self.shared.clone(), request),
            path => grpc::refusal(&unknown(path)),
        }
    }
}

/// What grpc-go says of a method that is not there.
fn unknown(path: &str) -> Status {
    let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or((path, ""));
    let known = ["KV", "Watch", "Lease", "Cluster", "Maintenance", "Auth"];
    let text = match service.strip_prefix("etcdserverpb.") {
        Some(name) if known.contains(&name) => format!("unknown method {method} for service {service}"),
        _ => format!("unknown service {service}"),
    };
    Status::unimplemented(text)
}
