//! A node on a real API server: both in this process, containers are real processes.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node as NodeObject, Pod, ServiceAccount};
use rk_api::{
    Api, Client, DeleteOptions, ListOptions, Patch, ResourceType, WatchOptions,
    server::{Security, Server, ServiceAccountIssuer, UserInfo},
};
use rk_node::{
    Identity, Loopback, Node, NodeConfig, NodeError,
    process::{LogRotation, ProcessConfig, ProcessRuntime},
};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long what must come may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether this machine has Python, the server in some of the pods; says so where a test is skipped for want of it.
pub fn has_python() -> bool {
    has("python3")
}

/// Whether this machine has a program that some of the pods run; says so where a test is skipped for want of it.
pub fn has(program: &str) -> bool {
    let found = std::process::Command::new(program).arg("--version").output().is_ok();
    assert!(found || std::env::var("CI").as_deref() != Ok("true"), "CI must have {program}");
    if !found {
        println!("skipped: needs {program}");
    }
    found
}

/// An API server and one node.
pub struct Cluster {
    pub client: Arc<dyn Client>,
    pub config: NodeConfig,
    pub pki: Pki,
    agent: Option<(JoinHandle<Result<(), NodeError>>, CancellationToken)>,
    folder: tempfile::TempDir,
}

/// The certificates between API server and kubelet.
pub struct Pki {
    pub ca: String,
    pub serving: Identity,
    pub client: Identity,
}

impl Pki {
    fn new(address: IpAddr) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: String| {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![name]).unwrap().signed_by(&key, &ca).unwrap();
            Identity { certificate: certificate.pem(), key: key.serialize_pem() }
        };
        Self { serving: issue(address.to_string()), client: issue("kube-apiserver".to_owned()), ca: ca.pem() }
    }
}

/// Each node of a test process has an address and a range of pod addresses of its own; the process id keeps
/// test programs that run side by side apart.
fn place() -> (IpAddr, String) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let slot = NEXT.fetch_add(1, Ordering::Relaxed);
    let own = (std::process::id() % 100) as u8 + 100;
    (IpAddr::V4(Ipv4Addr::new(127, own, slot, 254)), format!("127.{own}.{slot}.0/25"))
}

impl Cluster {
    /// A cluster with a running node.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A cluster with a node that differs from the default.
    pub async fn start_with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let issuer = ServiceAccountIssuer {
            url: "https://kubernetes.default.svc".to_owned(),
            jwks_uri: "https://kubernetes.default.svc/openid/v1/jwks".to_owned(),
            key: rcgen::KeyPair::generate().unwrap().serialize_pem(),
            ..ServiceAccountIssuer::default()
        };
        let security = Security { service_accounts: Some(issuer), ..Security::default() };
        let server = security.build(Server::builder(Arc::new(MemoryStore::new()))).await.unwrap();
        let client = server.client(UserInfo::loopback());
        for name in ["default", "kube-node-lease"] {
            ensure::<Namespace>(&client, "", json!({"metadata": {"name": name}})).await;
        }
        // What the controllers put into each namespace.
        ensure::<ServiceAccount>(&client, "default", json!({"metadata": {"name": "default"}})).await;
        let root = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}});
        ensure::<ConfigMap>(&client, "default", root).await;
        let folder = tempfile::tempdir().unwrap();
        let (address, range) = place();
        let pki = Pki::new(address);
        let runtime = open_runtime(folder.path(), address, &range).await;
        let mut config = NodeConfig::new("node-1", folder.path().join("node"), runtime);
        config.address = address;
        config.port = 0;
        config.pod_cidr = Some(range);
        config.serving = Some(pki.serving.clone());
        config.client_ca = Some(pki.ca.clone());
        change(&mut config);
        let mut cluster = Self { client, config, pki, agent: None, folder };
        cluster.start_agent();
        cluster.until::<NodeObject>("node-1", |node| condition(node, "Ready")).await;
        cluster
    }

    /// Starts the agent (again).
    pub fn start_agent(&mut self) {
        let shutdown = CancellationToken::new();
        let node = Node::new(self.client.clone(), self.config.clone());
        self.agent = Some((tokio::spawn(node.run(shutdown.clone())), shutdown));
    }

    /// Opens the runtime's folder anew, as a new process would.
    pub async fn reopen_runtime(&mut self) {
        let range = self.config.pod_cidr.clone().unwrap();
        let runtime = open_runtime(self.folder.path(), self.config.address, &range).await;
        self.config.runtime = runtime.clone();
        self.config.images = runtime;
    }

    /// Stops the agent as SIGTERM would.
    pub async fn stop_agent(&mut self) {
        let (task, shutdown) = self.agent.take().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    /// Folder of everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn api<K: ResourceType>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K: ResourceType>(&self, value: Value) -> Arc<K> {
        self.api().create(&serde_json::from_value::<K>(value).unwrap()).await.unwrap()
    }

    /// Makes a pod that is bound to the node.
    pub async fn pod(&self, name: &str, mut spec: Value) -> Arc<Pod> {
        spec["nodeName"] = json!("node-1");
        self.create(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    pub async fn get<K: ResourceType>(&self, name: &str) -> Option<Arc<K>> {
        self.api().get_opt(name).await.unwrap()
    }

    pub async fn patch<K: ResourceType>(&self, name: &str, patch: Value) -> Arc<K> {
        self.api().patch(name, Patch::merge(patch)).await.unwrap()
    }

    pub async fn delete(&self, name: &str, grace: Option<i64>) {
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        self.api::<Pod>().delete(name, options).await.unwrap();
    }

    /// Waits until an object is as it should be.
    pub async fn until<K: ResourceType + std::fmt::Debug>(&self, name: &str, good: impl Fn(&K) -> bool) -> Arc<K> {
        let seen = parking_lot::Mutex::new(None);
        let wait = async {
            loop {
                let mut events = self.api::<K>().watch(WatchOptions::default()).await.unwrap();
                while let Some(Ok(event)) = events.next().await {
                    let (rk_api::TypedEvent::Added(object) | rk_api::TypedEvent::Modified(object)) = event else {
                        continue;
                    };
                    if object.meta().name.as_deref() == Some(name) {
                        if good(&object) {
                            return object;
                        }
                        *seen.lock() = Some(object);
                    }
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(object) => object,
            Err(_) => {
                let seen = seen.lock().take();
                panic!("{name} is not as it should be: {seen:#?}\nevents: {:#?}", self.events().await)
            }
        }
    }

    /// Waits until a pod is gone.
    pub async fn until_gone(&self, name: &str) {
        let wait = async {
            while self.get::<Pod>(name).await.is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{name} is not gone: {:#?}", self.get::<Pod>(name).await);
        }
    }

    /// Waits for an event; answers its message.
    pub async fn until_event(&self, pod: &str, reason: &str) -> String {
        let wait = async {
            loop {
                let list = self.api::<Event>().list(ListOptions::default()).await.unwrap();
                let found = list.items.iter().find(|event| {
                    event.involved_object.name.as_deref() == Some(pod) && event.reason.as_deref() == Some(reason)
                });
                if let Some(event) = found {
                    return event.message.clone().unwrap_or_default();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(message) => message,
            Err(_) => panic!("no event {reason} of {pod}: {:#?}", self.events().await),
        }
    }

    /// Waits for an event of a pod whose message holds a text.
    pub async fn until_told(&self, pod: &str, text: &str) {
        let wait = async {
            while !self.events().await.iter().any(|line| line.starts_with(pod) && line.contains(text)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("nobody told of {pod}: {text}: {:#?}", self.events().await);
        }
    }

    pub async fn events(&self) -> Vec<String> {
        let list = self.api::<Event>().list(ListOptions::default()).await.unwrap();
        let line = |event: &Arc<Event>| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {}: {}", text(&event.involved_object.name), text(&event.reason), text(&event.message))
        };
        list.items.iter().map(line).collect()
    }

    /// What a container has written, oldest instance first.
    pub async fn log(&self, pod: &Pod, container: &str) -> String {
        let uid = pod.metadata.uid.as_deref().unwrap();
        let name = pod.metadata.name.as_deref().unwrap();
        let folder = self.config.data_dir.join(format!("logs/pods/default_{name}_{uid}/{container}"));
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let lines: Vec<String> = files
            .iter()
            .flat_map(|file| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned())
            .collect();
        lines.join("\n")
    }

    /// Waits until a container's log holds a text; answers the log.
    pub async fn until_log(&self, pod: &Pod, container: &str, text: &str) -> String {
        let wait = async {
            loop {
                let log = self.log(pod, container).await;
                if log.contains(text) {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(log) => log,
            Err(_) => panic!("no {text:?} in the log: {}", self.log(pod, container).await),
        }
    }

    /// Stops everything and removes the folder, where what the agent had under way may still write a last file.
    pub async fn end(mut self) {
        self.stop_agent().await;
        let folder = self.folder.keep();
        let gone = async {
            while std::fs::remove_dir_all(&folder).is_err() && folder.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("the folder can be removed");
    }
}

async fn ensure<K: ResourceType>(client: &Arc<dyn Client>, namespace: &str, value: Value) {
    let made = Api::<K>::namespaced(client.clone(), namespace).create(&serde_json::from_value(value).unwrap()).await;
    match made {
        Err(error) if !error.is_already_exists() => panic!("{error}"),
        _ => {}
    }
}

async fn open_runtime(folder: &Path, address: IpAddr, range: &str) -> Arc<ProcessRuntime> {
    let network = Arc::new(Loopback::new(range, &folder.join("network")).unwrap());
    let config = ProcessConfig { root: folder.join("runtime"), log_rotation: LogRotation::default(), host_ip: address };
    ProcessRuntime::open(config, network).await.unwrap()
}

/// Whether a condition of a node is true.
pub fn condition(node: &NodeObject, kind: &str) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether a condition of a pod is true.
pub fn pod_condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// A container that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "host", "imagePullPolicy": "Never", "command": ["sh", "-c", script]})
}

/// Joins fields into an object.
pub fn with(mut object: Value, fields: Value) -> Value {
    let (Value::Object(object_fields), Value::Object(fields)) = (&mut object, fields) else { panic!("no objects") };
    object_fields.extend(fields);
    object
}
