//! Bindings whose answers are lost on the way back.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cluster::{Cluster, bound};
use rk_api::{
    Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Request, Resource, Verb, WatchOptions,
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
