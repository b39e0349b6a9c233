//! Nodes that fall silent, and what becomes of their pods, against the real API server on a paused clock.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, deployment};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Namespace, Node, Pod},
};
use rk_api::{Api, DeleteOptions, Patch};
use rk_controller::{ManagerConfig, controllers::node::NodeCidrs};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A hollow node that renews its lease until the token is cancelled.
async fn beating_node(cluster: &Cluster, name: &'static str) -> CancellationToken {
    cluster.create::<Node>(json!({"metadata": {"name": name}})).await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    nodes.patch_status(name, Patch::merge(ready)).await.unwrap();
    let stop = cluster.run_node(name);
    let leases = Api::<Lease>::namespaced(cluster.client.clone(), "kube-node-lease");
    let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
    leases.create(&serde_json::from_value(lease).unwrap()).await.unwrap();
    let until = stop.clone();
    tokio::spawn(async move {
        while !until.is_cancelled() {
            let renew = json!({"spec": {"renewTime": rk_api::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()}});
            leases.patch(name, Patch::merge(renew)).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    stop
}

fn status(node: &Node) -> &str {
    let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
    &conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().status
}

fn taints(node: &Node) -> Vec<(String, String)> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.map(|taint| (taint.key.clone(), taint.effect.clone())).collect()
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().node_name.as_deref().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_dead_node_are_not_ready_then_replaced_then_collected() {
    let cluster = Cluster::bare().await;
    cluster.create::<Namespace>(json!({"metadata": {"name": "kube-node-lease"}})).await;
    cluster.manage(&["*"]);
    let dying = beating_node(&cluster, "dying").await;
    let mut web = deployment("web", 2, "v1");
    let tolerate =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30});
    web["spec"]["template"]["spec"]["tolerations"] =
        json!([tolerate("node.kubernetes.io/unreachable"), tolerate("node.kubernetes.io/not-ready")]);
    cluster.create::<Deployment>(web).await;
    let available = |count| move |web: &Deployment| web.status.as_ref().is_some_and(|s| s.available_replicas == count);
    cluster.until::<Deployment>("web", available(Some(2))).await;
    let _living = beating_node(&cluster, "living").await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let node = cluster.until_all::<Node>("dying", |node| status(node) == "True").await;
    assert!(taints(&node).is_empty(), "it beats");

    let died = tokio::time::Instant::now();
    dying.cancel();
    let node = cluster.until_all::<Node>("dying", |node| status(node) == "Unknown").await;
    let silence = died.elapsed().as_secs();
    assert!((40..=51).contains(&silence), "{silence}");
    assert_eq!(node.status.clone().unwrap_or_default().conditions.unwrap().len(), 4);
    cluster.until::<Deployment>("web", available(None)).await;
    cluster
        .until_all::<Node>("dying", |node| {
            let unreachable = "node.kubernetes.io/unreachable".to_owned();
            let tainted = |effect: &str| taints(node).contains(&(unreachable.clone(), effect.to_owned()));
            tainted("NoSchedule") && tainted("NoExecute")
        })
        .await;
    cluster.until::<Deployment>("web", available(Some(2))).await;
    let took = died.elapsed().as_secs();
    assert!((70..=95).contains(&took), "grace and toleration: {took}");
    let pods = cluster.list::<Pod>().await;
    assert_eq!(pods.iter().filter(|pod| node_of(pod) == "dying").count(), 2, "nobody can say that they ended");

    Api::<Node>::all(cluster.client.clone()).delete("dying", DeleteOptions::default()).await.unwrap();
    let left = cluster.until_list::<Pod>(|pods| pods.len() == 2).await;
    assert!(left.iter().all(|pod| node_of(pod) == "living"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_loses_its_taints_and_when_all_are_silent_nobody_is_evicted() {
    let cluster = Cluster::bare().await;
    cluster.create::<Namespace>(json!({"metadata": {"name": "kube-node-lease"}})).await;
    cluster.manage(&["*"]);
    let only = beating_node(&cluster, "only").await;
    cluster.create::<Deployment>(deployment("web", 1, "v1")).await;
    let ready = |web: &Deployment| web.status.as_ref().is_some_and(|status| status.ready_replicas == Some(1));
    cluster.until::<Deployment>("web", ready).await;
    only.cancel();
    cluster.until_all::<Node>("only", |node| status(node) == "Unknown").await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let node = cluster.until_all::<Node>("only", |_| true).await;
    assert_eq!(taints(&node), [("node.kubernetes.io/unreachable".to_owned(), "NoSchedule".to_owned())]);
    assert!(cluster.list::<Pod>().await[0].metadata.deletion_timestamp.is_none());

    let nodes = Api::<Node>::all(cluster.client.clone());
    let back = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    nodes.patch_status("only", Patch::merge(back)).await.unwrap();
    cluster.until_all::<Node>("only", |node| taints(node).is_empty()).await;
    nodes.patch("only", Patch::merge(json!({"spec": {"unschedulable": true}}))).await.unwrap();
    let unschedulable = ("node.kubernetes.io/unschedulable".to_owned(), "NoSchedule".to_owned());
    cluster.until_all::<Node>("only", |node| taints(node) == [unschedulable.clone()]).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_get_ranges_of_their_own() {
    let cluster = Cluster::bare().await;
    let node_cidrs = Some(NodeCidrs::new("10.244.0.0/16", 24).unwrap());
    let controllers = vec!["node-ipam-controller".to_owned()];
    cluster.manage_with(ManagerConfig { controllers, node_cidrs, ..ManagerConfig::default() });
    for name in ["a", "b", "c"] {
        cluster.create::<Node>(json!({"metadata": {"name": name}})).await;
    }
    let mut ranges = Vec::new();
    for name in ["a", "b", "c"] {
        let node =
            cluster.until_all::<Node>(name, |node| node.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some())).await;
        ranges.push(node.spec.clone().unwrap().pod_cidr.unwrap());
    }
    ranges.sort();
    assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_ended_pods_stay() {
    let cluster = Cluster::bare().await;
    let controllers = vec!["pod-garbage-collector-controller".to_owned()];
    cluster.manage_with(ManagerConfig { controllers, terminated_pods: 2, ..ManagerConfig::default() });
    for name in ["a", "b", "c", "d"] {
        cluster
            .create::<Pod>(json!({"metadata": {"name": name}, "spec": cluster::template(json!({}), "v1")["spec"]}))
            .await;
        if name != "d" {
            let ended = Patch::merge(json!({"status": {"phase": "Succeeded"}}));
            cluster.api::<Pod>().patch_status(name, ended).await.unwrap();
        }
    }
    let left = cluster.until_list::<Pod>(|pods| pods.len() == 3).await;
    assert!(left.iter().any(|pod| pod.metadata.name.as_deref() == Some("d")), "it has not ended");
}
