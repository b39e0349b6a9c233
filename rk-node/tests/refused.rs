//! A node that is refused what it may do otherwise waits: a pod goes when its source says so.

mod cluster;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use cluster::{Cluster, pod_condition, shell};
use k8s_openapi::api::core::v1::Pod;
use rk_api::{
    Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Request, Resource, Verb, WatchOptions, status,
};
use serde_json::json;

/// A client whose first write of a pod's status is a conflict, and whose read of the pod after that is forbidden.
struct Refused {
    inner: Arc<dyn Client>,
    conflict: AtomicBool,
    forbidden: AtomicBool,
}

#[async_trait]
impl Client for Refused {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        if request.resource.plural == "pods" {
            let writes = request.subresource == "status" && matches!(request.verb, Verb::Patch(..));
            if writes && self.conflict.swap(false, Ordering::SeqCst) {
                return Err(status::conflict(&request.resource, &request.name, "it changed").into());
            }
            if matches!(request.verb, Verb::Get)
                && !self.conflict.load(Ordering::SeqCst)
                && self.forbidden.swap(false, Ordering::SeqCst)
            {
                return Err(status::failure(403, "Forbidden", "no relationship found").into());
            }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_may_not_be_read_for_a_moment_goes_on() {
    let mut cluster = Cluster::start().await;
    cluster.stop_agent().await;
    let inner = Arc::clone(&cluster.client);
    let refused = Arc::new(Refused { inner, conflict: AtomicBool::new(true), forbidden: AtomicBool::new(true) });
    cluster.client = refused.clone();
    cluster.start_agent();
    cluster.pod("app", json!({"containers": [shell("main", "exec sleep 1000")]})).await;
    let pod = cluster.until::<Pod>("app", |pod| pod_condition(pod, "Ready")).await;
    assert!(!refused.forbidden.load(Ordering::SeqCst), "it was refused");
    let container = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.restart_count, 0);
    cluster.delete("app", Some(1)).await;
    cluster.until_gone("app").await;
    cluster.end().await;
}
