//! Endpoints and EndpointSlices against the real API server, on a paused clock.

mod cluster;

use cluster::{Cluster, deployment};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use rk_api::{Api, Patch};
use serde_json::{Value, json};

const CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
];

fn service(name: &str, more: Value) -> Value {
    let mut service = json!({"metadata": {"name": name, "labels": {"team": "shop"}}, "spec": {
        "selector": {"app": name}, "clusterIP": "None",
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}});
    for (field, value) in more.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

fn endpoints(slices: &[std::sync::Arc<EndpointSlice>]) -> usize {
    slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum()
}

#[tokio::test(start_paused = true)]
async fn slices_follow_the_pods_of_a_service() {
    let cluster = Cluster::with(CONTROLLERS).await;
    cluster.create::<Service>(service("web", json!({}))).await;
    let empty = cluster.until_list::<EndpointSlice>(|slices| slices.len() == 1).await;
    assert_eq!(endpoints(&empty), 0, "a service without pods has an empty slice");

    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    let ready = |slices: &[std::sync::Arc<EndpointSlice>]| {
        let all = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        all.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
    };
    let slices = cluster.until_list::<EndpointSlice>(|slices| slices.len() == 1 && ready(slices) == 3).await;
    let slice = &slices[0];
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["team"], "shop");
    assert!(labels.contains_key("service.kubernetes.io/headless"));
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(8080)), "the named port of the pods");
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("node-1"), Some("z1")));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().kind.as_deref(), Some("Pod"));

    let addresses = |endpoints: &Endpoints| {
        let subsets = endpoints.subsets.iter().flatten();
        subsets.map(|subset| subset.addresses.as_ref().map_or(0, Vec::len)).sum::<usize>()
    };
    cluster.until::<Endpoints>("web", |endpoints| addresses(endpoints) == 3).await;

    let moved = Patch::merge(json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z2"}}}));
    Api::<Node>::all(cluster.client.clone()).patch("node-1", moved).await.unwrap();
    cluster
        .until_list::<EndpointSlice>(|slices| {
            let mut all = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
            all.all(|endpoint| endpoint.zone.as_deref() == Some("z2"))
        })
        .await;

    cluster.patch::<Deployment>("web", json!({"spec": {"replicas": 250}})).await;
    let slices = cluster.until_list::<EndpointSlice>(|slices| ready(slices) == 250).await;
    assert!(slices.iter().all(|slice| slice.endpoints.as_ref().unwrap().len() <= 100));
    assert!((3..=4).contains(&slices.len()), "{} slices", slices.len());

    cluster.patch::<Deployment>("web", json!({"spec": {"replicas": 0}})).await;
    cluster.until_list::<EndpointSlice>(|slices| slices.len() == 1 && endpoints(slices) == 0).await;
    cluster.until::<Endpoints>("web", |endpoints| endpoints.subsets.is_none()).await;
    cluster.delete::<Service>("web").await;
    cluster.until_list::<EndpointSlice>(|slices| slices.is_empty()).await;
    cluster.until_list::<Endpoints>(|endpoints| endpoints.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_not_ready_are_told_apart_or_published_all_the_same() {
    let cluster = Cluster::with(CONTROLLERS).await;
    cluster.create::<Service>(service("web", json!({}))).await;
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "web", "state": "broken"}},
        "spec": {"containers": [{"name": "main", "image": "v1", "ports": [{"name": "web", "containerPort": 8080}]}]}});
    cluster.create::<Pod>(pod).await;
    let conditions = |slices: &[std::sync::Arc<EndpointSlice>]| {
        let endpoint = slices.first()?.endpoints.as_ref()?.first()?.clone();
        let conditions = endpoint.conditions?;
        Some((conditions.ready?, conditions.serving?, conditions.terminating?))
    };
    cluster.until_list::<EndpointSlice>(|slices| conditions(slices) == Some((false, false, false))).await;
    cluster
        .until::<Endpoints>("web", |endpoints| {
            endpoints
                .subsets
                .iter()
                .flatten()
                .any(|subset| subset.not_ready_addresses.as_ref().map_or(0, Vec::len) == 1)
        })
        .await;
    cluster.patch::<Service>("web", json!({"spec": {"publishNotReadyAddresses": true}})).await;
    cluster.until_list::<EndpointSlice>(|slices| conditions(slices) == Some((true, false, false))).await;
}
