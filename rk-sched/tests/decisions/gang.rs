//! Whether a case about the pods of a group holds: a whole pod group cycle, on an engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    Resource as _,
    api::{policy::v1::PodDisruptionBudget, scheduling::v1alpha2::PodGroup},
};
use rk_api::{Change, Object};
use rk_sched::{
    SchedulerConfig,
    engine::{Decision, Engine},
};
use tokio::time::Instant;

use crate::{
    case::Case,
    check::expected_of,
    cluster::{in_namespace, pod_info, profile, waiting},
    short,
};

/// What the cycle came to.
#[derive(Default)]
struct Came {
    nodes: BTreeMap<String, Option<String>>,
    group: Option<String>,
    evicted: BTreeSet<String>,
}

fn engine(case: &Case, seed: u64, now: Instant) -> Engine {
    let profiles = vec![profile(&case.args).with_gangs()];
    let config = SchedulerConfig { profiles, seed: Some(seed), ..SchedulerConfig::default() };
    let mut engine = Engine::new(&config, now).unwrap();
    for (name, node) in &case.nodes {
        engine.set_node(Arc::new(short::node(name, node)), now);
    }
    for object in &case.objects {
        let mut object = in_namespace(object);
        match object["kind"].as_str().unwrap() {
            PodGroup::KIND => {
                let group = short::exact::<PodGroup>(object);
                let name = group.metadata.name.clone().unwrap();
                engine.set_group("default", &name, Some(Arc::new(group)), now);
            }
            PodDisruptionBudget::KIND => {
                object["apiVersion"] = PodDisruptionBudget::API_VERSION.into();
                engine.apply(&Change::Added(Arc::new(Object::from_value(&object).unwrap())), now);
            }
            other => panic!("no case about groups has a {other:?}"),
        }
    }
    for (number, pod) in case.pods.iter().enumerate() {
        engine.set_pod(Arc::clone(&pod_info(pod, &format!("pod-{number}")).pod), now);
    }
    for (later, pod) in (1..).zip(waiting(case)) {
        engine.set_pod(Arc::clone(&pod.pod), now + Duration::from_millis(later));
    }
    engine
}

fn came(case: &Case, seed: u64) -> Came {
    let mut now = Instant::now();
    let mut engine = engine(case, seed, now);
    now += Duration::from_secs(1);
    let (mut came, mut tried) = (Came::default(), 0);
    while tried < case.waiting.len() {
        match engine.next(now) {
            Some(Decision::Place(placement)) => {
                came.nodes.insert(placement.pod.name.to_string(), Some(placement.node.to_string()));
                tried += 1;
            }
            Some(Decision::Refused(refusal)) => {
                came.nodes.insert(refusal.pod.name.to_string(), None);
                let victims = refusal.eviction.into_iter().flat_map(|eviction| eviction.victims);
                came.evicted.extend(victims.map(|victim| victim.name.to_string()));
                tried += 1;
            }
            Some(other) => panic!("{}: {other:?}", case.name),
            None => break,
        }
    }
    if let Some(Decision::Group(outcome)) = engine.next(now) {
        let separator = if outcome.message.is_empty() { "" } else { ": " };
        came.group = Some(format!("{}{separator}{}", outcome.reason(), outcome.message));
    }
    came
}

/// Whatever the seed, as equals may be chosen.
pub fn check(case: &Case) -> Vec<String> {
    let wrong = (0..8).find_map(|seed| {
        let came = came(case, seed);
        let mut wrong = Vec::new();
        for (pod, nodes) in case.together.iter().flatten() {
            let got = came.nodes.get(pod).cloned().flatten();
            let fits = match (nodes, &got) {
                (Some(nodes), Some(got)) => nodes.all().contains(&got.as_str()),
                (nodes, got) => nodes.is_none() && got.is_none(),
            };
            if !fits {
                wrong.push(format!("{pod} is on {got:?}"));
            }
        }
        wrong
            .extend(case.group.as_ref().and_then(|group| expected_of("group", group, &came.group.unwrap_or_default())));
        let evicted = case.evicted.as_ref().map(|names| names.iter().cloned().collect::<BTreeSet<String>>());
        wrong.extend(evicted.and_then(|evicted| expected_of("evicted", &evicted, &came.evicted)));
        (!wrong.is_empty()).then_some(wrong)
    });
    wrong.unwrap_or_default()
}
