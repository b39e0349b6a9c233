//! The server: which request goes to which service.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use tonic::Status;

use super::{
    convert::signed,
    election,
    grpc::{self, Body, unary},
    lease,
    metered::Meter,
    metrics::Metrics,
    proto::etcdserverpb::{RangeRequest, ResponseHeader},
    snapshot,
    status::status,
    watch::{self, EncodedEvents},
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
    /// The quota in bytes that is told to clients, 0 for none. It is the store that keeps to it.
    pub quota_bytes: u64,
    /// Where snapshots are written before they are sent; it needs space for all of the store.
    pub snapshot_dir: PathBuf,
    /// Most requests that a connection may have under way: etcd's `--max-concurrent-streams`.
    pub max_concurrent_streams: u32,
    /// Time after which a client that says nothing is asked whether it is still there; zero for never.
    pub keepalive_interval: Duration,
    /// Time in which it must answer that.
    pub keepalive_timeout: Duration,
    /// Time without a leader after which streams end whose clients want one (clientv3's `WithRequireLeader`): with etcd three election
    /// timeouts.
    pub leader_patience: Duration,
    /// Another runtime than the caller's, of one thread, for as many of a listener's connections at a time as each worker of the caller's has;
    /// asked for when there are two. While there is one connection its thread sleeps, where another worker of the same runtime would be woken
    /// for each request.
    pub second_runtime: Option<fn() -> Option<tokio::runtime::Handle>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_request_bytes: crate::MAX_REQUEST_BYTES,
            max_txn_ops: crate::MAX_TXN_OPS,
            quota_bytes: 0,
            snapshot_dir: std::env::temp_dir(),
            max_concurrent_streams: u32::MAX,
            keepalive_interval: Duration::from_secs(2 * 3600),
            keepalive_timeout: Duration::from_secs(20),
            leader_patience: Duration::from_secs(3),
            second_runtime: None,
        }
    }
}

/// Bytes that a message may be larger than the largest request: etcd's `grpcOverheadBytes`.
const OVERHEAD: usize = 512 << 10;

/// What all services share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) options: ServerOptions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<EncodedEvents>,
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

/// Makes the table of unary methods: their paths, and what answers them. What is asked seldom is apart, so that it does not make the
/// future of every request large.
macro_rules! unary_methods {
    (often: $($path:literal $method:ident)* seldom: $($seldom:literal $seldom_method:ident)*) => {
        const UNARY: &[&str] = &[$($path,)* $($seldom),*];

        async fn answer_unary<B>(shared: &Shared, path: &str, request: Request<B>) -> Result<Response<Body>, Status>
        where
            B: http_body::Body<Data = Bytes> + Send + Unpin,
            B::Error: std::fmt::Display,
        {
            let limit = shared.max_message();
            match path {
                $($path => unary(request, limit, async |message| shared.$method(message).await).await,)*
                path => Box::pin(answer_seldom(shared, path, request)).await,
            }
        }

        async fn answer_seldom<B>(shared: &Shared, path: &str, request: Request<B>) -> Result<Response<Body>, Status>
        where
            B: http_body::Body<Data = Bytes> + Send + Unpin,
            B::Error: std::fmt::Display,
        {
            let limit = shared.max_message();
            match path {
                $($seldom => unary(request, limit, async |message| shared.$seldom_method(message).await).await,)*
                path => Err(unknown(path)),
            }
        }
    };
}

unary_methods! {
    often:
    "/etcdserverpb.KV/Put" put
    "/etcdserverpb.KV/DeleteRange" delete_range
    "/etcdserverpb.KV/Txn" txn
    seldom:
    "/etcdserverpb.KV/Compact" compact
    "/etcdserverpb.Lease/LeaseGrant" lease_grant
    "/etcdserverpb.Lease/LeaseRevoke" lease_revoke
    "/etcdserverpb.Lease/LeaseTimeToLive" lease_time_to_live
    "/etcdserverpb.Lease/LeaseLeases" lease_leases
    "/etcdserverpb.Cluster/MemberAdd" member_add
    "/etcdserverpb.Cluster/MemberRemove" member_remove
    "/etcdserverpb.Cluster/MemberUpdate" member_update
    "/etcdserverpb.Cluster/MemberList" member_list
    "/etcdserverpb.Cluster/MemberPromote" member_promote
    "/etcdserverpb.Maintenance/Alarm" alarm
    "/etcdserverpb.Maintenance/Status" status
    "/etcdserverpb.Maintenance/Defragment" defragment
    "/etcdserverpb.Maintenance/Hash" hash
    "/etcdserverpb.Maintenance/HashKV" hash_kv
    "/etcdserverpb.Maintenance/MoveLeader" move_leader
    "/etcdserverpb.Maintenance/Downgrade" downgrade
    "/etcdserverpb.Auth/AuthEnable" auth_enable
    "/etcdserverpb.Auth/AuthDisable" auth_disable
    "/etcdserverpb.Auth/AuthStatus" auth_status
    "/etcdserverpb.Auth/Authenticate" authenticate
    "/etcdserverpb.Auth/UserAdd" user_add
    "/etcdserverpb.Auth/UserGet" user_get
    "/etcdserverpb.Auth/UserList" user_list
    "/etcdserverpb.Auth/UserDelete" user_delete
    "/etcdserverpb.Auth/UserChangePassword" user_change_password
    "/etcdserverpb.Auth/UserGrantRole" user_grant_role
    "/etcdserverpb.Auth/UserRevokeRole" user_revoke_role
    "/etcdserverpb.Auth/RoleAdd" role_add
    "/etcdserverpb.Auth/RoleGet" role_get
    "/etcdserverpb.Auth/RoleList" role_list
    "/etcdserverpb.Auth/RoleDelete" role_delete
    "/etcdserverpb.Auth/RoleGrantPermission" role_grant_permission
    "/etcdserverpb.Auth/RoleRevokePermission" role_revoke_permission
    "/v3lockpb.Lock/Lock" lock
    "/v3lockpb.Lock/Unlock" unlock
    "/v3electionpb.Election/Campaign" campaign
    "/v3electionpb.Election/Proclaim" proclaim
    "/v3electionpb.Election/Leader" leader
    "/v3electionpb.Election/Resign" resign
}

pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(super) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(super) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(super) const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
pub(super) const OBSERVE: &str = "/v3electionpb.Election/Observe";

impl EtcdServer {
    /// A server of this store, which is kept by this cluster.
    pub fn new(store: Arc<dyn Store>, cluster: Arc<dyn Cluster>, options: ServerOptions) -> Self {
        let paths = UNARY.iter().copied().chain([RANGE, WATCH, KEEP_ALIVE, SNAPSHOT, OBSERVE]);
        let metrics = Arc::new(Metrics::new(paths));
        Self { shared: Arc::new(Shared { store, cluster, options, metrics, events: Arc::default() }) }
    }

    /// Answers a request, gRPC or plain HTTP.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let kind = request.headers().get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            return self.shared.web(request.method(), request.uri()).await;
        }
        // A handle of the path: the request goes with its body.
        let uri = request.uri().clone();
        let path = uri.path();
        let Some(method) = self.shared.metrics.method(path) else { return grpc::refusal(&unknown(path)) };
        method.start();
        let admitted = self.shared.admit(path, request.headers());
        let answer = match (admitted, path) {
            (Err(status), _) => Err(status),
            (_, WATCH) => Ok(watch::serve(self.shared.clone(), request)),
            (_, KEEP_ALIVE) => Ok(lease::keep_alive(self.shared.clone(), request)),
            (_, SNAPSHOT) => Box::pin(snapshot::serve(self.shared.clone(), request)).await,
            (_, OBSERVE) => Box::pin(election::observe(self.shared.clone(), request)).await,
            (_, path) => self.answer_one(path, request).await.inspect(|_| method.succeed()),
        };
        answer.unwrap_or_else(|status| {
            method.fail(status.code());
            grpc::refusal(&status)
        })
    }

    pub(super) fn options(&self) -> &ServerOptions {
        &self.shared.options
    }

    /// Where bytes of clients are counted.
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.shared.metrics.clients.clone()
    }

    async fn answer_one<B>(&self, path: &str, request: Request<B>) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        if path == RANGE {
            let request: RangeRequest = grpc::one(request, self.shared.max_message()).await?;
            if !request.serializable {
                self.shared.votes()?;
            }
            return Ok(grpc::ranged(self.shared.range(request).await?));
        }
        answer_unary(&self.shared, path, request).await
    }

    /// Answers a request for health, version or metrics, and no other: for a listener of its own.
    pub async fn handle_web<B>(&self, request: Request<B>) -> Response<Body> {
        self.shared.web(request.method(), request.uri()).await
    }
}

/// What grpc-go says of a method that is not there.
fn unknown(path: &str) -> Status {
    let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or((path, ""));
    let prefix = format!("/{service}/");
    let is_there = UNARY.iter().chain([&WATCH]).any(|path| path.starts_with(&prefix));
    Status::unimplemented(if is_there {
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {service}")
    })
}
