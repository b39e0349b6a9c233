//! Each cluster IP of a Service is an IPAddress, which comes and goes with it and is mended where others break it.
#![cfg(feature = "server")]
#![allow(missing_docs)]

use std::{sync::Arc, time::Duration};

use rk_api::{
    Api, Client, DeleteOptions, ListOptions, Patch,
    k8s_openapi::api::{
        core::v1::{Event, Service},
        networking::v1::IPAddress,
    },
    server::{
        Server, UserInfo,
        kinds::service::{Ranges, strategy},
    },
};
use rk_store::MemoryStore;
use serde_json::{Value, json};

struct Cluster {
    client: Arc<dyn Client>,
    services: Api<Service>,
    addresses: Api<IPAddress>,
}

fn builder(store: &Arc<MemoryStore>) -> rk_api::server::ServerBuilder {
    let ranges = Ranges { cluster_ips: ([10, 0, 0, 0].into(), 24), node_ports: 30_000..=30_010, seed: 1 };
    Server::builder(store.clone()).strategy("", "Service", strategy(ranges)).bootstrap_namespaces()
}

impl Cluster {
    async fn new(store: &Arc<MemoryStore>) -> Self {
        let client = builder(store).build().await.unwrap().client(UserInfo::loopback());
        Self { services: Api::namespaced(client.clone(), "default"), addresses: Api::all(client.clone()), client }
    }

    async fn create(&self, name: &str, mut spec: Value) -> Result<Arc<Service>, rk_api::Error> {
        spec["ports"] = json!([{"port": 80}]);
        let service = json!({"metadata": {"name": name}, "spec": spec});
        self.services.create(&serde_json::from_value(service).unwrap()).await
    }

    /// The addresses and whose they are.
    async fn held(&self) -> Vec<(String, String)> {
        let all = self.addresses.list(ListOptions::default()).await.unwrap().items;
        let parent = |address: &IPAddress| {
            let parent = &address.spec.parent_ref;
            [parent.resource.as_str(), parent.namespace.as_deref().unwrap_or_default(), &parent.name].join("/")
        };
        all.iter().map(|address| (address.metadata.name.clone().unwrap(), parent(address))).collect()
    }

    /// Waits until the addresses are these.
    async fn until(&self, wanted: &[(&str, &str)]) {
        let is = async || {
            while !self.held().await.iter().map(|(ip, of)| (ip.as_str(), of.as_str())).eq(wanted.iter().copied()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let come = tokio::time::timeout(Duration::from_secs(60), is()).await;
        assert!(come.is_ok(), "{wanted:?}, but there are {:?}", self.held().await);
    }

    async fn told(&self, reason: &str) {
        let events = Api::<Event>::namespaced(self.client.clone(), "default");
        let look = async || loop {
            let all = events.list(ListOptions::default()).await.unwrap().items;
            if all.iter().any(|event| event.reason.as_deref() == Some(reason)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        tokio::time::timeout(Duration::from_secs(60), look())
            .await
            .unwrap_or_else(|_| panic!("nobody told of {reason}"));
    }
}

fn address(name: &str, parent: Value, labels: Value) -> IPAddress {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": {"parentRef": parent}}))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_address_comes_and_goes_with_its_service() {
    let cluster = Cluster::new(&Arc::new(MemoryStore::new())).await;
    let made = cluster.create("web", json!({"clusterIP": "10.0.0.9"})).await.unwrap();
    cluster.create("headless", json!({"clusterIP": "None"})).await.unwrap();
    assert_eq!(cluster.held().await, [("10.0.0.9".to_owned(), "services/default/web".to_owned())]);
    let object = cluster.addresses.get("10.0.0.9").await.unwrap();
    // Both are of one transaction.
    assert_eq!(object.metadata.resource_version, made.metadata.resource_version);
    let labels = serde_json::to_value(&object.metadata.labels).unwrap();
    let wanted =
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator"});
    assert_eq!(labels, wanted);
    assert!(object.metadata.uid.is_some() && object.metadata.creation_timestamp.is_some());
    let manager = object.metadata.managed_fields.as_ref().unwrap()[0].manager.as_deref();
    assert_eq!(manager, Some("kube-apiserver"));

    let external =
        json!({"spec": {"type": "ExternalName", "externalName": "a.example.com", "clusterIP": "", "clusterIPs": null}});
    cluster.services.patch("web", Patch::merge(external)).await.unwrap();
    assert_eq!(cluster.held().await, []);
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null, "clusterIP": "10.0.0.7"}});
    cluster.services.patch("web", Patch::merge(back)).await.unwrap();
    assert_eq!(cluster.held().await, [("10.0.0.7".to_owned(), "services/default/web".to_owned())]);
    let taken = cluster.create("other", json!({"clusterIP": "10.0.0.7"})).await.unwrap_err();
    assert!(taken.to_string().contains("provided IP is already allocated"), "{taken}");
    cluster.services.delete("web", DeleteOptions::default()).await.unwrap();
    assert_eq!(cluster.held().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_others_break_is_mended() {
    let cluster = Cluster::new(&Arc::new(MemoryStore::new())).await;
    let web = ("10.0.0.9", "services/default/web");
    cluster.create("web", json!({"clusterIP": "10.0.0.9"})).await.unwrap();
    cluster.addresses.delete("10.0.0.9", DeleteOptions::default()).await.unwrap();
    cluster.until(&[web]).await;
    cluster.told("ClusterIPNotAllocated").await;

    let unlabelled = json!({"metadata": {"labels": null}});
    cluster.addresses.patch("10.0.0.9", Patch::merge(unlabelled)).await.unwrap();
    let look = async || {
        while cluster.addresses.get("10.0.0.9").await.unwrap().metadata.labels.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look()).await.unwrap();

    // One that was made as if for a Service goes, one of somebody else stays.
    let managed = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator"});
    let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
    cluster.addresses.create(&address("10.0.0.8", parent, managed)).await.unwrap();
    let gateway =
        json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default", "name": "g"});
    cluster.addresses.create(&address("10.0.0.3", gateway, Value::Null)).await.unwrap();
    cluster.until(&[("10.0.0.3", "gateways/default/g"), web]).await;
    cluster.told("IPAddressNotAllocated").await;
    let taken = cluster.create("other", json!({"clusterIP": "10.0.0.3"})).await.unwrap_err();
    assert!(taken.to_string().contains("provided IP is already allocated"), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn services_of_an_older_store_get_their_addresses() {
    use rk_store::{DeleteRequest, KeyRange, Op, Store, Txn};
    let store = Arc::new(MemoryStore::new());
    let first = Cluster::new(&store).await;
    first.create("web", json!({"clusterIP": "10.0.0.9"})).await.unwrap();
    drop(first);
    let range = KeyRange::key("/registry/networking.k8s.io/ipaddresses/10.0.0.9");
    let success = vec![Op::Delete(DeleteRequest { range, prev_kv: false })];
    let done = store.txn(Txn { compare: Vec::new(), success, failure: Vec::new() }).await.unwrap();
    assert!(done.succeeded);
    let cluster = Cluster::new(&store).await;
    cluster.until(&[("10.0.0.9", "services/default/web")]).await;
}
