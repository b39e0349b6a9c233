//! Bindings, and writes of claims on devices, whose answers are lost on the way back.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cluster::{Cluster, bound, object};
use futures::StreamExt;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use rk_api::{
    Api, Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Request, Resource, Verb, WatchOptions,
};
use rk_sched::SchedulerConfig;
use serde_json::json;

/// A client that loses the answers to the first bindings, and the first looks at pods after that.
struct Lossy {
    inner: Arc<dyn Client>,
    /// Whether the requests that fail get to the server at all.
    arrive: bool,
    bindings: AtomicUsize,
    looks: AtomicUsize,
}

/// Takes one of what is left.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Client for Lossy {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        let lost = || Err(Error::Transport("the connection broke".to_owned()));
        if request.subresource == "binding" && take(&self.bindings) {
            if self.arrive {
                self.inner.request(request).await?;
            }
            return lost();
        }
        let look = matches!(request.verb, Verb::Get) && request.resource.plural == "pods";
        if look && take(&self.looks) {
            return lost();
        }
        self.inner.request(request).await
    }

    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error> {
        self.inner.list(resource, namespace, options).await
    }

    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error> {
        self.inner.watch(resource, namespace, options).await
    }

    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error> {
        self.inner.delete_collection(resource, namespace, delete, list).await
    }
}

async fn cluster(arrive: bool) -> Cluster {
    let config = SchedulerConfig { seed: Some(1), ..SchedulerConfig::default() };
    let (bindings, looks) = (AtomicUsize::new(1), AtomicUsize::new(3));
    Cluster::start_behind(config, move |inner| Arc::new(Lossy { inner, arrive, bindings, looks })).await
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_bound_is_no_failure_though_nobody_said_so() {
    let cluster = cluster(true).await;
    cluster.node("n", "1", json!({})).await;
    cluster.pod("p", "1", json!({})).await;
    cluster.pod("q", "1", json!({})).await;
    assert_eq!(cluster.event("p", "Scheduled").await, "Successfully assigned default/p to n");
    // Its room was not given to the other.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bound(&cluster.pods.get("q").await.unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_did_not_arrive_is_made_again() {
    let cluster = cluster(false).await;
    cluster.node("n", "1", json!({})).await;
    cluster.pod("p", "1", json!({})).await;
    assert_eq!(cluster.event("p", "Scheduled").await, "Successfully assigned default/p to n");
    assert_eq!(cluster.node_of("p").await, "n");
}

/// A client that loses the answer to the first write of a claim's status, and whose news of claims are late.
struct LateNews {
    inner: Arc<dyn Client>,
    writes: AtomicUsize,
}

#[async_trait]
impl Client for LateNews {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        let lost = request.resource.plural == "resourceclaims" && request.subresource == "status" && take(&self.writes);
        let answer = self.inner.request(request).await?;
        if lost { Err(Error::Transport("the connection broke".to_owned())) } else { Ok(answer) }
    }

    async fn list(&self, resource: &Resource, namespace: &str, options: ListOptions) -> Result<List, Error> {
        self.inner.list(resource, namespace, options).await
    }

    async fn watch(&self, resource: &Resource, namespace: &str, options: WatchOptions) -> Result<EventStream, Error> {
        let stream = self.inner.watch(resource, namespace, options).await?;
        if resource.plural != "resourceclaims" {
            return Ok(stream);
        }
        let late = |event| async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            event
        };
        Ok(stream.then(late).boxed())
    }

    async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        delete: DeleteOptions,
        list: ListOptions,
    ) -> Result<(), Error> {
        self.inner.delete_collection(resource, namespace, delete, list).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_is_not_given_twice_though_nobody_said_that_it_was_given() {
    let config = SchedulerConfig { seed: Some(1), ..SchedulerConfig::default() };
    let between = |inner| -> Arc<dyn Client> { Arc::new(LateNews { inner, writes: AtomicUsize::new(1) }) };
    let cluster = Cluster::start_behind(config, between).await;
    cluster.node("n", "4", json!({})).await;
    let class = json!({"metadata": {"name": "gpu"}, "spec": {}});
    Api::<DeviceClass>::all(cluster.client.clone()).create(&object(class)).await.unwrap();
    let slice = json!({"metadata": {"name": "s"}, "spec": {
        "driver": "gpu.example.com", "nodeName": "n", "devices": [{"name": "only"}],
        "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1},
    }});
    Api::<ResourceSlice>::all(cluster.client.clone()).create(&object(slice)).await.unwrap();
    let claims = Api::<ResourceClaim>::namespaced(cluster.client.clone(), "default");
    for name in ["p", "q"] {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu"}});
        let claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}});
        claims.create(&object(claim)).await.unwrap();
        let spec = json!({"resourceClaims": [{"name": "c", "resourceClaimName": name}]});
        cluster.pod(name, "1", json!({"spec": spec})).await;
    }
    // The news of both claims come, and those of what was written.
    tokio::time::sleep(Duration::from_secs(300)).await;
    let mut given = 0;
    for name in ["p", "q"] {
        let claim = claims.get(name).await.unwrap();
        given += usize::from(claim.status.as_ref().is_some_and(|status| status.allocation.is_some()));
    }
    assert_eq!(given, 1);
    let pods = [cluster.pods.get("p").await.unwrap(), cluster.pods.get("q").await.unwrap()];
    assert_eq!(pods.iter().filter(|pod| bound(pod).is_some()).count(), 1);
}
