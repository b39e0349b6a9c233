//! What ResourceQuotas show, against the real API server on a paused clock.

mod cluster;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{Cluster, deployment};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, ResourceQuota, Service},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use rk_api::{Request, Resource, Verb, WriteOptions, server::Server};
use rk_store::MemoryStore;
use serde_json::{Value, json};

fn quota(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

/// What a quota shows of the names it limits: used, and the limit.
fn shown(quota: &ResourceQuota) -> BTreeMap<String, (String, String)> {
    let Some(status) = &quota.status else { return BTreeMap::new() };
    let used = |name: &String| status.used.as_ref().and_then(|used| used.get(name)).map_or("", |used| used.0.as_str());
    let hard = status.hard.iter().flatten();
    hard.map(|(name, limit)| (name.clone(), (used(name).to_owned(), limit.0.clone()))).collect()
}

async fn until(cluster: &Cluster, name: &str, wanted: &[(&str, &str, &str)]) {
    let of = |(name, used, hard): &(&str, &str, &str)| ((*name).to_owned(), ((*used).to_owned(), (*hard).to_owned()));
    let wanted: BTreeMap<_, _> = wanted.iter().map(of).collect();
    cluster.until::<ResourceQuota>(name, |quota| shown(quota) == wanted).await;
}

fn pod(name: &str, cpu: &str, class: &str) -> Value {
    let resources = if cpu.is_empty() { json!({}) } else { json!({"requests": {"cpu": cpu, "memory": "64Mi"}}) };
    json!({"metadata": {"name": name}, "spec": {"priorityClassName": class,
        "containers": [{"name": "main", "image": "v1", "resources": resources}]}})
}

#[tokio::test(start_paused = true)]
async fn a_quota_shows_what_is_used_of_it() {
    let cluster = Cluster::with(&["resourcequota-controller", "deployment-controller", "replicaset-controller"]).await;
    let hard = json!({"pods": "10", "requests.cpu": "2", "memory": "1Gi", "configmaps": "5", "count/deployments.apps": "3",
        "services": "4", "services.nodeports": "2", "persistentvolumeclaims": "1"});
    cluster.create::<ResourceQuota>(quota("all", json!({"hard": hard}))).await;
    let rest = [("persistentvolumeclaims", "0", "1")];
    let none =
        ["configmaps", "count/deployments.apps", "memory", "pods", "requests.cpu", "services", "services.nodeports"];
    let limits = ["5", "3", "1Gi", "10", "2", "4", "2"];
    let with = |used: [&'static str; 7]| -> Vec<_> {
        none.into_iter().zip(used).zip(limits).map(|((name, used), limit)| (name, used, limit)).chain(rest).collect()
    };
    until(&cluster, "all", &with(["0", "0", "0", "0", "0", "0", "0"])).await;

    for name in ["a", "b"] {
        cluster.create::<Pod>(pod(name, "250m", "")).await;
        cluster.create::<ConfigMap>(json!({"metadata": {"name": name}})).await;
    }
    cluster.create::<Deployment>(deployment("web", 2, "v1")).await;
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": ports}});
    cluster.create::<Service>(service).await;
    until(&cluster, "all", &with(["2", "1", "128Mi", "4", "500m", "1", "2"])).await;

    // What ends or goes is used no more; what changes counts as it is now.
    cluster.delete::<Pod>("a").await;
    cluster.delete::<ConfigMap>("a").await;
    cluster.patch::<Service>("s", json!({"spec": {"type": "ClusterIP", "ports": ports}})).await;
    until(&cluster, "all", &with(["1", "1", "64Mi", "3", "250m", "1", "0"])).await;
    cluster.patch::<ResourceQuota>("all", json!({"spec": {"hard": {"pods": "2"}}})).await;
    let fewer: Vec<_> = with(["1", "1", "64Mi", "3", "250m", "1", "0"])
        .into_iter()
        .map(|(name, used, limit)| (name, used, if name == "pods" { "2" } else { limit }))
        .collect();
    until(&cluster, "all", &fewer).await;
}

#[tokio::test(start_paused = true)]
async fn scopes_choose_what_is_counted() {
    let cluster = Cluster::with(&["resourcequota-controller"]).await;
    cluster.create::<ResourceQuota>(quota("cheap", json!({"hard": {"pods": "9"}, "scopes": ["BestEffort"]}))).await;
    let class = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
    cluster
        .create::<ResourceQuota>(quota("high", json!({"hard": {"pods": "9", "cpu": "9"}, "scopeSelector": class})))
        .await;
    cluster.create::<Pod>(pod("a", "", "")).await;
    cluster.create::<Pod>(pod("b", "1", "high")).await;
    cluster.create::<Pod>(pod("c", "2", "low")).await;
    until(&cluster, "cheap", &[("pods", "1", "9")]).await;
    until(&cluster, "high", &[("cpu", "1", "9"), ("pods", "1", "9")]).await;
}

#[tokio::test(start_paused = true)]
async fn custom_resources_are_counted_and_unknown_ones_are_left_out() {
    let cluster = Cluster::bare().await;
    cluster.manage(&["resourcequota-controller"]);
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}],
    }});
    cluster.server.define(definition).await.unwrap();
    let hard = json!({"count/widgets.example.com": "3", "count/nothings.example.com": "1"});
    cluster.create::<ResourceQuota>(quota("widgets", json!({"hard": hard}))).await;
    let unknown = ("count/nothings.example.com", "", "1");
    until(&cluster, "widgets", &[unknown, ("count/widgets.example.com", "0", "3")]).await;
    for name in ["a", "b"] {
        let verb = Verb::Create(json!({"metadata": {"name": name}}), WriteOptions::default());
        let resource = Resource::new("example.com", "v1", "Widget", "widgets", true);
        let (namespace, name, subresource) = ("default".to_owned(), String::new(), String::new());
        cluster.client.request(Request { resource, namespace, name, subresource, verb }).await.unwrap();
    }
    until(&cluster, "widgets", &[unknown, ("count/widgets.example.com", "2", "3")]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_holds_up_no_other_and_stays_as_it_was_counted() {
    let cluster =
        Cluster::built(Server::builder(Arc::new(MemoryStore::new())).groups(["", "coordination.k8s.io"])).await;
    cluster.manage(&["resourcequota-controller"]);
    let hard = json!({"pods": "9", "count/deployments.apps": "2"});
    cluster.create::<ResourceQuota>(quota("q", json!({"hard": hard}))).await;
    cluster.create::<Pod>(pod("a", "1", "")).await;
    until(&cluster, "q", &[("count/deployments.apps", "", "2"), ("pods", "1", "9")]).await;
    // As whoever serves them would.
    let mut counted = ResourceQuota::clone(&*cluster.api::<ResourceQuota>().get("q").await.unwrap());
    let used = counted.status.as_mut().unwrap().used.as_mut().unwrap();
    used.insert("count/deployments.apps".into(), Quantity("1".into()));
    cluster.api::<ResourceQuota>().update_status(&counted).await.unwrap();
    cluster.create::<Pod>(pod("b", "1", "")).await;
    until(&cluster, "q", &[("count/deployments.apps", "1", "2"), ("pods", "2", "9")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_not_written_where_nothing_changes() {
    let cluster = Cluster::with(&["resourcequota-controller"]).await;
    cluster.create::<ResourceQuota>(quota("q", json!({"hard": {"pods": "9"}}))).await;
    until(&cluster, "q", &[("pods", "0", "9")]).await;
    let version = async || cluster.api::<ResourceQuota>().get("q").await.unwrap().metadata.resource_version.clone();
    let before = version().await;
    cluster.create::<Service>(json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(version().await, before);
}
