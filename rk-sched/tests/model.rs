//! Random operations against a naive model: no node is ever given more than it has, and no pod is refused that fits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use rk_sched::{Profile, simulate::Simulator};
use serde_json::json;

#[derive(Debug, Clone)]
enum Op {
    Schedule { cpu: i64, memory: i64, port: Option<i32>, priority: i32 },
    RemovePod(usize),
    SetNode { number: usize, cpu: i64, memory: i64, pods: i64 },
    RemoveNode(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3000_i64, 0..3000_i64, prop::option::weighted(0.2, 80..82), 0..2).prop_map(
            |(cpu, memory, port, priority)| Op::Schedule { cpu, memory, port, priority }
        ),
        2 => any::<prop::sample::Index>().prop_map(|index| Op::RemovePod(index.index(1 << 16))),
        2 => (0..6_usize, 0..8000_i64, 0..8000_i64, 0..8_i64).prop_map(
            |(number, cpu, memory, pods)| Op::SetNode { number, cpu, memory, pods }
        ),
        1 => (0..6_usize).prop_map(Op::RemoveNode),
    ]
}

/// What a pod holds.
#[derive(Debug, Clone)]
struct Held {
    node: String,
    cpu: i64,
    memory: i64,
    port: Option<i32>,
    priority: i32,
}

#[derive(Default)]
struct Model {
    nodes: BTreeMap<String, (i64, i64, i64)>,
    pods: BTreeMap<String, Held>,
}

impl Model {
    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Held> {
        self.pods.values().filter(move |held| held.node == node)
    }

    fn fits(&self, node: &str, wanted: &Held, above: i32) -> bool {
        let (cpu, memory, pods) = self.nodes[node];
        let stay = || self.on(node).filter(|held| held.priority >= above);
        (wanted.cpu == 0 || stay().map(|held| held.cpu).sum::<i64>() + wanted.cpu <= cpu)
            && (wanted.memory == 0 || stay().map(|held| held.memory).sum::<i64>() + wanted.memory <= memory)
            && (stay().count() as i64) < pods
            && wanted.port.is_none_or(|port| stay().all(|held| held.port != Some(port)))
    }
}

fn node(name: &str, cpu: i64, memory: i64, pods: i64) -> Node {
    let allocatable = json!({"cpu": format!("{cpu}m"), "memory": memory.to_string(), "pods": pods.to_string()});
    serde_json::from_value(json!({"metadata": {"name": name}, "status": {"allocatable": allocatable}})).unwrap()
}

fn pod(name: &str, wanted: &Held) -> Pod {
    let requests = json!({"cpu": format!("{}m", wanted.cpu), "memory": wanted.memory.to_string()});
    let ports = wanted.port.map(|port| json!([{"containerPort": port, "hostPort": port}]));
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "priority": wanted.priority,
            "containers": [{"name": "c", "resources": {"requests": requests}, "ports": ports}],
        },
    }))
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_given_twice_and_nothing_that_fits_is_refused(ops in prop::collection::vec(op(), 1..80), seed: u64) {
        let mut cluster = Simulator::new(Profile::kubernetes("default-scheduler"), seed);
        let mut model = Model::default();
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                Op::Schedule { cpu, memory, port, priority } => {
                    let name = format!("pod-{step}");
                    let mut wanted = Held { node: String::new(), cpu, memory, port, priority };
                    let fitting = model.nodes.keys().any(|node| model.fits(node, &wanted, i32::MIN));
                    let with_room = model.nodes.keys().any(|node| model.fits(node, &wanted, priority));
                    match cluster.schedule(pod(&name, &wanted)) {
                        Ok(node) => {
                            let evicted = cluster.take_evicted();
                            prop_assert!(!fitting || evicted.is_empty(), "evicted although there was room");
                            for gone in evicted {
                                let held = model.pods.remove(gone.uid.as_ref()).unwrap();
                                prop_assert!(held.priority < priority && *held.node == *node);
                            }
                            prop_assert!(model.fits(&node, &wanted, i32::MIN), "given more than there is: {wanted:?}");
                            wanted.node = node.to_string();
                            model.pods.insert(name, wanted);
                        }
                        Err(refused) => prop_assert!(!with_room, "{refused}, although {wanted:?} fits"),
                    }
                }
                Op::RemovePod(index) => {
                    if let Some(name) = model.pods.keys().nth(index % model.pods.len().max(1)).cloned() {
                        model.pods.remove(&name);
                        prop_assert!(cluster.remove_pod(&name).is_some());
                    }
                }
                Op::SetNode { number, cpu, memory, pods } => {
                    let name = format!("node-{number}");
                    cluster.set_node(node(&name, cpu, memory, pods));
                    model.nodes.insert(name, (cpu, memory, pods));
                }
                Op::RemoveNode(number) => {
                    let name = format!("node-{number}");
                    cluster.remove_node(&name);
                    model.nodes.remove(&name);
                    model.pods.retain(|_, held| held.node != name);
                }
            }
            // The sums that filters go by are those of the pods that are there.
            prop_assert_eq!(cluster.snapshot().len(), model.nodes.len());
            for (_, info) in cluster.snapshot().nodes() {
                let sum = |part: fn(&Held) -> i64| model.on(&info.name).map(part).sum::<i64>();
                prop_assert_eq!(info.requested.milli_cpu, sum(|held| held.cpu));
                prop_assert_eq!(info.requested.memory, sum(|held| held.memory));
                prop_assert_eq!(info.pods.len(), model.on(&info.name).count());
            }
        }
    }
}
