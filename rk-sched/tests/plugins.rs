//! What the default plugins decide, on clusters in memory.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_sched::{
    Profile, Registration,
    framework::{CycleState, Filter, Plugin, PreFilter, Status},
    model::{PodInfo, Snapshot},
    plugins::NodeName,
    simulate::Simulator,
};
use serde_json::{Value, json};

fn node(name: &str, zone: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone},
        },
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    }))
    .unwrap()
}

fn pod(name: &str, app: &str, cpu: &str, spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": "example/web:1", "resources": {"requests": {"cpu": cpu}}}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn cluster(nodes: &[(&str, &str)]) -> Simulator {
    let mut cluster = Simulator::new(Profile::kubernetes("default-scheduler"), 7);
    for (name, zone) in nodes {
        cluster.set_node(node(name, zone));
    }
    cluster
}

fn refusal(cluster: &mut Simulator, pod: Pod) -> String {
    cluster.schedule(pod).unwrap_err().to_string()
}

#[test]
fn spreading_holds_the_skew() {
    let mut cluster = cluster(&[("a1", "a"), ("a2", "a"), ("b1", "b")]);
    let spread = json!({"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]});
    let mut in_b = 0;
    for i in 0..6 {
        let node = cluster.schedule(pod(&i.to_string(), "web", "100m", spread.clone())).unwrap();
        in_b += usize::from(&*node == "b1");
    }
    assert_eq!(in_b, 3, "as many in the zone of one node as in that of two");
    cluster.remove_node("b1");
    cluster.set_node(node("unlabelled", "c"));
    let mut bare = node("bare", "");
    bare.metadata.labels = None;
    cluster.set_node(bare);
    let strict = json!({
        "topologySpreadConstraints": spread["topologySpreadConstraints"],
        "nodeSelector": {"kubernetes.io/hostname": "a1"},
    });
    let said = refusal(&mut cluster, pod("x", "web", "5", strict));
    assert!(said.contains("1 Insufficient cpu, 3 node(s) didn't match Pod's node affinity/selector."), "{said}");
    let mut cluster = self::cluster(&[("a1", "a"), ("b1", "b")]);
    cluster.set_node({
        let mut bare = node("bare", "");
        bare.metadata.labels = None;
        bare
    });
    cluster.schedule(pod("1", "web", "3", spread.clone())).unwrap();
    cluster.schedule(pod("2", "web", "3", spread.clone())).unwrap();
    cluster.schedule(pod("3", "db", "1", json!({"nodeSelector": {"kubernetes.io/hostname": "a1"}}))).unwrap();
    cluster.schedule(pod("4", "web", "1", spread.clone())).unwrap();
    let said = refusal(&mut cluster, pod("5", "web", "1", spread));
    assert!(said.contains("1 node(s) didn't match pod topology spread constraints (missing required label)"), "{said}");
}

#[test]
fn siblings_spread_softly_without_constraints() {
    let mut cluster = cluster(&[("a1", "a"), ("b1", "b"), ("c1", "c")]);
    cluster.snapshot_mut().workloads.set_service("default", "web", Some("app=web".parse().unwrap()));
    // Without the service the emptiest node would win: b1 and c1 are made fuller.
    for (name, host) in [("x", "b1"), ("y", "c1")] {
        cluster
            .schedule(pod(name, "other", "100m", json!({"nodeSelector": {"kubernetes.io/hostname": host}})))
            .unwrap();
    }
    let mut nodes: Vec<String> =
        (0..3).map(|i| cluster.schedule(pod(&i.to_string(), "web", "10m", json!({}))).unwrap().to_string()).collect();
    nodes.sort();
    assert_eq!(nodes, ["a1", "b1", "c1"]);
}

fn affinity(kind: &str, app: &str, key: &str) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": key, "labelSelector": {"matchLabels": {"app": app}},
    }]}}})
}

#[test]
fn pods_are_near_and_far_as_they_ask() {
    let zone = "topology.kubernetes.io/zone";
    let mut cluster = cluster(&[("a1", "a"), ("a2", "a"), ("b1", "b")]);
    cluster.schedule(pod("db", "db", "1", json!({"nodeSelector": {"kubernetes.io/hostname": "a1"}}))).unwrap();
    let near = cluster.schedule(pod("near", "web", "1", affinity("podAffinity", "db", zone))).unwrap();
    assert!(near.starts_with('a'), "{near}");
    let far = cluster.schedule(pod("far", "lone", "1", affinity("podAntiAffinity", "db", zone))).unwrap();
    assert_eq!(&*far, "b1");
    // The term of the pod that is there keeps others out as well.
    let said = refusal(&mut cluster, pod("db2", "db", "1", json!({"nodeSelector": {"kubernetes.io/hostname": "b1"}})));
    assert!(said.contains("1 node(s) didn't satisfy existing pods anti-affinity rules"), "{said}");
    let said = refusal(&mut cluster, pod("nobody", "web", "1", affinity("podAffinity", "nothing", zone)));
    assert!(said.contains("3 node(s) didn't match pod affinity rules."), "{said}");
    // The first of a group that wants to be together may go anywhere.
    cluster.schedule(pod("first", "group", "1", affinity("podAffinity", "group", zone))).unwrap();
}

#[test]
fn one_per_node_fills_all_nodes_then_none() {
    let mut cluster = cluster(&[("a1", "a"), ("a2", "a"), ("b1", "b")]);
    let alone = affinity("podAntiAffinity", "web", "kubernetes.io/hostname");
    for i in 0..3 {
        cluster.schedule(pod(&i.to_string(), "web", "100m", alone.clone())).unwrap();
    }
    let said = refusal(&mut cluster, pod("late", "web", "100m", alone));
    assert!(said.contains("3 node(s) didn't match pod anti-affinity rules."), "{said}");
}

#[test]
fn soft_taints_are_avoided_unless_they_are_tolerated() {
    let tainted = |name: &str, keys: &[&str]| {
        let mut node = node(name, "a");
        let taints: Vec<_> = keys.iter().map(|key| json!({"key": key, "effect": "PreferNoSchedule"})).collect();
        node.spec = serde_json::from_value(json!({"taints": taints})).unwrap();
        node
    };
    let mut cluster = cluster(&[]);
    for node in [tainted("two", &["x", "y"]), tainted("one", &["x"]), tainted("other", &["y", "z"])] {
        cluster.set_node(node);
    }
    let tolerating = |effect: &str| json!({"tolerations": [{"key": "y", "operator": "Exists", "effect": effect}, {"key": "z", "operator": "Exists", "effect": effect}]});
    for i in 0..3 {
        let place = |cluster: &mut Simulator, kind: &str, spec: Value| {
            cluster.schedule(pod(&format!("{kind}-{i}"), "web", "10m", spec)).unwrap().to_string()
        };
        assert_eq!(place(&mut cluster, "plain", json!({})), "one", "the fewest taints");
        assert_eq!(place(&mut cluster, "tolerant", tolerating("PreferNoSchedule")), "other", "none that matters");
        assert_eq!(place(&mut cluster, "any", tolerating("")), "other", "no effect is every effect");
        assert_eq!(place(&mut cluster, "hard", tolerating("NoSchedule")), "one", "it tolerates another effect");
    }
}

#[test]
fn pods_go_where_they_even_out_cpu_and_memory() {
    let mut cluster = cluster(&[("busy-cpu", "a"), ("busy-memory", "a")]);
    let asks = |requests: Value| json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
    for (node, requests) in [("busy-cpu", json!({"cpu": "2"})), ("busy-memory", json!({"memory": "4Gi"}))] {
        let mut filler = asks(requests);
        filler["nodeName"] = json!(node);
        cluster.schedule(pod(node, "filler", "0", filler)).unwrap();
    }
    // Both nodes are as full as the other; what differs is of what.
    let node = cluster.schedule(pod("cpu", "web", "0", asks(json!({"cpu": "1"})))).unwrap();
    assert_eq!(&*node, "busy-memory");
    let node = cluster.schedule(pod("memory", "web", "0", asks(json!({"memory": "2Gi"})))).unwrap();
    assert_eq!(&*node, "busy-cpu");
}

#[test]
fn a_named_node_is_the_only_one() {
    // The simulator puts a pod with a name there unasked, so the plugin is asked by itself.
    let cluster = cluster(&[("a1", "a"), ("b1", "b")]);
    let snapshot = cluster.snapshot();
    let reasons = |spec: Value| {
        let pod = PodInfo::new(Arc::new(pod("x", "web", "1", spec)));
        ["a1", "b1"].map(|name| {
            let node = snapshot.node(snapshot.find(name).unwrap());
            NodeName.filter(&CycleState::default(), &pod, node).message()
        })
    };
    assert_eq!(reasons(json!({"nodeName": "b1"})), ["node(s) didn't match the requested node name", ""]);
    assert_eq!(reasons(json!({})), ["", ""]);
}

#[test]
fn images_draw_pods() {
    let mut cluster = cluster(&[("a1", "a"), ("a2", "a")]);
    let mut has = node("a2", "a");
    has.status.as_mut().unwrap().images =
        serde_json::from_value(json!([{"names": ["example/web:1"], "sizeBytes": 2_000_000_000_i64}])).unwrap();
    cluster.set_node(has);
    for i in 0..3 {
        assert_eq!(&*cluster.schedule(pod(&i.to_string(), "web", "10m", json!({}))).unwrap(), "a2");
    }
}

#[test]
fn the_least_important_pods_go_for_a_more_important_one() {
    let mut cluster = cluster(&[("a1", "a"), ("b1", "b")]);
    for (name, host, priority) in [("low", "a1", 1), ("mid", "b1", 5)] {
        let spec = json!({"priority": priority, "nodeSelector": {"kubernetes.io/hostname": host}});
        cluster.schedule(pod(name, "web", "3", spec)).unwrap();
    }
    let never = json!({"priority": 10, "preemptionPolicy": "Never"});
    assert_eq!(
        refusal(&mut cluster, pod("polite", "web", "3", never)),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
    assert_eq!(
        refusal(&mut cluster, pod("lowest", "web", "3", json!({"priority": 0}))),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims \
         found for incoming pod."
    );
    assert_eq!(
        refusal(&mut cluster, pod("huge", "web", "30", json!({"priority": 10}))),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not \
         helpful for scheduling."
    );
    let node = cluster.schedule(pod("high", "web", "2", json!({"priority": 10}))).unwrap();
    let evicted: Vec<String> = cluster.take_evicted().iter().map(|pod| pod.name.to_string()).collect();
    assert_eq!((&*node, evicted), ("a1", vec!["low".to_owned()]));
}

/// Leaves only one node.
struct Only(&'static str, &'static str);

impl Plugin for Only {
    fn name(&self) -> &'static str {
        self.0
    }
}

impl PreFilter for Only {
    fn pre_filter(&self, _: &mut CycleState, _: &PodInfo, _: &Snapshot) -> Result<Option<Vec<Arc<str>>>, Status> {
        Ok(Some(vec![Arc::from(self.1)]))
    }
}

#[test]
fn plugins_that_leave_no_node_together_are_named() {
    let profile = Profile::kubernetes("default-scheduler")
        .with(Registration::new(Only("Second", "a1")).pre_filter())
        .with(Registration::new(Only("First", "b1")).pre_filter());
    let mut cluster = Simulator::new(profile, 7);
    for (name, zone) in [("a1", "a"), ("b1", "b")] {
        cluster.set_node(node(name, zone));
    }
    assert_eq!(
        refusal(&mut cluster, pod("x", "web", "1", json!({}))),
        "0/2 nodes are available: node(s) didn't satisfy plugin(s) [First Second] simultaneously. preemption: 0/2 nodes \
         are available: 2 Preemption is not helpful for scheduling."
    );
}
