//! Bootstrap objects and RBAC in a real server.
#![cfg(feature = "server")]

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Endpoints, Namespace, Service},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
    scheduling::v1::PriorityClass,
};
use rk_api::{
    Api, Client, DeleteOptions, ListOptions,
    server::{
        LateReader, Server, UserInfo,
        authz::{NodeAuthorizer, Rbac, SuperUsers},
        bootstrap::{ApiServer, Config, ensure},
    },
};
use rk_store::MemoryStore;

async fn server() -> Server {
    let reader = LateReader::new();
    let server = Server::builder(Arc::new(MemoryStore::new()))
        .authorizer(Arc::new(SuperUsers))
        .authorizer(Arc::new(NodeAuthorizer::new(reader.clone())))
        .authorizer(Arc::new(Rbac::new(reader.clone())))
        .build()
        .await
        .unwrap();
    reader.bind(&server.reader());
    server
}

fn config(port: u16) -> Config {
    Config {
        api_server: Some(ApiServer {
            addresses: vec!["127.0.0.1".parse().unwrap()],
            port,
            service_port: 443,
            cluster_ip: "10.96.0.1".parse().unwrap(),
        }),
        root_ca: Some("PEM".into()),
        flow_control: true,
        ..Config::default()
    }
}

/// The version of the newest change of a collection.
async fn version(client: &Arc<dyn Client>) -> String {
    Api::<Namespace>::all(client.clone()).list(ListOptions::default()).await.unwrap().resource_version
}

#[tokio::test]
async fn a_cluster_gets_its_objects_once_and_keeps_them_right() {
    let server = server().await;
    let client = server.client(UserInfo::loopback());
    ensure(&*client, &config(6443)).await.unwrap();
    let before = version(&client).await;
    ensure(&*client, &config(6443)).await.unwrap();
    assert_eq!(version(&client).await, before, "a complete cluster is only read");

    let roles = Api::<ClusterRole>::all(client.clone());
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    roles.delete("view", DeleteOptions::default()).await.unwrap();
    let mut edit = (*roles.get("edit").await.unwrap()).clone();
    edit.rules = None;
    roles.update(&edit).await.unwrap();
    bindings.delete("system:discovery", DeleteOptions::default()).await.unwrap();
    ensure(&*client, &config(7443)).await.unwrap();
    assert!(roles.get("view").await.unwrap().aggregation_rule.is_some());
    assert!(!roles.get("edit").await.unwrap().rules.clone().unwrap().is_empty());
    bindings.get("system:discovery").await.unwrap();
    let service = Api::<Service>::namespaced(client.clone(), "default").get("kubernetes").await.unwrap();
    assert_eq!(service.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    let endpoints = Api::<Endpoints>::namespaced(client.clone(), "default").get("kubernetes").await.unwrap();
    assert_eq!(endpoints.subsets.as_ref().unwrap()[0].ports.as_ref().unwrap()[0].port, 7443);
    let critical = Api::<PriorityClass>::all(client).get("system-node-critical").await.unwrap();
    assert_eq!(critical.value, Some(2_000_001_000));
}

#[tokio::test]
async fn the_default_roles_let_components_do_their_work_and_others_nothing() {
    let server = server().await;
    ensure(&*server.client(UserInfo::loopback()), &config(6443)).await.unwrap();
    let scheduler = server.client(UserInfo::new("system:kube-scheduler", ["system:authenticated"]));
    Api::<k8s_openapi::api::core::v1::Node>::all(scheduler.clone()).list(ListOptions::default()).await.unwrap();
    let node = server.client(UserInfo::new("system:node:n1", ["system:nodes", "system:authenticated"]));
    Api::<Service>::all(node).list(ListOptions::default()).await.unwrap();
    let jane = server.client(UserInfo::new("jane", ["system:authenticated"]));
    let error = Api::<Service>::namespaced(jane, "default").list(ListOptions::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "services is forbidden: User \"jane\" cannot list resource \"services\" in API group \"\" in the namespace \
         \"default\""
    );
}
