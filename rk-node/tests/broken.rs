//! A pod whose worker panicked is taken over by another.

mod cluster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cluster::{Cluster, pod_condition, shell};
use k8s_openapi::api::core::v1::Pod;
use rk_node::runtime::{
    ByteStream, RuntimeError, RuntimeService, Session,
    types::{
        Container, ContainerConfig, ContainerStats, ContainerStatus, ExecSyncResponse, Filter, LinuxContainerResources,
        PodSandbox, PodSandboxConfig, RuntimeCondition, StreamRequest, VersionResponse,
    },
};
use serde_json::json;

/// A runtime that panics once when it is told to.
struct Fragile {
    inner: Arc<dyn RuntimeService>,
    breaks: Arc<AtomicBool>,
}

/// Methods that pass everything on.
macro_rules! pass_on {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl RuntimeService for Fragile {
            async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
                assert!(!self.breaks.swap(false, Ordering::SeqCst), "broken on purpose");
                self.inner.container_status(id).await
            }

            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer, RuntimeError> {
                self.inner.$name($($argument),*).await
            })*
        }
    };
}

pass_on! {
    version() -> VersionResponse;
    status() -> Vec<RuntimeCondition>;
    run_pod_sandbox(config: &PodSandboxConfig) -> String;
    stop_pod_sandbox(id: &str) -> ();
    remove_pod_sandbox(id: &str) -> ();
    pod_sandbox_status(id: &str) -> PodSandbox;
    list_pod_sandbox(filter: &Filter) -> Vec<PodSandbox>;
    create_container(pod: &str, config: &ContainerConfig, sandbox: &PodSandboxConfig) -> String;
    start_container(id: &str) -> ();
    stop_container(id: &str, timeout: Duration) -> ();
    remove_container(id: &str) -> ();
    list_containers(filter: &Filter) -> Vec<Container>;
    update_container_resources(id: &str, resources: &LinuxContainerResources) -> ();
    exec_sync(id: &str, cmd: &[String], timeout: Duration) -> ExecSyncResponse;
    exec(request: &StreamRequest) -> Session;
    attach(request: &StreamRequest) -> Session;
    port_forward(pod: &str, port: u16) -> Box<dyn ByteStream>;
    container_stats(id: &str) -> ContainerStats;
    list_container_stats(filter: &Filter) -> Vec<ContainerStats>;
    reopen_container_log(id: &str) -> ();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panicked_is_replaced() {
    let breaks = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&breaks);
    let cluster = Cluster::start_with(move |config| {
        config.runtime = Arc::new(Fragile { inner: config.runtime.clone(), breaks: told });
    })
    .await;
    cluster.pod("app", json!({"containers": [shell("main", "exec sleep 1000")]})).await;
    let before = cluster.until::<Pod>("app", |pod| pod_condition(pod, "Ready")).await;
    breaks.store(true, Ordering::SeqCst);
    // Any change of the pod makes its worker look at the runtime.
    cluster.patch::<Pod>("app", json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    let broken = async {
        while breaks.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(cluster::PATIENCE, broken).await.unwrap();
    let after = cluster.get::<Pod>("app").await.unwrap();
    let containers = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses.clone();
    assert_eq!(containers(&after), containers(&before), "the container runs on");
    cluster.delete("app", Some(1)).await;
    cluster.until_gone("app").await;
    cluster.end().await;
}
