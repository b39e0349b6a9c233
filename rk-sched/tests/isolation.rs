//! Plugins that panic or are slow, and enormous specs, don't stop the scheduler.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use cluster::{Cluster, bound, unscheduled};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    framework::{
        Bind, BindContext, ClusterEvent, CycleState, Filter, Hint, NodeScore, Permit, PermitAnswer, Plugin, PostBind,
        PostFilter, PostFilterContext, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score, Status,
    },
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
    plugins::{DefaultBinder, DefaultPreemption},
    queue::QueuedPod,
    simulate::Simulator,
};
use serde_json::{Value, json};

/// Panics at one extension point, for pods that are called `victim`, so many times.
struct Panicking {
    at: &'static str,
    left: AtomicUsize,
}

impl Panicking {
    fn at(at: &'static str, times: usize) -> Self {
        Self { at, left: AtomicUsize::new(times) }
    }

    fn reach(&self, point: &str, pod: &PodInfo) {
        let concerned = self.at == point && pod.name.starts_with("victim");
        let take = |left: usize| left.checked_sub(1);
        assert!(
            !concerned || self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err(),
            "no luck with {}",
            pod.name
        );
    }

    /// At all points.
    fn register(self) -> Registration<Self> {
        Registration::new(self)
            .pre_enqueue()
            .queue_sort()
            .pre_filter()
            .filter()
            .post_filter()
            .pre_score()
            .score(1)
            .reserve()
            .permit()
            .pre_bind()
            .bind()
            .post_bind()
    }
}

impl Plugin for Panicking {
    fn name(&self) -> &'static str {
        "Panicking"
    }

    fn hint(&self, pod: &PodInfo, _: &ClusterEvent) -> Hint {
        self.reach("hint", pod);
        Hint::Queue
    }
}

impl QueueSort for Panicking {
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        self.reach("less", &a.pod);
        a.since < b.since
    }
}

impl PreEnqueue for Panicking {
    fn pre_enqueue(&self, pod: &PodInfo, _: &Snapshot) -> Status {
        self.reach("PreEnqueue", pod);
        Status::success()
    }
}

impl PreFilter for Panicking {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<Option<Vec<Arc<str>>>, Status> {
        self.reach("PreFilter", pod);
        Ok(None)
    }

    fn remove_pod(&self, _: &mut CycleState, pod: &PodInfo, _: &PodInfo, _: &NodeInfo) {
        self.reach("RemovePod", pod);
    }
}

impl Filter for Panicking {
    fn filter(&self, _: &CycleState, pod: &PodInfo, _: &NodeInfo) -> Status {
        self.reach("Filter", pod);
        if pod.name.contains("unwelcome") { Status::unschedulable("unwelcome") } else { Status::success() }
    }
}

impl PostFilter for Panicking {
    fn post_filter(&self, context: &PostFilterContext<'_>) -> Result<(Arc<str>, Vec<Arc<PodInfo>>), Status> {
        self.reach("PostFilter", context.pod);
        Err(Status::unschedulable(""))
    }
}

impl PreScore for Panicking {
    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot, _: &[NodeIndex]) -> Status {
        self.reach("PreScore", pod);
        Status::success()
    }
}

impl Score for Panicking {
    fn score(&self, _: &CycleState, pod: &PodInfo, _: &NodeInfo) -> Result<i64, Status> {
        self.reach("Score", pod);
        Ok(0)
    }

    fn normalize(&self, _: &CycleState, pod: &PodInfo, _: &mut [NodeScore]) -> Result<(), Status> {
        self.reach("NormalizeScore", pod);
        Ok(())
    }
}

impl Reserve for Panicking {
    fn reserve(&self, _: &mut CycleState, pod: &PodInfo, _: &str) -> Status {
        self.reach("Reserve", pod);
        Status::success()
    }

    fn unreserve(&self, _: &CycleState, pod: &PodInfo, _: &str) {
        self.reach("Unreserve", pod);
    }
}

impl Permit for Panicking {
    fn permit(&self, _: &CycleState, pod: &PodInfo, _: &str) -> PermitAnswer {
        self.reach("Permit", pod);
        PermitAnswer::Allow
    }
}

#[async_trait]
impl PreBind for Panicking {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        tokio::task::yield_now().await;
        self.reach("PreBind", context.pod);
        if self.at == "Unreserve" && context.pod.name.starts_with("victim") && self.left.load(Ordering::SeqCst) > 0 {
            return Status::error("not yet");
        }
        Status::success()
    }
}

#[async_trait]
impl Bind for Panicking {
    async fn bind(&self, context: &BindContext<'_>) -> Status {
        self.reach("Bind", context.pod);
        Status::skip()
    }
}

#[async_trait]
impl PostBind for Panicking {
    async fn post_bind(&self, context: &BindContext<'_>) {
        self.reach("PostBind", context.pod);
    }
}

fn config(profile: Profile) -> SchedulerConfig {
    SchedulerConfig { profiles: vec![profile], seed: Some(1), ..SchedulerConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_the_pods_cycle_and_is_told() {
    let points = ["PreFilter", "Filter", "PreScore", "Score", "NormalizeScore", "Reserve", "Permit", "PreBind", "Bind"];
    for point in points {
        let plugin = Panicking::at(point, 1);
        // It is asked to bind before the one that does.
        let profile = Profile::kubernetes("default-scheduler")
            .without("DefaultBinder")
            .with(plugin.register())
            .with(Registration::new(DefaultBinder).bind());
        let cluster = Cluster::start(config(profile)).await;
        // Room for one of them on each node: what a failed cycle took is given back.
        cluster.node("n1", "1", json!({})).await;
        cluster.node("n2", "1", json!({})).await;
        // Nodes are scored only where there are two of them.
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.pod("victim", "1", json!({})).await;
        let told = cluster.event("victim", "FailedScheduling").await;
        let running = match point {
            "Filter" => "running \"Panicking\" filter plugin".to_owned(),
            "Score" => "running Score plugins: plugin \"Panicking\" failed with".to_owned(),
            "NormalizeScore" => "running Normalize on Score plugins: plugin \"Panicking\" failed with".to_owned(),
            _ => format!("running {point} plugin \"Panicking\""),
        };
        assert_eq!(told, format!("{running}: panicked in {point}: no luck with victim"));
        cluster.pod("other", "1", json!({})).await;
        cluster.node_of("other").await;
        let began = tokio::time::Instant::now();
        cluster.node_of("victim").await;
        assert!(began.elapsed() < Duration::from_secs(10), "{point}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_where_nothing_is_answered_changes_nothing_for_the_pod() {
    for point in ["less", "Unreserve", "PostBind"] {
        let plugin = Panicking::at(point, 1);
        let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler").with(plugin.register()))).await;
        for name in ["victim-1", "victim-2", "victim-3", "other"] {
            cluster.pod(name, "1", json!({})).await;
        }
        cluster.node("n", "4", json!({})).await;
        for name in ["victim-1", "victim-2", "victim-3", "other"] {
            assert_eq!(cluster.node_of(name).await, "n", "{point}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_queue_keeps_the_pod_for_later() {
    let plugin = Panicking::at("PreEnqueue", 1);
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler").with(plugin.register()))).await;
    cluster.pod("victim", "1", json!({})).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // An event brings it back.
    cluster.node("n", "4", json!({})).await;
    assert_eq!(cluster.node_of("victim").await, "n");
}

#[tokio::test(start_paused = true)]
async fn a_panicking_hint_may_always_have_been_yes() {
    let plugin = Panicking::at("hint", usize::MAX);
    let cluster = Cluster::start(config(Profile::kubernetes("default-scheduler").with(plugin.register()))).await;
    cluster.node("n", "1", json!({})).await;
    cluster.pod("victim-unwelcome", "1", json!({})).await;
    cluster.pod_until("victim-unwelcome", |pod| unscheduled(pod).is_some()).await;
    cluster.node("n2", "1", json!({})).await;
    cluster.pod("other", "1", json!({})).await;
    cluster.node_of("other").await;
    assert_eq!(bound(&cluster.pods.get("victim-unwelcome").await.unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn preemption_goes_on_behind_a_panic() {
    for point in ["PostFilter", "RemovePod"] {
        let plugin = Panicking::at(point, 1);
        // Its PostFilter runs before that of preemption.
        let profile = Profile::kubernetes("default-scheduler")
            .without("DefaultPreemption")
            .with(plugin.register())
            .with(Registration::new(DefaultPreemption::default()).post_filter());
        let cluster = Cluster::start(config(profile)).await;
        cluster.node("n", "1", json!({})).await;
        cluster.pod("low", "1", json!({"spec": {"priority": 1}})).await;
        cluster.node_of("low").await;
        cluster.pod("victim", "1", json!({"spec": {"priority": 10}})).await;
        cluster.pod_until("victim", |pod| unscheduled(pod).is_some()).await;
        // Another event has it tried again.
        let taint = json!({"key": "k", "effect": "NoSchedule"});
        cluster.node("n2", "1", json!({"spec": {"taints": [taint]}})).await;
        cluster.pod_until("low", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    }
}

/// Takes its time.
struct Slow(Duration);

impl Plugin for Slow {
    fn name(&self) -> &'static str {
        "Slow"
    }
}

impl Filter for Slow {
    fn filter(&self, _: &CycleState, _: &PodInfo, _: &NodeInfo) -> Status {
        std::thread::sleep(self.0);
        Status::success()
    }
}

/// What was logged, one text per line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn node(name: usize, change: Value) -> Node {
    let mut node = json!({
        "metadata": {"name": format!("n{name}"), "labels": {"kubernetes.io/hostname": format!("n{name}"), "zone": format!("z{}", name % 10)}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    cluster::merge(&mut node, change);
    serde_json::from_value(node).unwrap()
}

fn pod(spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "default", "labels": {"app": "huge"}},
        "spec": {"containers": [{"name": "c"}]},
    });
    cluster::merge(&mut pod, json!({"spec": spec}));
    serde_json::from_value(pod).unwrap()
}

#[test]
fn a_slow_plugin_is_told_by_its_name() {
    let log = |each: Duration| {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let profile = Profile::kubernetes("default-scheduler").with(Registration::new(Slow(each)).filter());
            let mut cluster = Simulator::new(profile, 1);
            (0..20).for_each(|name| cluster.set_node(node(name, json!({}))));
            cluster.schedule(pod(json!({}))).unwrap();
        });
        String::from_utf8(lines.0.lock().clone()).unwrap()
    };
    // It is the sum over the nodes that counts.
    let slow = log(Duration::from_millis(6));
    assert!(slow.contains("slow plugin plugin=\"Slow\" point=\"Filter\" pod=p namespace=default took="), "{slow}");
    assert_eq!(log(Duration::ZERO), "");
}

/// How long the cycle of a pod takes on 300 nodes, which hold 600 pods of 20 apps, and what is said.
fn cycle(spec: Value, change: Value) -> (Duration, Result<String, String>) {
    let mut cluster = Simulator::new(Profile::kubernetes("default-scheduler"), 1);
    for name in 0..300 {
        cluster.set_node(node(name, change.clone()));
        for other in 0..2 {
            let mut other_pod = pod(json!({"nodeName": format!("n{name}")}));
            other_pod.metadata.name = Some(format!("other-{name}-{other}"));
            let app = format!("app-{}", (name * 2 + other) % 20);
            other_pod.metadata.labels = Some([("app".to_owned(), app)].into());
            cluster.schedule(other_pod).unwrap();
        }
    }
    let pod = pod(spec);
    let began = Instant::now();
    let placed = cluster.schedule(pod);
    let took = began.elapsed();
    (took, placed.map(|node| node.to_string()).map_err(|error| error.to_string()))
}

/// A cycle with an enormous spec may take this long in a build without optimisations.
const BOUND: Duration = Duration::from_secs(30);

const MANY: usize = 10_000;

#[test]
fn ten_thousand_tolerations_are_bounded_and_explained() {
    let tolerations: Vec<Value> = (0..MANY)
        .map(|i| json!({"key": format!("k{i}"), "operator": "Equal", "value": "v", "effect": "NoSchedule"}))
        .collect();
    let taints = json!({"spec": {"taints": [
        {"key": "k1", "value": "v", "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"},
        {"key": "preferred", "effect": "PreferNoSchedule"},
    ]}});
    let (took, said) = cycle(json!({"tolerations": tolerations}), taints);
    let said = said.unwrap_err();
    assert!(said.starts_with("0/300 nodes are available: 300 node(s) had untolerated taint(s)."), "{said}");
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn ten_thousand_terms_of_node_affinity_are_bounded_and_explained() {
    let term = |i: usize| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [format!("y{i}")]}]});
    let required: Vec<Value> = (0..MANY).map(term).collect();
    let preferred: Vec<Value> = (0..MANY).map(|i| json!({"weight": 1, "preference": term(i)})).collect();
    let affinity = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": required},
    }});
    let (took, said) = cycle(json!({"affinity": affinity}), json!({}));
    let said = said.unwrap_err();
    assert!(
        said.starts_with("0/300 nodes are available: 300 node(s) didn't match Pod's node affinity/selector."),
        "{said}"
    );
    assert!(took < BOUND, "{took:?}");
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
    let (took, placed) = cycle(json!({"affinity": affinity}), json!({}));
    placed.unwrap();
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn ten_thousand_terms_of_pod_affinity_are_bounded_and_explained() {
    let term = |i: usize| json!({"labelSelector": {"matchLabels": {"app": format!("app-{i}")}}, "topologyKey": "kubernetes.io/hostname"});
    let terms: Vec<Value> = (0..MANY).map(term).collect();
    let weighted: Vec<Value> = (0..MANY).map(|i| json!({"weight": 1, "podAffinityTerm": term(i)})).collect();
    for (kind, said_of) in [("podAffinity", "pod affinity rules"), ("podAntiAffinity", "pod anti-affinity rules")] {
        let affinity = json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
        let (took, said) = cycle(json!({"affinity": affinity}), json!({}));
        let said = said.unwrap_err();
        assert!(said.starts_with(&format!("0/300 nodes are available: 300 node(s) didn't match {said_of}.")), "{said}");
        assert!(took < BOUND, "{kind}: {took:?}");
        let affinity = json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": weighted}});
        let (took, placed) = cycle(json!({"affinity": affinity}), json!({}));
        placed.unwrap();
        assert!(took < BOUND, "preferred {kind}: {took:?}");
    }
}

#[test]
fn ten_thousand_spread_constraints_are_bounded_and_explained() {
    for (when, fits) in [("DoNotSchedule", false), ("ScheduleAnyway", true)] {
        let constraint = |i: usize| {
            let label =
                if i == MANY - 1 { "missing".to_owned() } else { ["zone", "kubernetes.io/hostname"][i % 2].to_owned() };
            json!({
                "maxSkew": i + 1, "topologyKey": label, "whenUnsatisfiable": when,
                "labelSelector": {"matchLabels": {"app": format!("app-{i}")}},
            })
        };
        let constraints: Vec<Value> = (0..MANY).map(constraint).collect();
        let (took, said) = cycle(json!({"topologySpreadConstraints": constraints}), json!({}));
        assert_eq!(said.is_ok(), fits, "{said:?}");
        if let Err(said) = said {
            let expected = "0/300 nodes are available: 300 node(s) didn't match pod topology spread constraints (missing \
                            required label).";
            assert!(said.starts_with(expected), "{said}");
        }
        assert!(took < BOUND, "{when}: {took:?}");
    }
}

#[test]
fn contradictory_specs_are_explained() {
    let both = json!({
        "nodeSelector": {"zone": "z1"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["z1"]}]},
        ]}}},
    });
    let (_, said) = cycle(both, json!({}));
    assert!(said.unwrap_err().contains("300 node(s) didn't match Pod's node affinity/selector"));
    let fields = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n1"]},
            {"key": "metadata.name", "operator": "In", "values": ["n2"]},
        ]}],
    }}}});
    let (_, said) = cycle(fields, json!({}));
    let said = said.unwrap_err();
    assert!(said.starts_with("0/300 nodes are available: pod affinity terms conflict."), "{said}");
}
