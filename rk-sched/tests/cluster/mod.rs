//! A real API server in this process, with a scheduler on it.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use rk_api::{
    Api, Client, ListOptions, ResourceType,
    server::{Row, Server, UserInfo},
};
use rk_sched::{Scheduler, SchedulerConfig};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct Cluster {
    pub client: Arc<dyn Client>,
    pub pods: Api<Pod>,
    pub nodes: Api<Node>,
    _stop: DropGuard,
}

impl Cluster {
    /// A server with the namespace `default`, and a scheduler of this configuration.
    pub async fn start(config: SchedulerConfig) -> Self {
        Self::start_behind(config, |client| client).await
    }

    /// The same, with something between the scheduler and the server.
    pub async fn start_behind(
        config: SchedulerConfig,
        between: impl FnOnce(Arc<dyn Client>) -> Arc<dyn Client>,
    ) -> Self {
        Self::serving(Vec::new(), config, between).await
    }

    /// The same, with a server of more kinds.
    pub async fn serving(
        rows: Vec<Row>,
        config: SchedulerConfig,
        between: impl FnOnce(Arc<dyn Client>) -> Arc<dyn Client>,
    ) -> Self {
        let builder = Server::builder(Arc::new(MemoryStore::new()));
        let server = rows.into_iter().fold(builder, |builder, row| builder.row(row)).build().await.unwrap();
        let client = server.client(UserInfo::loopback());
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces.create(&object(json!({"metadata": {"name": "default"}}))).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(Scheduler::new(between(client.clone()), config).unwrap().run(stop.clone()));
        Self {
            pods: Api::namespaced(client.clone(), "default"),
            nodes: Api::all(client.clone()),
            client,
            _stop: stop.drop_guard(),
        }
    }

    /// Creates a node, `change` merged into it.
    pub async fn node(&self, name: &str, cpu: &str, change: Value) -> Arc<Node> {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {
                "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
                "capacity": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            },
        });
        merge(&mut node, change);
        self.nodes.create(&object(node.clone())).await.unwrap();
        // A server takes the status of a new object from a write to it only.
        self.nodes.patch_status(name, rk_api::Patch::merge(json!({"status": node["status"]}))).await.unwrap()
    }

    /// Creates a pod, `change` merged into it.
    pub async fn pod(&self, name: &str, cpu: &str, change: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]},
        });
        merge(&mut pod, change);
        self.pods.create(&object(pod)).await.unwrap()
    }

    /// Waits until a pod is as wanted.
    pub async fn pod_until(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        let mut last = None;
        for _ in 0..2000 {
            if let Some(pod) = self.pods.get_opt(name).await.unwrap() {
                if wanted(&pod) {
                    return pod;
                }
                last = Some(pod);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("pod {name} did not come to be as wanted: {last:#?}");
    }

    /// The node that a pod is bound to, waiting for it.
    pub async fn node_of(&self, name: &str) -> String {
        let pod = self.pod_until(name, |pod| bound(pod).is_some()).await;
        bound(&pod).unwrap()
    }

    /// The message of an event of this reason about a pod, waiting for it.
    pub async fn event(&self, pod: &str, reason: &str) -> String {
        let events = Api::<Event>::namespaced(self.client.clone(), "default");
        for _ in 0..2000 {
            let list = events.list(ListOptions::default()).await.unwrap();
            let found = list.items.iter().find(|event| {
                event.involved_object.name.as_deref() == Some(pod) && event.reason.as_deref() == Some(reason)
            });
            if let Some(event) = found {
                return event.message.clone().unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no event {reason} about {pod}");
    }
}

pub fn bound(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone().filter(|name| !name.is_empty())
}

/// The reason and message of the pod's condition that says it is not scheduled.
pub fn unscheduled(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some((condition.reason.clone()?, condition.message.clone()?))
}

pub fn object<K: ResourceType>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}
