//! What node affinity allows, and what it prefers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_sched::{
    Profile,
    model::{NodeAffinity, PodInfo},
    simulate::Simulator,
};
use serde_json::{Value, json};

fn node(name: &str, labels: Value) -> Node {
    let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status})).unwrap()
}

fn pod(name: &str, affinity: Value) -> Pod {
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "10m"}}}]);
    let spec = json!({"containers": containers, "affinity": {"nodeAffinity": affinity}});
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec}))
        .unwrap()
}

fn required(terms: &Value) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}})
}

fn affinity(terms: &Value) -> NodeAffinity {
    PodInfo::new(std::sync::Arc::new(pod("x", required(terms)))).node_affinity.clone()
}

fn cluster(nodes: &[Node]) -> Simulator {
    let mut cluster = Simulator::new(Profile::kubernetes("default-scheduler"), 7);
    for node in nodes {
        cluster.set_node(node.clone());
    }
    cluster
}

fn label(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

fn name(operator: &str, values: &[&str]) -> Value {
    json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": values}]})
}

#[test]
fn each_operator_allows_what_it_says() {
    let labels = [("disk", "ssd"), ("size", "9"), ("empty", "")];
    let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let both = |mut a: Value, b: &Value| {
        a.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
        a
    };
    for (terms, allowed) in [
        (json!([label("disk", "In", &["hdd", "ssd"])]), true),
        (json!([label("disk", "In", &["hdd"])]), false),
        (json!([label("none", "In", &["ssd"])]), false),
        (json!([label("disk", "NotIn", &["hdd"])]), true),
        (json!([label("disk", "NotIn", &["ssd"])]), false),
        (json!([label("none", "NotIn", &["ssd"])]), true),
        (json!([label("empty", "Exists", &[])]), true),
        (json!([label("none", "Exists", &[])]), false),
        (json!([label("none", "DoesNotExist", &[])]), true),
        (json!([label("empty", "DoesNotExist", &[])]), false),
        (json!([label("size", "Gt", &["8"])]), true),
        (json!([label("size", "Gt", &["9"])]), false),
        (json!([label("size", "Gt", &["10"])]), false),
        (json!([label("size", "Lt", &["10"])]), true),
        (json!([label("size", "Lt", &["9"])]), false),
        (json!([label("disk", "Gt", &["1"])]), false),
        (json!([label("none", "Lt", &["1"])]), false),
        (json!([name("In", &["a", "b"])]), true),
        (json!([name("In", &["b"])]), false),
        (json!([name("NotIn", &["b"])]), true),
        (json!([name("NotIn", &["a", "b"])]), false),
        // All of a term, one of the terms; a term that is empty or can't be read matches nothing.
        (json!([both(label("disk", "In", &["ssd"]), &name("In", &["b"]))]), false),
        (json!([label("disk", "In", &["hdd"]), name("In", &["a"])]), true),
        (json!([{}]), false),
        (json!([]), false),
        (json!([{}, label("disk", "Exists", &[])]), true),
        (json!([label("size", "Gt", &["x"])]), false),
        (json!([label("disk", "Like", &["ssd"])]), false),
        (json!([{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}]), false),
    ] {
        assert_eq!(affinity(&terms).allows("a", &labels), allowed, "{terms}");
    }
}

#[test]
fn names_narrow_the_nodes_only_if_every_term_has_some() {
    let narrowed = |terms: &Value| {
        affinity(terms).only_names().map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    for (terms, names) in [
        (json!([name("In", &["a", "b"])]), Some(vec!["a", "b"])),
        (json!([name("In", &["a"]), name("In", &["b"])]), Some(vec!["a", "b"])),
        (json!([name("In", &["a"]), label("disk", "Exists", &[])]), None),
        (json!([name("NotIn", &["a"])]), None),
        (json!([]), None),
    ] {
        let names = names.map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(narrowed(&terms), names, "{terms}");
    }
    let field = |name: &str| json!({"key": "metadata.name", "operator": "In", "values": [name]});
    let conflict = json!([{"matchFields": [field("a"), field("b")]}]);
    assert_eq!(narrowed(&conflict), Some(Vec::new()), "no node has two names");
}

#[test]
fn required_node_affinity_keeps_pods_from_the_other_nodes() {
    let nodes = [
        node("ssd", json!({"disk": "ssd", "size": "9"})),
        node("hdd", json!({"disk": "hdd", "size": "4"})),
        node("bare", json!({})),
    ];
    for (terms, expected) in [
        (json!([label("disk", "In", &["ssd"])]), vec!["ssd"]),
        (json!([label("disk", "NotIn", &["ssd"])]), vec!["hdd", "bare"]),
        (json!([label("disk", "Exists", &[])]), vec!["ssd", "hdd"]),
        (json!([label("disk", "DoesNotExist", &[])]), vec!["bare"]),
        (json!([label("size", "Gt", &["5"])]), vec!["ssd"]),
        (json!([label("size", "Lt", &["5"])]), vec!["hdd"]),
        (json!([name("In", &["bare"])]), vec!["bare"]),
        (json!([name("NotIn", &["bare"])]), vec!["ssd", "hdd"]),
        (json!([{}]), vec![]),
    ] {
        let allowed = |node: &&Node| cluster(std::slice::from_ref(*node)).schedule(pod("x", required(&terms))).is_ok();
        let allowed: Vec<_> = nodes.iter().filter(allowed).map(|node| node.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(allowed, expected, "{terms}");
    }
    let refusal = |terms: Value| cluster(&nodes).schedule(pod("x", required(&terms))).unwrap_err().to_string();
    let said = refusal(json!([label("disk", "In", &["tape"])]));
    assert!(said.contains("3 node(s) didn't match Pod's node affinity/selector."), "{said}");
    let conflict =
        json!([{"matchFields": [name("In", &["ssd"])["matchFields"][0], name("In", &["hdd"])["matchFields"][0]]}]);
    let said = refusal(conflict);
    assert!(said.contains("pod affinity terms conflict"), "{said}");
}

#[test]
fn the_heavier_of_the_preferred_terms_wins() {
    let mut cluster = cluster(&[
        node("ssd", json!({"disk": "ssd"})),
        node("near", json!({"rack": "near"})),
        node("both", json!({"disk": "ssd", "rack": "near"})),
        node("bare", json!({})),
    ]);
    let term = |weight: i32, key: &str, value: &str| {
        json!({"weight": weight, "preference": {
            "matchExpressions": [{"key": key, "operator": "In", "values": [value]}],
        }})
    };
    let preferred = |terms: Value| json!({"preferredDuringSchedulingIgnoredDuringExecution": terms});
    let (disk, rack) = (|weight| term(weight, "disk", "ssd"), |weight| term(weight, "rack", "near"));
    // Of several that suit, the sum of the weights decides; one that none suits is only the last choice.
    for (removed, disk_weight, rack_weight, expected) in
        [(None, 1, 1, "both"), (Some("both"), 80, 20, "ssd"), (None, 20, 80, "near"), (Some("near"), 20, 80, "ssd")]
    {
        if let Some(name) = removed {
            cluster.remove_node(name);
        }
        let spec = preferred(json!([disk(disk_weight), rack(rack_weight)]));
        for i in 0..3 {
            let node = cluster.schedule(pod(&format!("{expected}-{i}"), spec.clone())).unwrap();
            assert_eq!(&*node, expected, "disk {disk_weight}, rack {rack_weight}, without {removed:?}");
        }
    }
    cluster.remove_node("ssd");
    assert_eq!(&*cluster.schedule(pod("late", preferred(json!([disk(1)])))).unwrap(), "bare");
}
