//! Deployments and ReplicaSets against the real API server, on a paused clock.

mod cluster;

use cluster::{Cluster, deployment, template};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Event, Pod},
};
use serde_json::json;

const CONTROLLERS: &[&str] = &["deployment-controller", "replicaset-controller", "garbage-collector-controller"];

fn condition<'a>(deployment: &'a Deployment, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&condition.status, condition.reason.as_deref().unwrap_or_default()))
}

fn complete(deployment: &Deployment, replicas: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && condition(deployment, "Progressing") == Some(("True", "NewReplicaSetAvailable"))
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_from_one_template_to_the_next_and_back() {
    let cluster = Cluster::with(CONTROLLERS).await;
    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    let web = cluster.until::<Deployment>("web", |web| complete(web, 3)).await;
    assert_eq!(condition(&web, "Available"), Some(("True", "MinimumReplicasAvailable")));
    let revision = "deployment.kubernetes.io/revision";
    assert_eq!(web.metadata.annotations.as_ref().unwrap()[revision], "1");

    cluster.patch::<Deployment>("web", json!({"spec": {"template": template(json!({"app": "web"}), "v2")}})).await;
    let web = cluster.until::<Deployment>("web", |web| complete(web, 3) && web.metadata.generation == Some(2)).await;
    assert_eq!(web.metadata.annotations.as_ref().unwrap()[revision], "2");
    let pods = cluster.until_list::<Pod>(|pods| pods.len() == 3).await;
    assert!(pods.iter().all(|pod| image(pod) == "v2"));

    // Back to the first template: its ReplicaSet is used again, under a new revision.
    cluster.patch::<Deployment>("web", json!({"spec": {"template": template(json!({"app": "web"}), "v1")}})).await;
    cluster.until::<Deployment>("web", |web| complete(web, 3) && web.metadata.generation == Some(3)).await;
    let sets = cluster.list::<ReplicaSet>().await;
    assert_eq!(sets.len(), 2);
    let newest = sets.iter().find(|set| set.spec.as_ref().unwrap().replicas == Some(3)).unwrap();
    assert_eq!(newest.metadata.annotations.as_ref().unwrap()[revision], "3");
    assert_eq!(newest.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision-history"], "1");

    let events = cluster.until_list::<Event>(|events| events.len() > 8).await;
    let scaled = events.iter().any(|event| {
        event.reason.as_deref() == Some("ScalingReplicaSet")
            && event.message.as_deref().is_some_and(|message| message.starts_with("Scaled up replica set web-"))
    });
    assert!(scaled, "{events:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_template_stops_the_rollout_and_then_fails_it() {
    let cluster = Cluster::with(CONTROLLERS).await;
    let mut web = deployment("web", 4, "v1");
    web["spec"]["progressDeadlineSeconds"] = json!(60);
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    cluster.create::<Deployment>(web).await;
    cluster.until::<Deployment>("web", |web| complete(web, 4)).await;
    let broken = template(json!({"app": "web", "state": "broken"}), "v2");
    cluster.patch::<Deployment>("web", json!({"spec": {"template": broken}})).await;
    let failed = ("False", "ProgressDeadlineExceeded");
    let web = cluster.until::<Deployment>("web", |web| condition(web, "Progressing") == Some(failed)).await;
    assert_eq!(web.status.as_ref().unwrap().available_replicas, Some(3), "one may be missing, no more");
    let pods = cluster.list::<Pod>().await;
    assert_eq!(pods.iter().filter(|pod| image(pod) == "v1").count(), 3);
    assert_eq!(pods.iter().filter(|pod| image(pod) == "v2").count(), 2, "surge and the one that is missing");
}

#[tokio::test(start_paused = true)]
async fn recreate_ends_the_old_before_it_makes_the_new() {
    let cluster = Cluster::with(CONTROLLERS).await;
    let mut web = deployment("web", 2, "v1");
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create::<Deployment>(web).await;
    cluster.until::<Deployment>("web", |web| complete(web, 2)).await;
    let old: Vec<_> = cluster.list::<Pod>().await.iter().map(|pod| pod.metadata.clone()).collect();
    cluster.patch::<Deployment>("web", json!({"spec": {"template": template(json!({"app": "web"}), "v2")}})).await;
    cluster
        .until_list::<Pod>(|pods| {
            let (new, left): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| image(pod) == "v2");
            assert!(new.is_empty() || left.is_empty(), "old and new at a time");
            new.len() == 2
        })
        .await;
    assert_eq!(old.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let cluster = Cluster::with(CONTROLLERS).await;
    cluster.create::<Deployment>(deployment("web", 2, "v1")).await;
    cluster.until::<Deployment>("web", |web| complete(web, 2)).await;
    let paused = json!({"spec": {"paused": true, "replicas": 5, "template": template(json!({"app": "web"}), "v2")}});
    cluster.patch::<Deployment>("web", paused).await;
    let web = cluster
        .until::<Deployment>("web", |web| {
            web.status.as_ref().is_some_and(|status| status.available_replicas == Some(5))
        })
        .await;
    assert_eq!(condition(&web, "Progressing"), Some(("Unknown", "DeploymentPaused")));
    assert!(cluster.list::<Pod>().await.iter().all(|pod| image(pod) == "v1"));
    cluster.patch::<Deployment>("web", json!({"spec": {"paused": false}})).await;
    cluster.until::<Deployment>("web", |web| complete(web, 5)).await;
}

#[tokio::test(start_paused = true)]
async fn history_is_kept_up_to_its_limit() {
    let cluster = Cluster::with(CONTROLLERS).await;
    let mut web = deployment("web", 1, "v0");
    web["spec"]["revisionHistoryLimit"] = json!(2);
    cluster.create::<Deployment>(web).await;
    for version in 0..6 {
        let image = format!("v{version}");
        cluster
            .patch::<Deployment>("web", json!({"spec": {"template": template(json!({"app": "web"}), &image)}}))
            .await;
        cluster.until::<Deployment>("web", |web| complete(web, 1)).await;
    }
    cluster.until_list::<ReplicaSet>(|sets| sets.len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_heals_adopts_and_releases() {
    let cluster = Cluster::with(CONTROLLERS).await;
    let stray = json!({"metadata": {"name": "stray", "labels": {"app": "rs"}},
        "spec": {"containers": [{"name": "main", "image": "old"}]}});
    cluster.create::<Pod>(stray).await;
    let set = json!({"metadata": {"name": "rs"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "rs"}},
        "template": template(json!({"app": "rs"}), "v1")}});
    cluster.create::<ReplicaSet>(set).await;
    let ready = |count| move |set: &ReplicaSet| set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(count));
    cluster.until::<ReplicaSet>("rs", ready(3)).await;
    assert_eq!(cluster.list::<Pod>().await.len(), 3, "the stray one is one of them");

    cluster.delete::<Pod>("stray").await;
    cluster.until_list::<Pod>(|pods| pods.len() == 3 && pods.iter().all(|pod| image(pod) == "v1")).await;

    let released = cluster.list::<Pod>().await[0].metadata.name.clone().unwrap();
    cluster.patch::<Pod>(&released, json!({"metadata": {"labels": {"app": "debug"}}})).await;
    cluster.until_list::<Pod>(|pods| pods.len() == 4).await;
    let pod = cluster.until::<Pod>(&released, |pod| pod.metadata.owner_references.is_none()).await;
    assert!(pod.metadata.deletion_timestamp.is_none());

    cluster.patch::<ReplicaSet>("rs", json!({"spec": {"replicas": 1}})).await;
    cluster.until::<ReplicaSet>("rs", ready(1)).await;
    cluster.until_list::<Pod>(|pods| pods.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn deleting_a_deployment_takes_everything_with_it() {
    let cluster = Cluster::with(CONTROLLERS).await;
    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    cluster.until::<Deployment>("web", |web| complete(web, 3)).await;
    cluster.delete::<Deployment>("web").await;
    cluster.until_list::<ReplicaSet>(|sets| sets.is_empty()).await;
    cluster.until_list::<Pod>(|pods| pods.is_empty()).await;
}
