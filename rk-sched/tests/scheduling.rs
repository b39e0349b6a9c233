//! The scheduler against the real API server.

mod cluster;

use cluster::{Cluster, unscheduled};
use rk_api::{DeleteOptions, Patch};
use rk_sched::SchedulerConfig;
use serde_json::json;

fn seeded() -> SchedulerConfig {
    SchedulerConfig { seed: Some(1), ..SchedulerConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_and_told_of() {
    let cluster = Cluster::start(seeded()).await;
    cluster.node("small", "1", json!({})).await;
    cluster.node("big", "4", json!({})).await;
    cluster.pod("web", "500m", json!({})).await;
    assert_eq!(cluster.node_of("web").await, "big");
    assert_eq!(cluster.event("web", "Scheduled").await, "Successfully assigned default/web to big");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_why_and_goes_once_there_is_room() {
    let cluster = Cluster::start(seeded()).await;
    cluster.node("only", "1", json!({})).await;
    cluster
        .node("tainted", "8", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}))
        .await;
    cluster.pod("first", "800m", json!({})).await;
    cluster.node_of("first").await;
    cluster.pod("second", "800m", json!({})).await;
    let pod = cluster.pod_until("second", |pod| unscheduled(pod).is_some()).await;
    let (reason, message) = unscheduled(&pod).unwrap();
    let said = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s).";
    assert_eq!(reason, "Unschedulable");
    assert!(message.starts_with(said), "{message}");
    assert_eq!(cluster.event("second", "FailedScheduling").await, message);

    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.pods.delete("first", now).await.unwrap();
    assert_eq!(cluster.node_of("second").await, "only");
}

#[tokio::test(start_paused = true)]
async fn a_new_node_and_a_removed_taint_bring_waiting_pods_back() {
    let cluster = Cluster::start(seeded()).await;
    cluster.pod("early", "1", json!({})).await;
    let pod = cluster.pod_until("early", |pod| unscheduled(pod).is_some()).await;
    assert_eq!(unscheduled(&pod).unwrap().1, "no nodes available to schedule pods");
    cluster.node("late", "2", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})).await;
    cluster.pod_until("early", |pod| unscheduled(pod).is_some_and(|(_, m)| m.contains("untolerated"))).await;
    cluster.nodes.patch("late", Patch::merge(json!({"spec": {"taints": null}}))).await.unwrap();
    assert_eq!(cluster.node_of("early").await, "late");
}

#[tokio::test(start_paused = true)]
async fn gated_pods_wait_for_their_gates_to_go() {
    let cluster = Cluster::start(seeded()).await;
    cluster.node("n", "2", json!({})).await;
    cluster.pod("gated", "1", json!({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}})).await;
    cluster.pod("free", "1", json!({})).await;
    cluster.node_of("free").await;
    assert_eq!(cluster::bound(&cluster.pods.get("gated").await.unwrap()), None);
    cluster.pods.patch("gated", Patch::merge(json!({"spec": {"schedulingGates": null}}))).await.unwrap();
    assert_eq!(cluster.node_of("gated").await, "n");
}

#[tokio::test(start_paused = true)]
async fn other_schedulers_pods_are_left_alone() {
    let cluster = Cluster::start(seeded()).await;
    cluster.node("n", "2", json!({})).await;
    cluster.pod("theirs", "1", json!({"spec": {"schedulerName": "another"}})).await;
    cluster.pod("ours", "1", json!({})).await;
    cluster.node_of("ours").await;
    assert_eq!(cluster::bound(&cluster.pods.get("theirs").await.unwrap()), None);
}
