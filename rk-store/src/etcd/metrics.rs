//! Counters, and the text that Prometheus reads, with etcd's names for the main series
//! (<https://etcd.io/docs/v3.6/metrics/>).

mod process;
mod text;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use tonic::{Code, Status};

use self::text::Text;
use super::{
    VERSION,
    metered::Meter,
    service::Shared,
    status::{cluster_status, status},
};

/// Counts of one method.
#[derive(Debug, Default)]
pub(crate) struct Method {
    started: AtomicU64,
    ok: AtomicU64,
    /// By gRPC code.
    failed: Mutex<BTreeMap<i32, u64>>,
}

impl Method {
    pub(crate) fn start(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    pub(crate) fn succeed(&self) {
        self.ok.fetch_add(1, Relaxed);
    }

    pub(crate) fn fail(&self, code: Code) {
        *self.failed.lock().entry(code as i32).or_default() += 1;
    }
}

/// All counts of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    methods: HashMap<&'static str, Method>,
    pub(crate) clients: Arc<Meter>,
    pub(crate) watch_streams: AtomicU64,
    pub(crate) watchers: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) healthy: AtomicU64,
    pub(crate) unhealthy: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(paths: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            methods: paths.into_iter().map(|path| (path, Method::default())).collect(),
            clients: Arc::default(),
            watch_streams: AtomicU64::default(),
            watchers: AtomicU64::default(),
            events: AtomicU64::default(),
            healthy: AtomicU64::default(),
            unhealthy: AtomicU64::default(),
        }
    }

    /// The counts of a method by its path, `None` if there is no such method.
    pub(crate) fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// The answers of a method, whose end is counted.
    pub(crate) fn stream<T: 'static>(
        self: &Arc<Self>,
        path: &'static str,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
        Answers { answers: answers.boxed(), metrics: self.clone(), path, ended: false }
    }
}

struct Answers<T> {
    answers: BoxStream<'static, Result<T, Status>>,
    metrics: Arc<Metrics>,
    path: &'static str,
    /// Whether the end was counted.
    ended: bool,
}

impl<T> Answers<T> {
    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true)
            && let Some(method) = self.metrics.method(self.path)
        {
            match code {
                Code::Ok => method.succeed(),
                code => method.fail(code),
            }
        }
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = ready!(self.answers.poll_next_unpin(cx));
        match &answer {
            None => self.end(Code::Ok),
            Some(Err(status)) => self.end(status.code()),
            Some(Ok(_)) => {}
        }
        Poll::Ready(answer)
    }
}

impl<T> Drop for Answers<T> {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

impl Shared {
    /// All series as Prometheus' text format.
    pub(crate) async fn metrics_text(&self) -> Result<String, Status> {
        let metrics = &self.metrics;
        let store = self.store.status().await.map_err(status)?;
        let member = self.cluster.member_status().await.map_err(cluster_status)?;
        let (counts, id) = (self.cluster.counts(), self.cluster.member_id());
        let load = |count: &AtomicU64| count.load(Relaxed);
        let done = |path| metrics.method(path).map_or(0, |method| load(&method.ok));
        let mut out = Text::default();
        out.gauge("etcd_server_has_leader", "Whether a leader is known.", member.leader.is_some().into());
        out.gauge("etcd_server_is_leader", "Whether this member leads.", (member.leader == Some(id)).into());
        out.gauge("etcd_server_is_learner", "Whether this member has no vote.", member.is_learner.into());
        out.counter("etcd_server_leader_changes_seen_total", "Leaders seen.", counts.leader_changes);
        out.gauge("etcd_server_proposals_committed_total", "Raft proposals committed.", member.index);
        out.gauge("etcd_server_proposals_applied_total", "Raft proposals applied.", member.applied);
        out.gauge("etcd_server_proposals_pending", "Proposals that wait.", counts.proposals_pending);
        out.counter("etcd_server_proposals_failed_total", "Proposals that failed.", counts.proposals_failed);
        out.counter("etcd_server_heartbeat_send_failures_total", "Heartbeats sent late.", counts.late_heartbeats);
        out.counter("etcd_server_slow_apply_total", "Applications that took long.", counts.slow_applies);
        out.counter("etcd_server_slow_read_indexes_total", "Reads that waited long for the leader.", counts.slow_reads);
        out.counter("etcd_server_read_indexes_failed_total", "Reads that were given up.", counts.failed_reads);
        out.counter("etcd_server_health_success", "Health checks passed.", load(&metrics.healthy));
        out.counter("etcd_server_health_failures", "Health checks failed.", load(&metrics.unhealthy));
        out.gauge("etcd_server_quota_backend_bytes", "The quota in bytes.", self.options.quota_bytes);
        out.durations("etcd_disk_wal_fsync_duration_seconds", "Syncs of the log.", &counts.log_syncs);
        out.durations("etcd_disk_backend_commit_duration_seconds", "Syncs of the state.", &counts.state_syncs);
        out.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes on disk.", member.size);
        out.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes on disk in use.", member.size_in_use);
        out.gauge("etcd_debugging_mvcc_keys_total", "Keys.", store.keys);
        out.gauge("etcd_debugging_mvcc_current_revision", "The revision.", store.revision);
        out.gauge("etcd_debugging_mvcc_compact_revision", "The compact revision.", store.compact_revision);
        out.gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.", load(&metrics.watch_streams));
        out.gauge("etcd_debugging_mvcc_watcher_total", "Watches.", load(&metrics.watchers));
        out.counter("etcd_debugging_mvcc_events_total", "Events sent.", load(&metrics.events));
        out.counter("etcd_debugging_lease_granted_total", "Leases granted.", done("/etcdserverpb.Lease/LeaseGrant"));
        out.counter("etcd_debugging_lease_revoked_total", "Leases revoked.", done("/etcdserverpb.Lease/LeaseRevoke"));
        out.counter("etcd_mvcc_range_total", "Range requests done.", done("/etcdserverpb.KV/Range"));
        out.counter("etcd_mvcc_put_total", "Put requests done.", done("/etcdserverpb.KV/Put"));
        out.counter("etcd_mvcc_delete_total", "Delete requests done.", done("/etcdserverpb.KV/DeleteRange"));
        out.counter("etcd_mvcc_txn_total", "Txn requests done.", done("/etcdserverpb.KV/Txn"));
        let (received, sent) = (load(&metrics.clients.received), load(&metrics.clients.sent));
        out.counter("etcd_network_client_grpc_received_bytes_total", "Bytes from clients.", received);
        out.counter("etcd_network_client_grpc_sent_bytes_total", "Bytes to clients.", sent);
        let traffic = || counts.traffic.iter();
        let to = traffic().map(|peer| (format!("To=\"{:x}\"", peer.peer), peer.sent));
        out.labelled("counter", "etcd_network_peer_sent_bytes_total", "Bytes to members.", to);
        let from = traffic().map(|peer| (format!("From=\"{:x}\"", peer.peer), peer.received));
        out.labelled("counter", "etcd_network_peer_received_bytes_total", "Bytes from members.", from);
        let failed = traffic().map(|peer| (format!("To=\"{:x}\"", peer.peer), peer.failures));
        out.labelled("counter", "etcd_network_peer_sent_failures_total", "Messages to members that failed.", failed);
        let trips = traffic().map(|peer| (format!("To=\"{:x}\"", peer.peer), &peer.round_trips));
        out.labelled_durations("etcd_network_peer_round_trip_time_seconds", "To a member and back.", trips);
        let active =
            traffic().map(|peer| (format!("Local=\"{id:x}\",Remote=\"{:x}\"", peer.peer), u64::from(peer.connected)));
        out.labelled("gauge", "etcd_network_active_peers", "Members that are connected.", active);
        let minor = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
        let constants = [
            ("etcd_server_version", "The version.", format!("server_version=\"{VERSION}\"")),
            ("etcd_cluster_version", "The cluster's version.", format!("cluster_version=\"{minor}\"")),
            ("etcd_server_id", "The member's id.", format!("server_id=\"{id:x}\"")),
        ];
        for (name, help, label) in constants {
            out.labelled("gauge", name, help, [(label, 1)]);
        }
        process::write(&mut out);
        metrics.write_methods(&mut out);
        Ok(out.finish())
    }
}

impl Metrics {
    fn write_methods(&self, out: &mut Text) {
        let mut methods: Vec<_> = self.methods.iter().collect();
        methods.sort_unstable_by_key(|(path, _)| **path);
        let labels = |path: &str| {
            let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
            let kind = match method {
                "Watch" | "LeaseKeepAlive" => "bidi_stream",
                "Snapshot" | "Observe" => "server_stream",
                _ => "unary",
            };
            format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
        };
        let started = methods.iter().map(|(path, method)| (labels(path), method.started.load(Relaxed)));
        out.labelled("counter", "grpc_server_started_total", "RPCs begun.", started);
        let handled = methods.iter().flat_map(|(path, method)| {
            let failed: Vec<_> = method.failed.lock().iter().map(|(code, count)| (*code, *count)).collect();
            let all = std::iter::once((Code::Ok as i32, method.ok.load(Relaxed))).chain(failed);
            all.map(|(code, count)| (format!("grpc_code=\"{}\",{}", code_name(code.into()), labels(path)), count))
        });
        out.labelled("counter", "grpc_server_handled_total", "RPCs answered.", handled);
    }
}

/// A code as grpc-go spells it.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".into(),
        Code::Cancelled => "Canceled".into(),
        code => format!("{code:?}"),
    }
}
