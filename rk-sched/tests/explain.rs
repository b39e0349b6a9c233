//! Decisions in full: what each plugin said of each node, and what the pod went through.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_sched::{
    SchedulerConfig,
    engine::{Decision, Engine, Explanations},
    queue::What,
};
use serde_json::{Value, json};
use tokio::time::Instant;

fn node(name: &str, cpu: &str, taints: Value) -> Arc<Node> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
        }))
        .unwrap(),
    )
}

fn pod(name: &str, cpu: &str) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]},
        }))
        .unwrap(),
    )
}

fn engine(now: Instant) -> (Engine, Explanations) {
    let explanations = Explanations::keep(2);
    let config = SchedulerConfig { seed: Some(1), explanations: explanations.clone(), ..SchedulerConfig::default() };
    (Engine::new(&config, now).unwrap(), explanations)
}

#[test]
fn a_placement_is_the_node_with_the_highest_sum_and_the_sum_is_that_of_the_scores() {
    let now = Instant::now();
    let (mut engine, explanations) = engine(now);
    engine.set_node(node("small", "2", json!([])), now);
    engine.set_node(node("large", "8", json!([])), now);
    engine.set_node(node("tainted", "64", json!([{"key": "k", "effect": "NoSchedule"}])), now);
    engine.set_pod(pod("p", "1"), now);
    let Some(Decision::Place(placement)) = engine.next(now) else { panic!("two nodes would do") };

    let explanation = explanations.of("default", "p").unwrap();
    assert_eq!(explanation.decision, format!("placed on {}", placement.node));
    let names: Vec<&str> = explanation.nodes.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(names, ["large", "small", "tainted"]);
    assert_eq!(&*placement.node, "large");
    for node in &explanation.nodes[..2] {
        assert_eq!(node.total, node.scores.iter().map(|score| score.score * score.weight).sum::<i64>());
        assert!(node.scores.iter().all(|score| (0..=100).contains(&score.score)));
        // LeastAllocated: a half or an eighth of the cores and an eighth of the memory are asked for.
        let fit = node.scores.iter().find(|score| score.plugin == "NodeResourcesFit").unwrap();
        let cpu = if node.node == "large" { 87 } else { 50 };
        assert_eq!((fit.score, fit.weight), ((cpu + 87) / 2, 1));
    }
    let refusal = explanation.nodes[2].refusal.as_ref().unwrap();
    assert_eq!(refusal.plugin, "TaintToleration");
    assert_eq!(refusal.reasons, ["node(s) had untolerated taint(s)"]);
    assert!(!refusal.preemption_may_help && !refusal.failed);
    let text = explanation.to_string();
    assert!(text.starts_with("default/p (profile default-scheduler): placed on large\n"), "{text}");
    assert!(text.contains("  tainted: TaintToleration refused: node(s) had untolerated taint(s)"), "{text}");
}

#[test]
fn what_a_pod_went_through_is_told_while_it_waits_and_once_it_is_placed() {
    let mut now = Instant::now();
    let (mut engine, explanations) = engine(now);
    engine.set_node(node("small", "2", json!([])), now);
    engine.set_pod(pod("p", "4"), now);
    assert!(matches!(engine.next(now), Some(Decision::Refused(_))));

    let waiting = engine.explain("p").unwrap();
    assert_eq!(waiting.nodes[0].refusal.as_ref().unwrap().reasons, ["Insufficient cpu"]);
    let what: Vec<&What> = waiting.history.iter().map(|step| &step.what).collect();
    assert_eq!(what, [&What::Tried(1), &What::Refused(["NodeResourcesFit"].into())]);

    now += Duration::from_secs(20);
    engine.set_node(node("large", "8", json!([])), now);
    assert!(matches!(engine.next(now), Some(Decision::Place(_))));
    assert!(engine.explain("p").is_none(), "it does not wait any more");
    let placed = explanations.of("default", "p").unwrap();
    let steps: Vec<(u64, &What)> = placed.history.iter().map(|step| (step.after.as_secs(), &step.what)).collect();
    let refused = What::Refused(["NodeResourcesFit"].into());
    assert_eq!(steps, [(0, &What::Tried(1)), (0, &refused), (20, &What::Woken("NodeAdd")), (20, &What::Tried(2))]);
}

#[test]
fn only_the_newest_are_kept() {
    let now = Instant::now();
    let (mut engine, explanations) = engine(now);
    for name in ["a", "b", "c"] {
        engine.set_pod(pod(name, "1"), now);
        assert!(engine.next(now).is_some());
    }
    let kept: Vec<String> = explanations.all().iter().map(|kept| kept.name.clone()).collect();
    assert_eq!(kept, ["b", "c"]);
    assert_eq!(explanations.of("default", "c").unwrap().decision, "no nodes available to schedule pods");
}
