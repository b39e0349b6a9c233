//! StatefulSets and DaemonSets against the real API server, on a paused clock.

mod cluster;

use cluster::{Cluster, template};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, StatefulSet},
    core::v1::{Node, PersistentVolumeClaim, Pod},
};
use rk_api::{Api, Patch};
use serde_json::json;

fn names(pods: &[std::sync::Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().node_name.as_deref().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_starts_in_order_and_replaces_from_the_end() {
    let cluster = Cluster::with(&["statefulset-controller", "garbage-collector-controller"]).await;
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 3, "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}}, "template": template(json!({"app": "db"}), "v1"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}]}});
    cluster.create::<StatefulSet>(set).await;
    let done = |image: &'static str| {
        move |pods: &[std::sync::Arc<Pod>]| {
            let ready =
                pods.iter().filter(|pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running")));
            ready.filter(|pod| self::image(pod) == image).count() == 3
        }
    };
    let pods = cluster.until_list::<Pod>(done("v1")).await;
    assert_eq!(names(&pods), ["db-0", "db-1", "db-2"]);
    let created = |index: usize| pods[index].metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap();
    assert!(created(0) < created(1) && created(1) < created(2), "each after the one before was ready");
    assert_eq!(cluster.list::<PersistentVolumeClaim>().await.len(), 3);
    let settled = |set: &StatefulSet| {
        let status = set.status.clone().unwrap_or_default();
        status.current_revision == status.update_revision
            && status.ready_replicas == Some(3)
            && status.observed_generation == set.metadata.generation
    };
    cluster.until::<StatefulSet>("db", settled).await;

    // Only the ordinals from the partition on get the new template.
    let partition = json!({"spec": {"template": template(json!({"app": "db"}), "v2"),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}});
    cluster.patch::<StatefulSet>("db", partition).await;
    let pods = cluster.until_list::<Pod>(|pods| pods.len() == 3 && image(&pods[2]) == "v2").await;
    assert_eq!([image(&pods[0]), image(&pods[1])], ["v1", "v1"]);
    let rest = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    cluster.patch::<StatefulSet>("db", rest).await;
    cluster.until_list::<Pod>(done("v2")).await;
    cluster.until::<StatefulSet>("db", settled).await;

    cluster.delete::<Pod>("db-1").await;
    cluster.until_list::<Pod>(done("v2")).await;
    cluster.patch::<StatefulSet>("db", json!({"spec": {"replicas": 1}})).await;
    let left = cluster.until_list::<Pod>(|pods| pods.len() == 1).await;
    assert_eq!(names(&left), ["db-0"]);
    assert_eq!(cluster.list::<PersistentVolumeClaim>().await.len(), 3, "claims stay unless the set says otherwise");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_has_one_pod_on_every_node_that_fits() {
    let cluster = Cluster::with(&["daemonset-controller", "garbage-collector-controller"]).await;
    cluster.add_node("node-2").await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    let set = json!({"metadata": {"name": "log"}, "spec": {"selector": {"matchLabels": {"app": "log"}},
        "template": template(json!({"app": "log"}), "v1")}});
    cluster.create::<DaemonSet>(set).await;
    let counts = |set: &DaemonSet| {
        let status = set.status.clone().unwrap_or_default();
        (status.desired_number_scheduled, status.number_ready, status.updated_number_scheduled.unwrap_or(0))
    };
    cluster.until::<DaemonSet>("log", |set| counts(set) == (2, 2, 2)).await;
    let pods = cluster.list::<Pod>().await;
    let mut on: Vec<_> = pods.iter().map(|pod| node_of(pod)).collect();
    on.sort_unstable();
    assert_eq!(on, ["node-1", "node-2"]);

    cluster.add_node("node-3").await;
    cluster.until::<DaemonSet>("log", |set| counts(set) == (3, 3, 3)).await;
    let taint = json!({"spec": {"taints": [{"key": "sick", "effect": "NoExecute"}]}});
    nodes.patch("node-2", Patch::merge(taint)).await.unwrap();
    cluster.until::<DaemonSet>("log", |set| counts(set) == (2, 2, 2)).await;
    cluster.until_list::<Pod>(|pods| pods.len() == 2 && pods.iter().all(|pod| node_of(pod) != "node-2")).await;

    cluster.patch::<DaemonSet>("log", json!({"spec": {"template": template(json!({"app": "log"}), "v2")}})).await;
    cluster.until::<DaemonSet>("log", |set| counts(set) == (2, 2, 2) && set.metadata.generation == Some(2)).await;
    cluster.until_list::<Pod>(|pods| pods.len() == 2 && pods.iter().all(|pod| image(pod) == "v2")).await;
}
