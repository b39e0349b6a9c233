//! Each cluster IP of a Service is an IPAddress, which comes and goes with it and is mended where others break it.
#![cfg(feature = "server")]
#![allow(missing_docs)]

use std::{sync::Arc, time::Duration};

use rk_api::{
    Api, Client, DeleteOptions, ListOptions, Patch,
    k8s_openapi::api::{
        core::v1::{Event, Service},
        networking::v1::{IPAddress, ServiceCIDR},
    },
    server::{
        Server, UserInfo, bootstrap,
        kinds::service::{Ranges, strategy},
    },
};
use rk_store::{DeleteRequest, KeyRange, MemoryStore, Op, PutRequest, Store, Txn};
use serde_json::{Value, json};

struct Cluster {
    client: Arc<dyn Client>,
    services: Api<Service>,
    addresses: Api<IPAddress>,
}

fn builder(store: &Arc<MemoryStore>) -> rk_api::server::ServerBuilder {
    let ranges = Ranges { cluster_ips: "10.0.0.0/24".parse().unwrap(), node_ports: 30_000..=30_010, seed: 1 };
    Server::builder(store.clone()).strategy("", "Service", strategy(ranges)).bootstrap_namespaces()
}

impl Cluster {
    async fn new(store: &Arc<MemoryStore>) -> Self {
        Self::of(builder(store)).await
    }

    async fn of(builder: rk_api::server::ServerBuilder) -> Self {
        let client = builder.build().await.unwrap().client(UserInfo::loopback());
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

    async fn told(&self, reason: &str, message: &str) {
        let events = Api::<Event>::namespaced(self.client.clone(), "default");
        let all = async || events.list(ListOptions::default()).await.unwrap().items;
        let look = async || {
            let is = |event: &Arc<Event>| {
                (event.reason.as_deref(), event.message.as_deref()) == (Some(reason), Some(message))
            };
            while !all().await.iter().any(is) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(60), look()).await;
        assert!(told.is_ok(), "nobody told of {reason}: {message}, but of {:?}", all().await);
    }

    fn ranges(&self) -> Api<ServiceCIDR> {
        Api::all(self.client.clone())
    }

    /// Waits until the ServiceCIDR `kubernetes` has these networks and is ready.
    async fn range(&self, cidrs: &[&str]) -> Arc<ServiceCIDR> {
        let is = |range: &ServiceCIDR| {
            let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let ready =
                conditions.map(|condition| (&condition.type_[..], &condition.status[..], &condition.message[..]));
            range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()).eq(cidrs)
                && ready.eq([("Ready", "True", "Kubernetes default Service CIDR is ready")])
        };
        let look = async || loop {
            match self.ranges().get_opt("kubernetes").await.unwrap() {
                Some(range) if is(&range) => return range,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        tokio::time::timeout(Duration::from_secs(60), look())
            .await
            .unwrap_or_else(|_| panic!("the range is not {cidrs:?}"))
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
    cluster.told("ClusterIPNotAllocated", "Cluster IP [IPv4]: 10.0.0.9 is not allocated; repairing").await;

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
    cluster.addresses.create(&address("10.0.0.8", parent, managed.clone())).await.unwrap();
    let gateway =
        json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default", "name": "g"});
    cluster.addresses.create(&address("10.0.0.3", gateway, Value::Null)).await.unwrap();
    cluster.until(&[("10.0.0.3", "gateways/default/g"), web]).await;
    let text = "IPAddress: 10.0.0.8 for Service default/web has a wrong reference; cleaning up";
    cluster.told("IPAddressWrongReference", text).await;
    let parent = json!({"resource": "services", "namespace": "default", "name": "gone"});
    cluster.addresses.create(&address("10.0.0.8", parent, managed.clone())).await.unwrap();
    let text = "IPAddress: 10.0.0.8 for Service default/gone appears to have leaked: cleaning up";
    cluster.told("IPAddressNotAllocated", text).await;
    let parent = json!({"group": "example.com", "resource": "gates", "name": "g"});
    cluster.addresses.create(&address("10.0.0.8", parent, managed)).await.unwrap();
    let text = "IPAddress 10.0.0.8 appears to have been modified, not referencing a Service \
                &ParentReference{Group:example.com,Resource:gates,Namespace:,Name:g,}: cleaning up";
    cluster.told("IPAddressNotAllocated", text).await;
    cluster.until(&[("10.0.0.3", "gateways/default/g"), web]).await;
    let taken = cluster.create("other", json!({"clusterIP": "10.0.0.3"})).await.unwrap_err();
    assert!(taken.to_string().contains("provided IP is already allocated"), "{taken}");
}

/// Takes an object away behind the back of the servers, as a backup of another time does.
async fn forget(store: &MemoryStore, item: &str) {
    let range = KeyRange::key(format!("/registry/{item}"));
    write(store, Op::Delete(DeleteRequest { range, prev_kv: false })).await;
}

async fn write(store: &MemoryStore, op: Op) {
    let done = store.txn(Txn { compare: Vec::new(), success: vec![op], failure: Vec::new() }).await.unwrap();
    assert!(done.succeeded);
}

#[tokio::test(start_paused = true)]
async fn services_of_an_older_store_get_their_addresses() {
    let store = Arc::new(MemoryStore::new());
    let first = Cluster::new(&store).await;
    first.create("web", json!({"clusterIP": "10.0.0.9"})).await.unwrap();
    drop(first);
    forget(&store, "networking.k8s.io/ipaddresses/10.0.0.9").await;
    let cluster = Cluster::new(&store).await;
    cluster.until(&[("10.0.0.9", "services/default/web")]).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_two_services_have_or_that_is_in_no_range_is_told_and_left() {
    let store = Arc::new(MemoryStore::new());
    let config =
        bootstrap::Config { service_cidr: Some("10.0.0.0/24".parse().unwrap()), ..bootstrap::Config::default() };
    let first = Cluster::of(builder(&store).bootstrap(config.clone())).await;
    first.range(&["10.0.0.0/24"]).await;
    let web = first.create("web", json!({"clusterIP": "10.0.0.9"})).await.unwrap();
    // As if by servers that did not know of each other.
    for (name, ip) in [("twin", "10.0.0.9"), ("stray", "10.1.0.9")] {
        let mut copy = serde_json::to_value(&*web).unwrap();
        // A stored object has no version of its own.
        copy["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        copy["metadata"]["name"] = name.into();
        copy["metadata"]["uid"] = name.into();
        (copy["spec"]["clusterIP"], copy["spec"]["clusterIPs"]) = (ip.into(), json!([ip]));
        write(&store, Op::Put(PutRequest::new(format!("/registry/services/default/{name}"), copy.to_string()))).await;
    }
    let text = "Cluster IP [IPv4]:10.0.0.9 was assigned to multiple services; please recreate service";
    first.told("ClusterIPAlreadyAllocated", text).await;
    let text = "Cluster IP [IPv4]: 10.1.0.9 is not within any configured Service CIDR; please recreate service";
    first.told("ClusterIPOutOfRange", text).await;
    first.until(&[("10.0.0.9", "services/default/web")]).await;
    // Once a range has it, it is given its address.
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/24"]}});
    first.ranges().create(&serde_json::from_value(more).unwrap()).await.unwrap();
    first.services.patch("stray", Patch::merge(json!({"metadata": {"labels": {"a": "b"}}}))).await.unwrap();
    first.until(&[("10.0.0.9", "services/default/web"), ("10.1.0.9", "services/default/stray")]).await;
    first.services.delete("twin", DeleteOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_default_range_is_made_again_and_kept_ready() {
    let store = Arc::new(MemoryStore::new());
    let with = |range: &str| {
        let config = bootstrap::Config { service_cidr: Some(range.parse().unwrap()), ..bootstrap::Config::default() };
        Cluster::of(builder(&store).bootstrap(config))
    };
    let single = with("10.0.0.0/24").await;
    let before = single.range(&["10.0.0.0/24"]).await;
    let of_status = before.metadata.managed_fields.iter().flatten().find(|entry| entry.subresource.is_some()).unwrap();
    assert_eq!(of_status.manager.as_deref(), Some("kubernetes-service-cidr-controller"));
    assert_eq!(of_status.operation.as_deref(), Some("Apply"));
    single.ranges().delete("kubernetes", DeleteOptions::default()).await.unwrap();
    let after = single.range(&["10.0.0.0/24"]).await;
    assert_ne!(before.metadata.uid, after.metadata.uid);

    // Somebody who says that it is not ready is asked why, and not contradicted.
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Broken",
        "message": "the network is broken", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    single.ranges().patch_status("kubernetes", Patch::merge(not_ready)).await.unwrap();
    single.told("Broken", "Configuration matches, but the network is broken").await;
    let unknown = json!({"status": {"conditions": null}});
    single.ranges().patch_status("kubernetes", Patch::merge(unknown)).await.unwrap();
    single.range(&["10.0.0.0/24"]).await;

    // A server with another range leaves it; one that adds the other family adds it.
    let other = with("10.9.0.0/24").await;
    let text = "The default ServiceCIDR [10.0.0.0/24] does not match the controller flag configurations [10.9.0.0/24]";
    other.told("KubernetesDefaultServiceCIDRInconsistent", text).await;
    other.range(&["10.0.0.0/24"]).await;
    let dual = with("10.0.0.0/24,fd00::/120").await;
    dual.range(&["10.0.0.0/24", "fd00::/120"]).await;
}
