//! How objects end: the garbage collector and namespaces, against the real API server on a paused clock.

mod cluster;

use cluster::{Cluster, deployment};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
};
use rk_api::{Api, DeleteOptions, ListOptions, Propagation};
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
