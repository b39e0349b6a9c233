//! What is written into the statuses of pods comes in order, however slow the API is.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cluster::{Cluster, unscheduled};
use rk_api::{
    Client, DeleteOptions, Error, EventStream, List, ListOptions, Object, Patch, Request, Resource, WatchOptions,
};
use rk_sched::SchedulerConfig;
use serde_json::json;

/// A client whose first write of a status takes long.
struct Slow {
    inner: Arc<dyn Client>,
    writes: Arc<AtomicUsize>,
    wait: Duration,
}

#[async_trait]
impl Client for Slow {
    async fn request(&self, request: Request) -> Result<Arc<Object>, Error> {
        if request.subresource == "status" && self.writes.fetch_add(1, Ordering::SeqCst) == 0 {
            tokio::time::sleep(self.wait).await;
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

#[tokio::test(start_paused = true)]
async fn what_is_written_late_is_what_was_said_last() {
    let config = SchedulerConfig { seed: Some(1), ..SchedulerConfig::default() };
    let writes = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&writes);
    let wait = Duration::from_secs(60);
    let cluster =
        Cluster::start_behind(config, move |inner| Arc::new(Slow { inner, writes: Arc::clone(&noted), wait })).await;
    cluster.pod("p", "4", json!({})).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(writes.load(Ordering::SeqCst), 1);
    // It is refused for other reasons while the first is on its way.
    cluster.node("a", "1", json!({})).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let tainted = || json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    cluster.node("b", "8", tainted()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(writes.load(Ordering::SeqCst), 1, "they wait for the first");
    let last = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s).";
    let pod = cluster.pod_until("p", |pod| unscheduled(pod).is_some_and(|(_, told)| told.starts_with(last))).await;
    assert_eq!(unscheduled(&pod).unwrap().0, "Unschedulable");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let pod = cluster.pods.get("p").await.unwrap();
    assert!(unscheduled(&pod).unwrap().1.starts_with(last));
    assert_eq!(writes.load(Ordering::SeqCst), 2, "what lay between is of no use to anybody");
    // What others write over it is written again once it is said again.
    let other = json!({"status": {"nominatedNodeName": "a"}});
    cluster.pods.patch_status("p", Patch::merge(other)).await.unwrap();
    cluster.node("c", "8", tainted()).await;
    let pod = cluster.pod_until("p", |pod| unscheduled(pod).is_some_and(|(_, told)| told.starts_with("0/3"))).await;
    assert_eq!(unscheduled(&pod).unwrap().0, "Unschedulable");
}
