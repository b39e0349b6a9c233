//! Random nodes and pods that use most of what scheduling looks at.

use k8s_openapi::api::core::v1::{Node, Pod};
use rand::{Rng, RngExt};
use serde_json::{Value, json};

pub(super) fn one<'a, T: ?Sized>(random: &mut impl Rng, of: &[&'a T]) -> &'a T {
    of[random.random_range(0..of.len())]
}

const KEYS: [&str; 3] = ["topology.kubernetes.io/zone", "kubernetes.io/hostname", "disk"];
const APPS: [&str; 3] = ["web", "db", "cache"];

/// A node named `node-N` with random labels, taints, capacity and images.
pub fn random_node(random: &mut impl Rng, number: usize) -> Node {
    let name = format!("node-{number}");
    let mut labels = json!({"kubernetes.io/hostname": name});
    if random.random_bool(0.9) {
        labels["topology.kubernetes.io/zone"] = one(random, &["a", "b", "c"]).into();
    }
    if random.random_bool(0.5) {
        labels["disk"] = one(random, &["ssd", "hdd", "7"]).into();
    }
    let mut taints = Vec::new();
    if random.random_bool(0.2) {
        let effect = one(random, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        taints.push(json!({"key": "dedicated", "value": one(random, &["x", "y"]), "effect": effect}));
    }
    let images = [json!({"names": ["registry.example/web:1"], "sizeBytes": 400_000_000})];
    object(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": random.random_bool(0.05)},
        "status": {
            "allocatable": {
                "cpu": random.random_range(1..9).to_string(), "memory": format!("{}Gi", random.random_range(1..17)),
                "pods": random.random_range(3..20).to_string(), "example.com/gpu": random.random_range(0..3).to_string(),
            },
            "images": if random.random_bool(0.5) { &images[..] } else { &[] },
        },
    }))
}

/// A pod named `pod-N` with random requests, priority, ports, tolerations, affinity and spreading.
pub fn random_pod(random: &mut impl Rng, number: usize) -> Pod {
    let app = one(random, &APPS);
    let mut requests = json!({});
    if random.random_bool(0.8) {
        requests["cpu"] = format!("{}m", random.random_range(0..20) * 100).into();
    }
    if random.random_bool(0.8) {
        requests["memory"] = format!("{}Mi", random.random_range(0..40) * 100).into();
    }
    if random.random_bool(0.1) {
        requests["example.com/gpu"] = "1".into();
    }
    let mut container = json!({"name": "c", "image": "registry.example/web:1", "resources": {"requests": requests}});
    if random.random_bool(0.1) {
        container["ports"] = json!([{"containerPort": 80, "hostPort": random.random_range(80..83)}]);
    }
    let mut spec = json!({"containers": [container], "priority": random.random_range(0..4) * 10});
    if random.random_bool(0.3) {
        spec["tolerations"] = json!([{"key": "dedicated", "operator": "Exists"}]);
    }
    if random.random_bool(0.1) {
        spec["nodeSelector"] = json!({"disk": one(random, &["ssd", "hdd"])});
    }
    if random.random_bool(0.4) {
        spec["affinity"] = affinity(random);
    }
    if random.random_bool(0.2) {
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": random.random_range(1..3),
            "topologyKey": one(random, &KEYS),
            "whenUnsatisfiable": one(random, &["DoNotSchedule", "ScheduleAnyway"]),
            "labelSelector": {"matchLabels": {"app": app}},
        }]);
    }
    object(json!({
        "metadata": {
            "name": format!("pod-{number}"), "namespace": one(random, &["default", "other"]),
            "uid": format!("uid-{number}"), "labels": {"app": app},
        },
        "spec": spec,
    }))
}

fn affinity(random: &mut impl Rng) -> Value {
    let term = |random: &mut _| {
        let selector = json!({"matchLabels": {"app": one(random, &APPS)}});
        json!({"topologyKey": one(random, &KEYS), "labelSelector": selector})
    };
    let weighted = |random: &mut _, term: Value| json!({"weight": random_weight(random), "podAffinityTerm": term});
    match random.random_range(0..6) {
        0 => json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(random)]}}),
        1 => json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(random)]}}),
        2 => {
            let term = term(random);
            json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weighted(random, term)]}})
        }
        3 => {
            let term = term(random);
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weighted(random, term)]}})
        }
        kind => {
            let (operator, values) =
                *one(random, &[&("In", &["ssd", "hdd"][..]), &("NotIn", &["hdd"]), &("Exists", &[]), &("Gt", &["3"])]);
            let expression = json!({"key": "disk", "operator": operator, "values": values});
            let term = json!({"matchExpressions": [expression]});
            if kind == 4 {
                json!({"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
                }})
            } else {
                let weight = random_weight(random);
                json!({"nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "preference": term}],
                }})
            }
        }
    }
}

fn random_weight(random: &mut impl Rng) -> i64 {
    random.random_range(1..101)
}

fn object<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("the generator makes objects of the right shape")
}
