//! Storage objects in use, against the real API server on a paused clock.

mod cluster;

use std::time::Duration;

use cluster::Cluster;
use k8s_openapi::api::{
    core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::VolumeAttributesClass,
};
use rk_api::{Api, DeleteOptions, Patch, ResourceType};
use serde_json::{Value, json};

const CONTROLLERS: [&str; 3] = [
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "volumeattributesclass-protection-controller",
];

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}}}})
}

fn pod(name: &str, state: &str, volumes: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"state": state}},
        "spec": {"containers": [{"name": "main", "image": "v1"}], "volumes": volumes}})
}

/// Deletes what is protected; it is there, deleted, for a while.
async fn delete<K: ResourceType>(api: &Api<K>, name: &str) {
    api.delete(name, DeleteOptions::default()).await.unwrap();
    stays(api, name).await;
}

async fn stays<K: ResourceType>(api: &Api<K>, name: &str) {
    tokio::time::sleep(Duration::from_secs(300)).await;
    let object = api.get(name).await.unwrap();
    assert!(object.meta().deletion_timestamp.is_some(), "{name} was deleted and waits");
}

async fn goes<K: ResourceType>(cluster: &Cluster, api: &Api<K>, name: &str) {
    let look = async || api.get_opt(name).await.unwrap().is_none().then_some(());
    cluster.look_until(look, || format!("the end of {name}")).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_goes_when_no_pod_has_it() {
    let cluster = Cluster::with(&CONTROLLERS).await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let made = cluster.create::<PersistentVolumeClaim>(claim("data")).await;
    assert_eq!(made.metadata.finalizers.as_deref(), Some(&["kubernetes.io/pvc-protection".to_owned()][..]));
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    // One that has ended has it all the same, until it goes.
    for (name, state) in [("runs", "runs"), ("ended", "done")] {
        cluster.create::<Pod>(pod(name, state, volumes.clone())).await;
        let phase = if state == "done" { "Succeeded" } else { "Running" };
        let is = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some(phase));
        cluster.until::<Pod>(name, is).await;
    }
    delete(&claims, "data").await;
    cluster.delete::<Pod>("runs").await;
    stays(&claims, "data").await;
    cluster.delete::<Pod>("ended").await;
    goes(&cluster, &claims, "data").await;

    cluster.create::<PersistentVolumeClaim>(claim("unused")).await;
    claims.delete("unused", DeleteOptions::default()).await.unwrap();
    goes(&cluster, &claims, "unused").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_node_holds_no_claim_and_one_with_an_ephemeral_volume_its_own_only() {
    let cluster = Cluster::bare().await;
    cluster.manage(&CONTROLLERS);
    let claims = cluster.api::<PersistentVolumeClaim>();
    cluster.create::<PersistentVolumeClaim>(claim("data")).await;
    cluster
        .create::<Pod>(pod("waits", "", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])))
        .await;
    claims.delete("data", DeleteOptions::default()).await.unwrap();
    goes(&cluster, &claims, "data").await;

    cluster.add_node("node-1").await;
    let template = json!({"spec": claim("x")["spec"]});
    let pod = pod("p", "", json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]));
    let pod = cluster.create::<Pod>(pod).await;
    cluster.until::<Pod>("p", |pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())).await;
    for own in [false, true] {
        let mut claim = claim("p-v");
        if own {
            let owner =
                json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod.metadata.uid, "controller": true});
            claim["metadata"]["ownerReferences"] = json!([owner]);
        }
        cluster.create::<PersistentVolumeClaim>(claim).await;
        if own {
            delete(&claims, "p-v").await;
            cluster.delete::<Pod>("p").await;
        } else {
            claims.delete("p-v", DeleteOptions::default()).await.unwrap();
        }
        goes(&cluster, &claims, "p-v").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_goes_when_it_is_not_bound_and_a_class_when_nobody_names_it() {
    let cluster = Cluster::with(&CONTROLLERS).await;
    let volumes = Api::<PersistentVolume>::all(cluster.client.clone());
    let classes = Api::<VolumeAttributesClass>::all(cluster.client.clone());
    cluster
        .create::<VolumeAttributesClass>(
            json!({"metadata": {"name": "fast"}, "driverName": "example.com", "parameters": {"iops": "9"}}),
        )
        .await;
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain", "volumeAttributesClassName": "fast",
        "csi": {"driver": "example.com", "volumeHandle": "h"}}});
    cluster.create::<PersistentVolume>(volume).await;
    volumes.patch_status("v", Patch::merge(json!({"status": {"phase": "Bound"}}))).await.unwrap();
    delete(&volumes, "v").await;
    delete(&classes, "fast").await;
    volumes.patch_status("v", Patch::merge(json!({"status": {"phase": "Released"}}))).await.unwrap();
    goes(&cluster, &volumes, "v").await;
    goes(&cluster, &classes, "fast").await;
}

#[tokio::test(start_paused = true)]
async fn those_without_the_finalizer_get_it_and_a_namespace_ends_with_its_claims() {
    let cluster = Cluster::bare().await;
    let mut shop = claim("data");
    cluster.create::<Namespace>(json!({"metadata": {"name": "shop"}})).await;
    shop["metadata"]["namespace"] = json!("shop");
    cluster.create::<PersistentVolumeClaim>(shop).await;
    let claims = Api::<PersistentVolumeClaim>::namespaced(cluster.client.clone(), "shop");
    claims.patch("data", Patch::merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    cluster.manage(&["*"]);
    let protected = async || {
        let claim = claims.get("data").await.unwrap();
        claim.metadata.finalizers.as_ref().is_some_and(|all| all.len() == 1).then_some(())
    };
    cluster.look_until(protected, || "the finalizer".into()).await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    namespaces.delete("shop", DeleteOptions::default()).await.unwrap();
    goes(&cluster, &namespaces, "shop").await;
}
