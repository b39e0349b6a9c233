//! Pod group cycles on an engine of their own.

mod extenders;
mod races;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    scheduling::v1alpha2::PodGroup,
};
use rk_sched::{
    Profile, SchedulerConfig,
    engine::{Cause, Decision, Engine, Explanations},
};
use serde_json::json;
use tokio::time::Instant;

fn node_of(name: &str, cpu: &str) -> Arc<Node> {
    let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "pods": "100"}}});
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod_of(name: &str, group: Option<&str>, cpu: &str, priority: i32) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "priority": priority, "schedulingGroup": group.map(|group| json!({"podGroupName": group})),
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// A pod of no group on a node.
fn filler(name: &str, node: &str, cpu: &str) -> Arc<Pod> {
    let mut pod = (*pod_of(name, None, cpu, 0)).clone();
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    Arc::new(pod)
}

fn gang_of(name: &str, min_count: usize) -> Arc<PodGroup> {
    let group = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedulingPolicy": {"gang": {"minCount": min_count}}},
    });
    Arc::new(serde_json::from_value(group).unwrap())
}

fn engine(config: SchedulerConfig, now: Instant) -> Engine {
    let profiles = vec![Profile::kubernetes("default-scheduler").with_gangs()];
    Engine::new(&SchedulerConfig { profiles, ..config }, now).unwrap()
}

/// All decisions, with what extenders say.
async fn decided(engine: &mut Engine, now: Instant) -> Vec<Decision> {
    let mut all = Vec::new();
    while let Some(mut decision) = engine.next(now) {
        while let Decision::Ask(question) = decision {
            let answer = question.ask().await;
            decision = engine.answer(*question, answer, now);
        }
        all.push(decision);
    }
    all
}

#[tokio::test]
async fn the_pods_of_a_gang_are_explained() {
    let explanations = Explanations::keep(10);
    let mut now = Instant::now();
    let config = SchedulerConfig { explanations: explanations.clone(), seed: Some(1), ..SchedulerConfig::default() };
    let mut engine = engine(config, now);
    engine.set_node(node_of("n", "2"), now);
    engine.set_group("default", "g", Some(gang_of("g", 3)), now);
    engine.set_pod(pod_of("a", Some("g"), "2", 0), now);
    let held = engine.explain("a").unwrap().to_string();
    assert!(held.contains("group g: 0 of 1 pods on nodes, 3 together or none"), "{held}");
    let why = "not tried: GangScheduling refused: waiting for minCount pods from a gang to appear in scheduling queue";
    assert!(held.contains(why), "{held}");
    for name in ["b", "c"] {
        now += Duration::from_millis(1);
        engine.set_pod(pod_of(name, Some("g"), "2", 0), now);
    }
    assert_eq!(decided(&mut engine, now).await.len(), 4);
    let of = |name: &str| explanations.of("default", name).unwrap();
    let given_up = "minCount (3) cannot be satisfied: 1 scheduled, 1 remaining; pod \"b\": 0/1 nodes are available: 1 Insufficient cpu.";
    for name in ["a", "c"] {
        assert!(of(name).decision.starts_with(given_up), "{}", of(name));
    }
    assert_eq!(of("a").nodes[0].refusal, None, "it had a node while it was tried");
    // The second one was tried with the first one on the node.
    assert_eq!(of("b").nodes[0].refusal.as_ref().unwrap().reasons, ["Insufficient cpu"]);
    assert!(of("b").decision.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{}", of("b").decision);
}

#[tokio::test(start_paused = true)]
async fn what_is_promised_to_a_gang_that_lacks_pods_keeps_nobody_away() {
    let mut now = Instant::now();
    let mut engine = engine(SchedulerConfig::default(), now);
    engine.set_node(node_of("n", "4"), now);
    engine.set_pod(filler("victim", "n", "4"), now);
    engine.set_group("default", "gang", Some(gang_of("gang", 2)), now);
    for name in ["a", "b"] {
        engine.set_pod(pod_of(name, Some("gang"), "2", 5), now);
    }
    let evicts = |decision: &Decision| matches!(decision, Decision::Refused(refusal) if refusal.eviction.is_some());
    assert!(decided(&mut engine, now).await.iter().any(evicts), "the gang makes room for itself");

    engine.remove_pod("victim", now);
    engine.set_pod(pod_of("other", None, "4", 5), now);
    let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("the room is promised") };
    assert_eq!(&*refusal.pod.uid, "other");
    engine.remove_pod("b", now);
    now += Duration::from_secs(10);
    let placed = decided(&mut engine, now).await;
    let [Decision::Place(placement)] = placed.as_slice() else { panic!("the gang can't be tried: {placed:?}") };
    assert_eq!(&*placement.pod.uid, "other");
}

/// Random gangs on an engine of its own: after every decision each gang has none of its pods on nodes, or as many as it
/// needs; nobody is on a node twice; and once room is made for all, all are placed.
#[test]
fn gangs_are_placed_whole_whatever_happens() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut evicted = 0;
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut now = Instant::now();
        let mut engine = engine(SchedulerConfig { seed: Some(seed), ..SchedulerConfig::default() }, now);
        let (mut nodes, mut fillers) = (0, 0);
        // Who has to go, and when it will have gone.
        let mut leaving: Vec<(Instant, String)> = Vec::new();
        let mut minimum = BTreeMap::new();
        for gang in 0..random.random_range(1..4) {
            let (size, name) = (random.random_range(1..5_usize), format!("g{gang}"));
            let least = random.random_range(1..=size);
            engine.set_group("default", &name, Some(gang_of(&name, least)), now);
            minimum.insert(name.clone(), least);
            for at in 0..size {
                let cpu = random.random_range(1..3).to_string();
                engine.set_pod(pod_of(&format!("{name}-{at}"), Some(&name), &cpu, 1), now);
            }
        }
        let mut placed: BTreeMap<String, String> = BTreeMap::new();
        for step in 0..200 {
            now += Duration::from_millis(random.random_range(0..3000));
            if random.random_bool(0.05) && nodes < 4 || step == 100 {
                nodes += 1;
                let cpu = if step == 100 { 40 } else { random.random_range(1..5) };
                engine.set_node(node_of(&format!("n{nodes}"), &cpu.to_string()), now);
            }
            // Less important pods of no group.
            if step < 100 && random.random_bool(0.1) {
                fillers += 1;
                engine.set_pod(pod_of(&format!("f-{fillers}"), None, "1", 0), now);
            }
            leaving.retain(|(at, victim)| {
                if *at <= now {
                    placed.remove(victim);
                    engine.remove_pod(victim, now);
                }
                *at > now
            });
            while let Some(decision) = engine.next(now) {
                match decision {
                    Decision::Place(placement) => {
                        let name = placement.pod.name.to_string();
                        assert_eq!(
                            placed.insert(name.clone(), placement.node.to_string()),
                            None,
                            "seed {seed}: {name}"
                        );
                        let mut pod = (*placement.pod.pod).clone();
                        pod.spec.as_mut().unwrap().node_name = Some(placement.node.to_string());
                        assert!(
                            engine.bound(&placement.pod.uid, rk_sched::framework::Status::success(), now).is_none()
                        );
                        engine.set_pod(Arc::new(pod), now);
                    }
                    Decision::Refused(refusal) => {
                        assert!(!matches!(refusal.cause, Cause::Failed(_)), "seed {seed}: {}", refusal.message());
                        for victim in refusal.eviction.into_iter().flat_map(|eviction| eviction.victims) {
                            evicted += 1;
                            let wait = Duration::from_millis(random.random_range(0..4000));
                            leaving.push((now + wait, victim.name.to_string()));
                        }
                    }
                    Decision::Group(_) => {}
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            // All decisions on a gang are out.
            for (name, least) in &minimum {
                let on_nodes = placed.keys().filter(|pod| pod.starts_with(&format!("{name}-"))).count();
                assert!(on_nodes == 0 || on_nodes >= *least, "seed {seed}, {name}: {on_nodes} of {least}");
            }
        }
        assert!(
            minimum.keys().all(|name| placed.keys().any(|pod| pod.starts_with(&format!("{name}-")))),
            "seed {seed}"
        );
        assert_eq!(engine.counts(), (0, 0, 0), "seed {seed}: all are placed");
    }
    assert!(evicted > 20, "{evicted} had to go");
}
