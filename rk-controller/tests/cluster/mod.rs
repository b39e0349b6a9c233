//! A cluster without processes: the real API server in this process on a store in memory, the controllers, and a
//! hollow node that says its pods run.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, Node, Pod},
};
use rk_api::{
    Api, Client, DeleteOptions, Informers, ListOptions, Patch, Resource, ResourceType,
    server::{
        Server, ServerBuilder, UserInfo,
        plugins::{NamespaceLifecycle, StorageObjectInUseProtection},
    },
};
use rk_controller::{Action, Context, Controller, ControllerManager, Error, ManagerConfig, Reconcile};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running cluster; it stops when dropped.
pub struct Cluster {
    pub client: Arc<dyn Client>,
    pub server: Server,
    pub shutdown: CancellationToken,
    _guard: DropGuard,
}

/// How long a test waits, on its paused clock, for what must come.
const PATIENCE: Duration = Duration::from_secs(3600);

impl Cluster {
    /// An API server with the namespace `default` and nothing else.
    pub async fn bare() -> Self {
        Self::built(Server::builder(Arc::new(MemoryStore::new()))).await
    }

    /// The same with what else a server is to have.
    pub async fn built(builder: ServerBuilder) -> Self {
        let builder = builder.admission(Arc::new(NamespaceLifecycle)).admission(Arc::new(StorageObjectInUseProtection));
        let cluster = Self::of(builder.build().await.unwrap());
        cluster.create::<Namespace>(json!({"metadata": {"name": "default"}})).await;
        cluster
    }

    /// This API server and nothing else.
    pub fn of(server: Server) -> Self {
        let client = server.client(UserInfo::loopback());
        let shutdown = CancellationToken::new();
        Self { client, server, _guard: shutdown.clone().drop_guard(), shutdown }
    }

    /// With these controllers, and a node on which pods run.
    pub async fn with(controllers: &[&str]) -> Self {
        let cluster = Self::bare().await;
        cluster.manage(controllers);
        cluster.add_node("node-1").await;
        cluster
    }

    /// Starts controllers.
    pub fn manage(&self, controllers: &[&str]) {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        self.manage_with(ManagerConfig { controllers, ..ManagerConfig::default() });
    }

    /// Starts controllers so configured.
    pub fn manage_with(&self, config: ManagerConfig) {
        tokio::spawn(ControllerManager::new(self.client.clone(), config).run(self.shutdown.clone()));
    }

    /// Adds a hollow node.
    pub async fn add_node(&self, name: &str) {
        let node = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z1"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        self.create::<Node>(node).await;
        self.run_node(name);
    }

    /// Starts a hollow kubelet; it stops with the token.
    pub fn run_node(&self, name: &str) -> CancellationToken {
        let stop = self.shutdown.child_token();
        let informers = Informers::new(self.client.clone());
        let kubelet = HollowKubelet { node: name.to_owned(), broken: "broken".to_owned() };
        let until = stop.clone();
        tokio::spawn(async move { Controller::new("kubelet", kubelet, &informers).run(until).await });
        stop
    }

    /// The objects of a kind in `default`.
    pub fn api<K: ResourceType<Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object, in `default` unless it says otherwise.
    pub async fn create<K: ResourceType>(&self, object: Value) -> Arc<K> {
        let mut typed: K = serde_json::from_value(object).unwrap();
        let namespaced = Resource::of::<K>().namespaced;
        let namespace =
            if namespaced { typed.meta().namespace.clone().unwrap_or("default".into()) } else { String::new() };
        typed.meta_mut().namespace = namespaced.then(|| namespace.clone());
        Api::<K>::namespaced(self.client.clone(), &namespace).create(&typed).await.unwrap()
    }

    /// Merges into an object's spec or metadata.
    pub async fn patch<K: ResourceType<Scope = NamespaceResourceScope>>(&self, name: &str, patch: Value) -> Arc<K> {
        self.api::<K>().patch(name, Patch::merge(patch)).await.unwrap()
    }

    /// Deletes an object.
    pub async fn delete<K: ResourceType<Scope = NamespaceResourceScope>>(&self, name: &str) {
        self.api::<K>().delete(name, DeleteOptions::default()).await.unwrap();
    }

    /// All objects of a kind in `default`.
    pub async fn list<K: ResourceType<Scope = NamespaceResourceScope>>(&self) -> Vec<Arc<K>> {
        self.api::<K>().list(ListOptions::default()).await.unwrap().items
    }

    /// Waits until an object is as wanted.
    pub async fn until<K: ResourceType<Scope = NamespaceResourceScope>>(
        &self,
        name: &str,
        wanted: impl Fn(&K) -> bool,
    ) -> Arc<K> {
        let api = self.api::<K>();
        let look = async || api.get_opt(name).await.unwrap().filter(|object| wanted(object));
        self.look_until(look, || format!("{} {name}", Resource::of::<K>().kind)).await
    }

    /// Waits until an object of the whole cluster is as wanted.
    pub async fn until_all<K: ResourceType>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> Arc<K> {
        let api = Api::<K>::all(self.client.clone());
        let look = async || api.get_opt(name).await.unwrap().filter(|object| wanted(object));
        self.look_until(look, || format!("{} {name}", Resource::of::<K>().kind)).await
    }

    /// Waits until all objects of a kind are as wanted.
    pub async fn until_list<K: ResourceType<Scope = NamespaceResourceScope>>(
        &self,
        wanted: impl Fn(&[Arc<K>]) -> bool,
    ) -> Vec<Arc<K>> {
        let look = async || Some(self.list::<K>().await).filter(|list| wanted(list));
        self.look_until(look, || format!("all {}", Resource::of::<K>().plural)).await
    }

    /// Looks again each time the paused clock moves on, which it does when nobody has anything to do.
    pub async fn look_until<T>(&self, look: impl AsyncFn() -> Option<T>, what: impl Fn() -> String) -> T {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => {
                for pod in self.list::<Pod>().await {
                    eprintln!("{} {:?}", pod.metadata.name.as_deref().unwrap_or(""), pod.status);
                }
                panic!("gave up waiting for {}", what());
            }
        }
    }
}

/// Binds every pod that has no node, says that it runs and is ready, and ends it when it is deleted. A pod whose
/// label `state` is the `broken` word never gets ready; one with `state: done` succeeds, one with `state: fail` fails.
struct HollowKubelet {
    node: String,
    broken: String,
}

#[async_trait]
impl Reconcile for HollowKubelet {
    type Object = Pod;

    async fn reconcile(&self, pod: Arc<Pod>, context: &Context) -> Result<Action, Error> {
        let meta = &pod.metadata;
        let (name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
        let api = context.api::<Pod>(&namespace);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        if node.is_empty() {
            if meta.deletion_timestamp.is_none() && meant_for(&pod).is_none_or(|node| node == self.node) {
                let target = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": self.node}});
                api.create_subresource(&name, "binding", target).await?;
            }
            return Ok(Action::await_change());
        }
        if node != self.node {
            return Ok(Action::await_change());
        }
        if meta.deletion_timestamp.is_some() {
            let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            return match api.delete(&name, now).await {
                Err(error) if !error.is_not_found() => Err(error.into()),
                _ => Ok(Action::await_change()),
            };
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        let state = meta.labels.as_ref().and_then(|labels| labels.get("state")).map(String::as_str);
        let (wanted, ready) = match state {
            Some("done") => ("Succeeded", "False"),
            Some("fail") => ("Failed", "False"),
            Some(state) if state == self.broken => ("Running", "False"),
            _ => ("Running", "True"),
        };
        if phase == wanted {
            return Ok(Action::await_change());
        }
        let mut number = 0_u32;
        for byte in meta.uid.as_deref().unwrap_or_default().bytes() {
            number = number.wrapping_mul(31).wrapping_add(byte.into());
        }
        let ip = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
        let now = rk_api::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = json!({"status": {"phase": wanted, "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]}});
        api.patch_status(&name, Patch::merge(status)).await?;
        Ok(Action::await_change())
    }
}

/// The node that a pod asks for, as those of DaemonSets do.
fn meant_for(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
}

/// A template of pods with these labels.
pub fn template(labels: Value, image: &str) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image,
        "ports": [{"name": "web", "containerPort": 8080}]}]}})
}

/// A Deployment of such pods.
pub fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": name}},
        "template": template(json!({"app": name}), image)}})
}
