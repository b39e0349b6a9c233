//! Counters, and the text that Prometheus reads, with etcd's names for the main series
//! (<https://etcd.io/docs/v3.6/metrics/>).

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tonic::Status;

use super::{
    VERSION,
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
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn succeed(&self) {
        self.ok.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, code: tonic::Code) {
        *self.failed.lock().entry(code as i32).or_default() += 1;
    }
}

/// All counts of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    methods: HashMap<&'static str, Method>,
    pub(crate) watch_streams: AtomicU64,
    pub(crate) watchers: AtomicU64,
    pub(crate) events: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(paths: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            methods: paths.into_iter().map(|path| (path, Method::default())).collect(),
            watch_streams: AtomicU64::default(),
            watchers: AtomicU64::default(),
            events: AtomicU64::default(),
        }
    }

    /// The counts of a method by its path, `None` if there is no such method.
    pub(crate) fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }
}

/// One series without labels.
struct Series {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    value: f64,
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Series {
    Series { name, help, kind: "counter", value: value as f64 }
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Series {
    Series { name, help, kind: "gauge", value: value as f64 }
}

impl Shared {
    /// All series as Prometheus' text format.
    pub(crate) async fn metrics_text(&self) -> Result<String, Status> {
        let metrics = &self.metrics;
        let store = self.store.status().await.map_err(status)?;
        let member = self.cluster.member_status().await.map_err(cluster_status)?;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let done = |path| metrics.method(path).map_or(0, |method| load(&method.ok));
        let id = self.cluster.member_id();
        let all = [
            gauge("etcd_server_has_leader", "Whether a leader is known.", member.leader.is_some().into()),
            gauge("etcd_server_is_leader", "Whether this member leads.", (member.leader == Some(id)).into()),
            gauge("etcd_server_is_learner", "Whether this member has no vote.", member.is_learner.into()),
            gauge("etcd_server_proposals_committed_total", "Raft proposals committed.", member.index),
            gauge("etcd_server_proposals_applied_total", "Raft proposals applied.", member.applied),
            gauge("etcd_server_quota_backend_bytes", "The quota in bytes.", self.options.quota_bytes),
            gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes on disk.", member.size),
            gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes on disk in use.", member.size_in_use),
            gauge("etcd_debugging_mvcc_keys_total", "Keys.", store.keys),
            gauge("etcd_debugging_mvcc_current_revision", "The revision.", store.revision),
            gauge("etcd_debugging_mvcc_compact_revision", "The compact revision.", store.compact_revision),
            gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.", load(&metrics.watch_streams)),
            gauge("etcd_debugging_mvcc_watcher_total", "Watches.", load(&metrics.watchers)),
            counter("etcd_debugging_mvcc_events_total", "Events sent.", load(&metrics.events)),
            counter("etcd_mvcc_range_total", "Range requests done.", done("/etcdserverpb.KV/Range")),
            counter("etcd_mvcc_put_total", "Put requests done.", done("/etcdserverpb.KV/Put")),
            counter("etcd_mvcc_delete_total", "Delete requests done.", done("/etcdserverpb.KV/DeleteRange")),
            counter("etcd_mvcc_txn_total", "Txn requests done.", done("/etcdserverpb.KV/Txn")),
        ];
        let mut out = String::new();
        for Series { name, help, kind, value } in all.into_iter().chain(process()) {
            // Writing to a string does not fail.
            let _ok = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let _ok = writeln!(
            out,
            "# HELP etcd_server_version The version.\n# TYPE etcd_server_version gauge\n\
             etcd_server_version{{server_version=\"{VERSION}\"}} 1\n\
             # HELP etcd_server_id The member's id.\n# TYPE etcd_server_id gauge\n\
             etcd_server_id{{server_id=\"{id:x}\"}} 1"
        );
        metrics.write_methods(&mut out);
        Ok(out)
    }
}

impl Metrics {
    fn write_methods(&self, out: &mut String) {
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
        out.push_str("# HELP grpc_server_started_total RPCs begun.\n# TYPE grpc_server_started_total counter\n");
        for (path, method) in &methods {
            let started = method.started.load(Ordering::Relaxed);
            let _ok = writeln!(out, "grpc_server_started_total{{{}}} {started}", labels(path));
        }
        out.push_str("# HELP grpc_server_handled_total RPCs answered.\n# TYPE grpc_server_handled_total counter\n");
        for (path, method) in &methods {
            let ok = (tonic::Code::Ok as i32, method.ok.load(Ordering::Relaxed));
            let failed: Vec<_> = method.failed.lock().iter().map(|(code, count)| (*code, *count)).collect();
            for (code, count) in std::iter::once(ok).chain(failed) {
                let code = tonic::Code::from(code);
                let labels = labels(path);
                let _ok = writeln!(out, "grpc_server_handled_total{{grpc_code=\"{code:?}\",{labels}}} {count}");
            }
        }
    }
}

/// What the system tells of this process; nothing where it has no `/proc`.
fn process() -> Vec<Series> {
    let mut all = Vec::new();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some((_, fields)) = stat.rsplit_once(')')
    {
        let fields: Vec<_> = fields.split_whitespace().collect();
        // Ticks of 10 ms and pages of 4 KiB: what Linux has on the machines this is built for.
        if let (Some(user), Some(system)) = (number(fields.get(11).copied()), number(fields.get(12).copied())) {
            all.push(Series {
                name: "process_cpu_seconds_total",
                help: "CPU time in seconds.",
                kind: "counter",
                value: (user + system) as f64 / 100.0,
            });
        }
        if let Some(pages) = number(fields.get(21).copied()) {
            all.push(gauge("process_resident_memory_bytes", "Resident memory in bytes.", pages * 4096));
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        all.push(gauge("process_open_fds", "Open file descriptors.", open.count() as u64));
    }
    all
}
