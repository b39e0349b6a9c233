//! What plugins bring up to date from one pod to the next equals what they find on a snapshot that is built from scratch.
#![cfg(feature = "testing")]

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_sched::{
    framework::{Candidates, CycleState, Filter, NodeScore, PreFilter, PreScore, Refusals, Score},
    model::{Columns, PodInfo, Snapshot},
    plugins::{
        InterPodAffinity, NodeAffinity, NodeResourcesBalancedAllocation, NodeResourcesFit, NodeUnschedulable,
        PodTopologySpread, TaintToleration,
    },
    testing::{random_node, random_pod},
};

/// Nodes and placed pods, as they should be in the snapshot.
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
        self.nodes.values().for_each(|node| snapshot.set_node(Arc::clone(node)));
        self.pods.values().for_each(|(pod, node)| snapshot.set_pod(Arc::clone(pod), node));
        snapshot
    }

    /// One random change, made here and in the snapshot.
    fn change(&mut self, random: &mut StdRng, snapshot: &mut Snapshot, step: usize) {
        match random.random_range(0..12) {
            0 | 1 => {
                let node = Arc::new(random_node(random, step % 9));
                self.nodes.insert(node.metadata.name.clone().unwrap(), Arc::clone(&node));
                snapshot.set_node(node);
            }
            2 => {
                let name = format!("node-{}", random.random_range(0..9));
                self.nodes.remove(&name);
                snapshot.remove_node(&name);
            }
            3 => {
                let labels = BTreeMap::from([("team".to_owned(), random.random_range(0..2).to_string())]);
                self.namespaces.insert("other".to_owned(), labels.clone());
                snapshot.set_namespace("other", Some(labels));
            }
            4 | 5 => {
                let uid = format!("uid-{}", random.random_range(0..40));
                assert_eq!(snapshot.remove_pod(&uid).is_some(), self.pods.remove(&uid).is_some());
            }
            _ => {
                let mut pod: Pod = random_pod(random, random_number(step));
                if random.random_bool(0.1) {
                    pod.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
                }
                let pod = Arc::new(PodInfo::new(Arc::new(pod)));
                let node = format!("node-{}", random.random_range(0..9));
                snapshot.set_pod(Arc::clone(&pod), &node);
                self.pods.insert(pod.uid.to_string(), (pod, node));
            }
        }
    }
}

fn random_number(step: usize) -> usize {
    step * 7 % 40
}

/// Each node's answers and scores by the node's name, of one plugin.
type Answers = BTreeMap<String, (String, i64)>;

fn filtered(plugin: &(impl PreFilter + Filter), pod: &PodInfo, snapshot: &Snapshot, answers: &mut Answers) {
    let mut state = CycleState::default();
    let found = plugin.pre_filter(&mut state, pod, snapshot);
    if found.is_ok() {
        batch(plugin, &state, pod, snapshot, answers);
    }
}

fn batch(plugin: &impl Filter, state: &CycleState, pod: &PodInfo, snapshot: &Snapshot, answers: &mut Answers) {
    let nodes = snapshot.nodes().map(|(index, _)| index).collect();
    let mut refusals = Refusals::default();
    plugin.filter_batch(state, pod, &mut Candidates::new(snapshot, nodes, &mut refusals));
    for (node, status) in refusals.iter() {
        answers.entry(snapshot.node(node).name.to_string()).or_default().0 += &status.to_string();
    }
}

fn scored(plugin: &(impl PreScore + Score), pod: &PodInfo, snapshot: &Snapshot, answers: &mut Answers) {
    let mut state = CycleState::default();
    let nodes: Vec<_> = snapshot.nodes().map(|(index, _)| index).collect();
    let skipped = plugin.pre_score(&mut state, pod, snapshot, &nodes).is_skip();
    let mut scores: Vec<_> = nodes.into_iter().map(|node| NodeScore { node, score: 0 }).collect();
    if !skipped {
        plugin.score_batch(&state, pod, snapshot, &mut scores).unwrap();
        plugin.normalize(&state, pod, &mut scores).unwrap();
    }
    for score in scores {
        // Points for all nodes alike are as good as none.
        answers.entry(snapshot.node(score.node).name.to_string()).or_default().1 += score.score;
    }
}

/// What the plugins answer for a pod, plugin by plugin.
fn answers(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Answers> {
    let mut all: Vec<Answers> = vec![Answers::new(); 10];
    let nothing = CycleState::default();
    filtered(&PodTopologySpread::default(), pod, snapshot, &mut all[0]);
    filtered(&InterPodAffinity::default(), pod, snapshot, &mut all[1]);
    filtered(&NodeAffinity::default(), pod, snapshot, &mut all[2]);
    batch(&NodeUnschedulable, &nothing, pod, snapshot, &mut all[3]);
    batch(&TaintToleration, &nothing, pod, snapshot, &mut all[4]);
    batch(&NodeResourcesFit::default(), &nothing, pod, snapshot, &mut all[5]);
    scored(&PodTopologySpread::default(), pod, snapshot, &mut all[6]);
    scored(&InterPodAffinity::default(), pod, snapshot, &mut all[7]);
    scored(&NodeAffinity::default(), pod, snapshot, &mut all[8]);
    scored(&NodeResourcesBalancedAllocation::default(), pod, snapshot, &mut all[9]);
    all
}

/// The columns of a node by its name.
fn columns(snapshot: &Snapshot) -> BTreeMap<String, Vec<i64>> {
    let all = |columns: &Columns, at: usize| {
        [
            &columns.allocatable_milli_cpu,
            &columns.allocatable_memory,
            &columns.requested_milli_cpu,
            &columns.requested_memory,
            &columns.nonzero_milli_cpu,
            &columns.nonzero_memory,
            &columns.free_ephemeral_storage,
            &columns.free_pods,
        ]
        .map(|column| column[at])
        .into()
    };
    snapshot.nodes().map(|(index, node)| (node.name.to_string(), all(snapshot.columns(), index.slot()))).collect()
}

#[test]
fn plugins_answer_on_a_snapshot_that_changed_as_on_one_built_from_scratch() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut snapshot, mut model) = (Snapshot::default(), Model::default());
        // The same pods ask again and again, so that there is something to bring up to date.
        let asking: Vec<PodInfo> =
            (0..8).map(|number| PodInfo::new(Arc::new(random_pod(&mut random, 100 + number)))).collect();
        for step in 0..120 {
            model.change(&mut random, &mut snapshot, step);
            if step % 3 == 0 {
                let rebuilt = model.rebuilt();
                assert_eq!(columns(&snapshot), columns(&rebuilt), "seed {seed}, step {step}");
                for pod in &asking {
                    let (kept, fresh) = (answers(pod, &snapshot), answers(pod, &rebuilt));
                    assert_eq!(kept, fresh, "seed {seed}, step {step}, pod {}", pod.name);
                }
            }
        }
    }
}
