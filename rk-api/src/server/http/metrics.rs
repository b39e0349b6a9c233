//! Metrics under Kubernetes' names.

use std::time::Duration;

use http::Method;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{path::ResourcePath, query::Query, resource};
use crate::server::{flow::Gate, storage::Cache};

/// What a request is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    dry_run: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    #[prometheus(flatten)]
    request: Labels,
    component: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stored {
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Held {
    resource: String,
    part: &'static str,
}

impl Labels {
    pub(super) fn of(method: &Method, path: Option<&ResourcePath>, query: &Query) -> Self {
        let none = ResourcePath::default();
        let verb = path.and_then(|path| resource::verb(method, path, query)).unwrap_or(match *method {
            Method::GET => "get",
            _ => "other",
        });
        // kube-apiserver counts these under their methods.
        let verb = match verb {
            "create" => "post",
            "update" => "put",
            other => other,
        };
        let path = path.unwrap_or(&none);
        let scope = match (path.name.is_empty(), path.namespace.is_empty()) {
            _ if path.plural.is_empty() => "",
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        Self {
            verb: verb.to_uppercase(),
            group: path.group.clone(),
            version: path.version.clone(),
            resource: path.plural.clone(),
            subresource: path.subresource.clone(),
            scope,
            dry_run: if query.get("dryRun").is_empty() { "" } else { "All" },
        }
    }
}

/// The server's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Counted, Counter>,
    durations: Family<Labels, Histogram>,
    inflight: Family<Kind, Gauge>,
    long_running: Family<Labels, Gauge>,
    objects: Family<Stored, Gauge>,
    held: Family<Held, Gauge>,
}

/// Upper bounds of the latencies' buckets in seconds, as kube-apiserver has them.
const BUCKETS: [f64; 17] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];

/// A request that is being answered.
pub(super) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Of the server and of what lets requests in.
    pub(crate) fn new(gate: &Gate) -> Self {
        let mut registry = Registry::default();
        gate.register(&mut registry);
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let (inflight, long_running, objects, held) = Default::default();
        registry.register("apiserver_request", "Requests by verb, resource and code", Family::clone(&requests));
        let help = "Response latency in seconds by verb and resource";
        registry.register("apiserver_request_duration_seconds", help, Family::clone(&durations));
        let help = "Requests in progress by kind";
        registry.register("apiserver_current_inflight_requests", help, Family::clone(&inflight));
        registry.register("apiserver_longrunning_requests", "Watches and connections", Family::clone(&long_running));
        registry.register("apiserver_storage_objects", "Stored objects by resource", Family::clone(&objects));
        let help = "Bytes in the watch cache by resource: JSON of current objects and of what only recent changes hold, protobuf forms of both, and indexes";
        registry.register("apiserver_watch_cache_bytes", help, Family::clone(&held));
        Self { registry, requests, durations, inflight, long_running, objects, held }
    }

    /// Notes that a request has begun, until the answer is dropped.
    pub(super) fn start(&self, labels: &Labels, long: bool) -> Running {
        let gauge = if long {
            self.long_running.get_or_create(labels).clone()
        } else {
            let reads = matches!(labels.verb.as_str(), "GET" | "LIST" | "WATCH");
            let kind = Kind { request_kind: if reads { "readOnly" } else { "mutating" } };
            self.inflight.get_or_create(&kind).clone()
        };
        gauge.inc();
        Running(gauge)
    }

    /// Counts an answer.
    pub(super) fn done(&self, labels: Labels, code: u16, took: Duration) {
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        let counted = Counted { request: labels, component: "apiserver", code };
        self.requests.get_or_create(&counted).inc();
    }

    /// All metrics as text.
    pub(super) fn encode(&self, cache: &Cache) -> String {
        for (collection, held) in cache.held() {
            let resource = match collection.split_once('/') {
                Some((group, plural)) => format!("{plural}.{group}"),
                None => collection,
            };
            let number = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
            for (part, bytes) in [
                ("objects", held.object_bytes),
                ("changes", held.change_bytes),
                ("forms", held.form_bytes),
                ("indexes", held.index_bytes),
            ] {
                self.held.get_or_create(&Held { resource: resource.clone(), part }).set(number(bytes));
            }
            self.objects.get_or_create(&Stored { resource }).set(number(held.objects));
        }
        let mut text = String::new();
        // Writing into a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
