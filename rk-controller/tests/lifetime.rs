//! How objects end: the garbage collector and namespaces, against the real API server on a paused clock.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cluster::{Cluster, deployment};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use rk_api::{
    Api, Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Propagation, Request, Resource, Verb,
    WatchOptions, WriteOptions,
};
use rk_controller::ManagerConfig;
use serde_json::{Value, json};

fn with(propagation: Propagation) -> DeleteOptions {
    DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
}

fn owned(name: &str, owner: &ConfigMap, block: bool) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap",
        "name": owner.metadata.name, "uid": owner.metadata.uid, "blockOwnerDeletion": block}]}})
}

#[tokio::test(start_paused = true)]
async fn dependents_go_after_before_or_without_their_owner() {
    let cluster = Cluster::with(&["garbage-collector-controller"]).await;
    let maps = cluster.api::<ConfigMap>();
    for (propagation, stays) in
        [(Propagation::Background, false), (Propagation::Foreground, false), (Propagation::Orphan, true)]
    {
        let owner = cluster.create::<ConfigMap>(json!({"metadata": {"name": "owner"}})).await;
        let child = cluster.create::<ConfigMap>(owned("child", &owner, true)).await;
        cluster.create::<ConfigMap>(owned("grandchild", &child, true)).await;
        maps.delete("owner", with(propagation)).await.unwrap();
        cluster
            .until_list::<ConfigMap>(|maps| maps.iter().all(|map| map.metadata.name.as_deref() != Some("owner")))
            .await;
        if stays {
            let child = cluster.until::<ConfigMap>("child", |child| {
                child.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
            });
            child.await;
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            assert_eq!(cluster.list::<ConfigMap>().await.len(), 2);
        } else if propagation == Propagation::Foreground {
            assert!(cluster.list::<ConfigMap>().await.is_empty(), "the owner went last");
        } else {
            cluster.until_list::<ConfigMap>(|maps| maps.is_empty()).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_with_its_last_owner_and_waifs_go_at_once() {
    let cluster = Cluster::with(&["garbage-collector-controller"]).await;
    let maps = cluster.api::<ConfigMap>();
    let (a, b) = (
        cluster.create::<ConfigMap>(json!({"metadata": {"name": "a"}})).await,
        cluster.create::<ConfigMap>(json!({"metadata": {"name": "b"}})).await,
    );
    let mut child = owned("child", &a, false);
    let second = owned("child", &b, false)["metadata"]["ownerReferences"][0].clone();
    child["metadata"]["ownerReferences"].as_array_mut().unwrap().push(second);
    cluster.create::<ConfigMap>(child).await;
    let never = ConfigMap {
        metadata: rk_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("never".into()),
            uid: Some("00000000-0000-0000-0000-000000000000".into()),
            ..Default::default()
        },
        ..Default::default()
    };
    cluster.create::<ConfigMap>(owned("waif", &never, false)).await;
    cluster.until_list::<ConfigMap>(|maps| maps.len() == 3).await;

    maps.delete("a", with(Propagation::Background)).await.unwrap();
    let child = cluster
        .until::<ConfigMap>("child", |child| child.metadata.owner_references.as_ref().map(Vec::len) == Some(1))
        .await;
    assert_eq!(child.metadata.owner_references.as_ref().unwrap()[0].name, "b");
    maps.delete("b", with(Propagation::Background)).await.unwrap();
    cluster.until_list::<ConfigMap>(|maps| maps.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_deleted_in_the_foreground_goes_after_its_pods() {
    let cluster =
        Cluster::with(&["deployment-controller", "replicaset-controller", "garbage-collector-controller"]).await;
    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    cluster.until_list::<Pod>(|pods| pods.len() == 3).await;
    cluster.api::<Deployment>().delete("web", with(Propagation::Foreground)).await.unwrap();
    cluster.until_list::<Deployment>(|deployments| deployments.is_empty()).await;
    assert!(cluster.list::<ReplicaSet>().await.is_empty() && cluster.list::<Pod>().await.is_empty());

    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    cluster.until_list::<Pod>(|pods| pods.len() == 3).await;
    cluster.api::<Deployment>().delete("web", with(Propagation::Orphan)).await.unwrap();
    cluster.until_list::<Deployment>(|deployments| deployments.is_empty()).await;
    let sets =
        cluster.until_list::<ReplicaSet>(|sets| sets.iter().all(|set| set.metadata.owner_references.is_none())).await;
    assert_eq!((sets.len(), cluster.list::<Pod>().await.len()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_furnished_and_ends_with_all_that_is_in_it() {
    let cluster = Cluster::bare().await;
    cluster.manage_with(ManagerConfig { root_ca: Some("PEM".to_owned()), ..ManagerConfig::default() });
    cluster.add_node("node-1").await;
    cluster.create::<Namespace>(json!({"metadata": {"name": "shop"}})).await;
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), "shop");
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "shop");
    cluster.look_until(async || accounts.get_opt("default").await.unwrap(), || "the account".into()).await;
    let root = cluster.look_until(async || maps.get_opt("kube-root-ca.crt").await.unwrap(), || "the root".into()).await;
    assert_eq!(root.data.as_ref().unwrap()["ca.crt"], "PEM");
    maps.delete("kube-root-ca.crt", DeleteOptions::default()).await.unwrap();
    cluster.look_until(async || maps.get_opt("kube-root-ca.crt").await.unwrap(), || "the root again".into()).await;

    let mut web = deployment("web", 3, "v1");
    web["metadata"]["namespace"] = json!("shop");
    cluster.create::<Deployment>(web).await;
    let held = json!({"metadata": {"name": "held", "namespace": "shop", "finalizers": ["example.com/hold"]}});
    cluster.create::<ConfigMap>(held).await;
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "shop");
    let count = async || pods.list(ListOptions::default()).await.unwrap().items.len();
    cluster.look_until(async || (count().await == 3).then_some(()), || "pods".into()).await;

    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    namespaces.delete("shop", DeleteOptions::default()).await.unwrap();
    let remaining = |namespace: &Namespace| {
        let conditions = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "NamespaceFinalizersRemaining" && c.status == "True")
            && conditions.iter().all(|c| {
                c.type_ != "NamespaceContentRemaining"
                    || c.message.as_deref() == Some("Some resources are remaining: configmaps has 1 resource instances")
            })
    };
    cluster.until_all::<Namespace>("shop", remaining).await;
    assert_eq!(count().await, 0);
    maps.patch("held", rk_api::Patch::merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    cluster
        .look_until(async || namespaces.get_opt("shop").await.unwrap().is_none().then_some(()), || "the end".into())
        .await;
}

fn widgets() -> Resource {
    Resource::new("example.com", "v1", "Widget", "widgets", true)
}

/// Counts the lists of widgets.
struct Counting(Arc<dyn Client>, AtomicUsize);

#[async_trait]
impl Client for Counting {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        self.0.request(request).await
    }

    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error> {
        self.1.fetch_add(usize::from(*resource == widgets()), Ordering::SeqCst);
        self.0.list(resource, namespace, options).await
    }

    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error> {
        self.0.watch(resource, namespace, options).await
    }

    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error> {
        self.0.delete_collection(resource, namespace, delete, list).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_custom_object_owns_goes_with_its_definition_and_nobody_asks_for_it_again() {
    let mut cluster = Cluster::bare().await;
    let counting = Arc::new(Counting(cluster.client.clone(), AtomicUsize::new(0)));
    cluster.client = counting.clone();
    cluster.manage(&["garbage-collector-controller"]);
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    for _ in 0..2 {
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        }});
        cluster.server.define(definition).await.unwrap();
        let verb = Verb::Create(json!({"metadata": {"name": "w"}}), WriteOptions::default());
        let (namespace, name, subresource) = ("default".to_owned(), String::new(), String::new());
        let request = Request { resource: widgets(), namespace, name, subresource, verb };
        let widget = cluster.client.request(request).await.unwrap();
        let owner = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": widget.meta().uid}]);
        cluster.create::<ConfigMap>(json!({"metadata": {"name": "child", "ownerReferences": owner}})).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        definitions.delete("widgets.example.com", DeleteOptions::default()).await.unwrap();
        cluster.until_list::<ConfigMap>(|maps| maps.is_empty()).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let lists = counting.1.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    assert_eq!(counting.1.load(Ordering::SeqCst), lists, "nobody asks for what is served no more");
}
