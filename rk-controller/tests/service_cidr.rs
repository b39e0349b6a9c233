//! Ranges of cluster IPs, against the real API server on a paused clock.

mod cluster;

use std::time::Duration;

use cluster::Cluster;
use k8s_openapi::api::{
    core::v1::Service,
    networking::v1::{IPAddress, ServiceCIDR},
};
use rk_api::{
    Api, DeleteOptions, ListOptions,
    server::{
        Server,
        kinds::service::{Ranges, strategy},
    },
};
use rk_store::MemoryStore;
use serde_json::{Value, json};

const CONTROLLERS: [&str; 1] = ["service-cidr-controller"];
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// A cluster with two cluster IPs beside that of the API.
async fn cluster() -> Cluster {
    let ranges = Ranges { cluster_ips: "10.0.0.0/29".parse().unwrap(), node_ports: 30_000..=30_010, seed: 1 };
    let cluster = Cluster::built(Server::builder(std::sync::Arc::new(MemoryStore::new())).strategy(
        "",
        "Service",
        strategy(ranges),
    ))
    .await;
    cluster.manage(&CONTROLLERS);
    range(&cluster, "kubernetes", "10.0.0.0/29").await;
    cluster
}

async fn range(cluster: &Cluster, name: &str, cidr: &str) {
    cluster.create::<ServiceCIDR>(json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}})).await;
    ready(cluster, name, "True").await;
}

/// Waits until a range says so.
async fn ready(cluster: &Cluster, name: &str, wanted: &str) -> String {
    let is = |range: &ServiceCIDR| {
        let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
        ready.next().is_some_and(|ready| ready.status == wanted)
            && range.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
    };
    let range = cluster.until_all::<ServiceCIDR>(name, is).await;
    range.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].reason.clone()
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

async fn ip(cluster: &Cluster, name: &str) -> String {
    cluster.create::<Service>(service(name)).await.spec.as_ref().unwrap().cluster_ip.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_second_range_serves_when_the_first_is_full_and_stays_while_services_have_its_addresses() {
    let cluster = cluster().await;
    for i in 0..5 {
        assert!(ip(&cluster, &format!("s{i}")).await.starts_with("10.0.0."));
    }
    let services = cluster.api::<Service>();
    let full = services.create(&serde_json::from_value(service("more")).unwrap()).await.unwrap_err();
    assert!(full.to_string().contains("range is full"), "{full}");

    range(&cluster, "second", "10.9.0.0/24").await;
    let given = ip(&cluster, "more").await;
    assert!(given.starts_with("10.9.0."), "{given}");
    let addresses = Api::<IPAddress>::all(cluster.client.clone());
    let address = addresses.get(&given).await.unwrap();
    let parent = &address.spec.parent_ref;
    assert_eq!(
        (parent.resource.as_str(), parent.name.as_str(), parent.namespace.as_deref()),
        ("services", "more", Some("default"))
    );

    let ranges = Api::<ServiceCIDR>::all(cluster.client.clone());
    ranges.delete("second", DeleteOptions::default()).await.unwrap();
    assert_eq!(ready(&cluster, "second", "False").await, "Terminating");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(ranges.get("second").await.is_ok(), "a Service has an address of it");
    let refused = services.create(&serde_json::from_value(service("another")).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("range is full"), "{refused}");
    cluster.delete::<Service>("more").await;
    let look = async || ranges.get_opt("second").await.unwrap().is_none().then_some(());
    cluster.look_until(look, || "the end of the range".to_owned()).await;
    assert_eq!(addresses.list(ListOptions::default()).await.unwrap().items.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_range_within_another_goes_at_once_and_one_that_is_not_used_after_a_grace_period() {
    let cluster = cluster().await;
    range(&cluster, "inner", "10.9.1.0/24").await;
    range(&cluster, "unused", "10.8.0.0/24").await;
    let mut wanted = service("a");
    wanted["spec"]["clusterIP"] = "10.9.1.7".into();
    cluster.create::<Service>(wanted).await;
    range(&cluster, "outer", "10.9.0.0/16").await;
    let ranges = Api::<ServiceCIDR>::all(cluster.client.clone());
    for name in ["inner", "unused"] {
        ranges.delete(name, DeleteOptions::default()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(ranges.get(name).await.unwrap().metadata.deletion_timestamp.is_some(), "{name} waits");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(ranges.get_opt(name).await.unwrap().is_none(), "{name} is gone");
    }
    // Now it is the outer one that holds the address.
    ranges.delete("outer", DeleteOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(ranges.get("outer").await.is_ok());
    // One that takes its place lets it go.
    range(&cluster, "another", "10.9.0.0/23").await;
    let look = async || ranges.get_opt("outer").await.unwrap().is_none().then_some(());
    cluster.look_until(look, || "the end of the range".to_owned()).await;
}
