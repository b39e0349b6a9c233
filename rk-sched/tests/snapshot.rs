//! The snapshot that is changed in place equals one built from scratch, in all that it shows, after any sequence of changes.
#![cfg(feature = "testing")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_sched::{
    model::{NodeInfo, PodInfo, Resources, Snapshot},
    testing::{random_node, random_pod},
};

const NODES: usize = 7;
const PODS: usize = 25;

#[derive(Debug, Clone)]
enum Op {
    /// A node comes, or has another version.
    SetNode(usize, u64),
    RemoveNode(usize),
    /// A pod is bound, has another version, or is bound elsewhere; perhaps to a node that is not there.
    SetPod {
        pod: usize,
        node: usize,
        seed: u64,
        terminating: bool,
    },
    RemovePod(usize),
    SetNamespace(usize, Option<u8>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..NODES, 0..50_u64).prop_map(|(node, seed)| Op::SetNode(node, seed)),
        1 => (0..NODES).prop_map(Op::RemoveNode),
        6 => (0..PODS, 0..NODES, 0..50_u64, prop::bool::weighted(0.1))
            .prop_map(|(pod, node, seed, terminating)| Op::SetPod { pod, node, seed, terminating }),
        2 => (0..PODS).prop_map(Op::RemovePod),
        1 => (0..2_usize, prop::option::of(0..3_u8)).prop_map(|(number, team)| Op::SetNamespace(number, team)),
    ]
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// The cluster as it should be, in plain maps.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<String, Arc<Node>>,
    pods: BTreeMap<String, (Arc<PodInfo>, String)>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Model {
    fn rebuilt(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, labels) in &self.namespaces {
            snapshot.set_namespace(name, Some(labels.clone()));
        }
        for (pod, node) in self.pods.values() {
            snapshot.set_pod(Arc::clone(pod), node);
        }
        for node in self.nodes.values() {
            snapshot.set_node(Arc::clone(node));
        }
        snapshot
    }

    /// Makes a change, here and in the snapshot; whether both knew the pod that was removed.
    fn apply(&mut self, op: &Op, snapshot: &mut Snapshot) -> bool {
        match op {
            Op::SetNode(number, seed) => {
                let mut random = StdRng::seed_from_u64(*seed);
                let node = Arc::new(random_node(&mut random, *number));
                snapshot.set_node(Arc::clone(&node));
                self.nodes.insert(node_name(*number), node);
            }
            Op::RemoveNode(number) => {
                snapshot.remove_node(&node_name(*number));
                self.nodes.remove(&node_name(*number));
            }
            Op::SetPod { pod, node, seed, terminating } => {
                let mut random = StdRng::seed_from_u64(*seed);
                let mut pod = random_pod(&mut random, *pod);
                if *terminating {
                    pod.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").ok();
                }
                if random.random_bool(0.3) {
                    pod.spec.as_mut().unwrap().overhead = serde_json::from_str(r#"{"cpu": "50m"}"#).ok();
                }
                let pod = Arc::new(PodInfo::new(Arc::new(pod)));
                snapshot.set_pod(Arc::clone(&pod), &node_name(*node));
                self.pods.insert(pod.uid.to_string(), (pod, node_name(*node)));
            }
            Op::RemovePod(number) => {
                let uid = format!("uid-{number}");
                return snapshot.remove_pod(&uid).is_some() == self.pods.remove(&uid).is_some();
            }
            Op::SetNamespace(number, team) => {
                let name = ["default", "other"][*number];
                let labels = team.map(|team| BTreeMap::from([("team".to_owned(), team.to_string())]));
                snapshot.set_namespace(name, labels.clone());
                match labels {
                    Some(labels) => self.namespaces.insert(name.to_owned(), labels),
                    None => self.namespaces.remove(name),
                };
            }
        }
        true
    }
}

const SCALAR: &str = "example.com/gpu";

fn amounts(resources: &Resources) -> [i64; 4] {
    [resources.milli_cpu, resources.memory, resources.ephemeral_storage, resources.get(SCALAR)]
}

/// What a node shows, in comparable form.
fn shown_node(snapshot: &Snapshot, node: &NodeInfo) -> String {
    let pods: BTreeSet<_> =
        node.pods.iter().map(|entry| (entry.pod.uid.to_string(), Arc::as_ptr(&entry.pod))).collect();
    let classes: BTreeMap<_, _> = node
        .pods
        .iter()
        .map(|entry| {
            let class = snapshot.class(entry.class).expect("the class of a pod that is there");
            (entry.pod.uid.to_string(), format!("{:?}", class.key))
        })
        .collect();
    let images: BTreeMap<_, _> = node.images.iter().collect();
    let columns = snapshot.columns();
    let at = node.index.slot();
    let columns = [
        &columns.allocatable_milli_cpu,
        &columns.allocatable_memory,
        &columns.requested_milli_cpu,
        &columns.requested_memory,
        &columns.nonzero_milli_cpu,
        &columns.nonzero_memory,
        &columns.free_ephemeral_storage,
        &columns.free_pods,
    ]
    .map(|column| column[at]);
    format!(
        "{:?} {:?} {:?} {} {} {} {pods:?} {classes:?} {images:?} {columns:?}",
        Arc::as_ptr(&node.node),
        amounts(&node.allocatable),
        amounts(&node.requested),
        node.allowed_pods,
        node.nonzero_milli_cpu,
        node.nonzero_memory,
    )
}

/// All that a snapshot shows, by names instead of indexes.
fn shown(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let name = |index| snapshot.node(index).name.to_string();
    for (index, node) in snapshot.nodes() {
        assert_eq!(snapshot.find(&node.name), Some(index));
        assert!(index.slot() < snapshot.slots());
        all.insert(format!("node {}", node.name), shown_node(snapshot, node));
    }
    for number in 0..PODS {
        let uid = format!("uid-{number}");
        let pod = snapshot.pod(&uid).map(Arc::as_ptr);
        all.insert(format!("pod {uid}"), format!("{:?} {pod:?}", snapshot.node_of(&uid)));
    }
    let of_class = |class: &rk_sched::model::PodClass| {
        let nodes: BTreeMap<_, _> = class.nodes.iter().map(|(node, count)| (name(*node), *count)).collect();
        format!("{:?} {nodes:?}", class.key)
    };
    let classes: BTreeSet<_> = snapshot.classes().map(of_class).collect();
    assert_eq!(classes.len(), snapshot.classes().count(), "a class is there once");
    all.insert("classes".to_owned(), format!("{classes:#?}"));
    let with_affinity: BTreeSet<_> = snapshot.classes_with_affinity().map(of_class).collect();
    all.insert("classes with affinity".to_owned(), format!("{with_affinity:#?}"));
    let repelling: BTreeSet<_> = snapshot.classes_with_required_anti_affinity().map(of_class).collect();
    all.insert("classes with required anti-affinity".to_owned(), format!("{repelling:#?}"));
    for key in ["topology.kubernetes.io/zone", "kubernetes.io/hostname", "disk", "nothing"] {
        let topology = snapshot.topology(key);
        let place = |index| topology.place(index).map(|place| topology.places[place as usize].to_string());
        let places: BTreeMap<_, _> =
            snapshot.nodes().filter_map(|(index, _)| Some((name(index), place(index)?))).collect();
        all.insert(format!("topology {key}"), format!("{places:?}"));
    }
    let image = "registry.example/web:1";
    all.insert("images".to_owned(), format!("{} {}", snapshot.nodes_with_image(image), snapshot.no_images()));
    all.insert("namespaces".to_owned(), format!("{:?}", snapshot.namespaces()));
    all.insert("size".to_owned(), format!("{} {}", snapshot.len(), snapshot.is_empty()));
    all
}

fn zone(node: &NodeInfo) -> Option<&String> {
    node.labels().get("topology.kubernetes.io/zone")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn changed_in_place_is_as_built_from_scratch(ops in prop::collection::vec(op(), 1..100)) {
        let (mut snapshot, mut model) = (Snapshot::default(), Model::default());
        let mut seen = BTreeMap::new();
        for (step, op) in ops.iter().enumerate() {
            prop_assert!(model.apply(op, &mut snapshot), "{op:?}");
            // A node whose generation is the same is the same.
            let mut now = BTreeMap::new();
            for (index, node) in snapshot.nodes() {
                let shows = shown_node(&snapshot, node);
                let key = (index, node.generation);
                if let Some(before) = seen.get(&key) {
                    prop_assert_eq!(before, &shows, "step {}", step);
                }
                now.insert(key, shows);
            }
            seen = now;
            if step % 5 == 4 || step + 1 == ops.len() {
                let (kept, fresh) = (shown(&snapshot), shown(&model.rebuilt()));
                prop_assert_eq!(kept, fresh, "step {}: {:?}", step, op);
            }
        }
        // Zones take turns: none comes again before each of the others that has nodes left.
        let mut left: BTreeMap<Option<&String>, usize> = BTreeMap::new();
        snapshot.nodes().for_each(|(_, node)| *left.entry(zone(node)).or_default() += 1);
        let mut turn = BTreeSet::new();
        for (_, node) in snapshot.nodes() {
            if !turn.insert(zone(node)) {
                let waiting: Vec<_> = left.iter().filter(|(zone, left)| **left > 0 && !turn.contains(*zone)).collect();
                prop_assert!(waiting.is_empty(), "{waiting:?} wait for their turn");
                turn = BTreeSet::from([zone(node)]);
            }
            *left.entry(zone(node)).or_default() -= 1;
        }
    }
}
