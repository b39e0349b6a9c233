//! The scheduler as a component of its own: over HTTPS with a kubeconfig and RBAC, configured by a file, elected, and as a second scheduler.
#![allow(missing_docs)]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod, ServiceAccount},
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rk_api::{
    Api, Client, RemoteClient, ResourceType,
    server::{
        ControlPlane, Security, bootstrap,
        pki::{Pki, Wanted, kubeconfig},
        serve, tls_config,
    },
};
use rk_controller::leader::{LeaderElectionConfig, LeaderElector};
use rk_sched::{
    Registration, Scheduler, SchedulerConfig,
    config::{KubeSchedulerConfiguration, LeaderElection, Registry},
    framework::{BindContext, Plugin, PreBind, Status},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// An API server on a socket with TLS and RBAC, and what a person has of it.
struct Cluster {
    directory: tempfile::TempDir,
    pki: Pki,
    url: String,
    admin: Arc<dyn Client>,
    _stop: DropGuard,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(&directory.path().join("pki")).unwrap();
        let serving = pki.identity("apiserver", &Wanted::api_server([])).unwrap();
        let tls = tls_config(&serving.certificate, &serving.key, Some(pki.ca())).unwrap();
        let builder = ControlPlane::builder().security(Security::default()).bootstrap(bootstrap::Config::default());
        let server = builder.build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, server.service(), Some(tls), stop.clone()));
        let admin = client(&write_kubeconfig(&directory, &pki, &url, "admin", &Wanted::admin())).await;
        // What the controllers of a cluster would make.
        let accounts = Api::<ServiceAccount>::namespaced(Arc::clone(&admin), "default");
        accounts.create(&object(json!({"metadata": {"name": "default"}}))).await.unwrap();
        Self { directory, pki, url, admin, _stop: stop.drop_guard() }
    }

    /// The kubeconfig of kube-scheduler's user, who may do what the role `system:kube-scheduler` says.
    fn scheduler_kubeconfig(&self) -> PathBuf {
        let wanted = Wanted::client("system:kube-scheduler", "");
        write_kubeconfig(&self.directory, &self.pki, &self.url, "scheduler", &wanted)
    }

    /// A configuration file with these fields, the kubeconfig among them.
    fn configuration(&self, fields: &str) -> (Value, KubeSchedulerConfiguration) {
        let text = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
             clientConnection:\n  kubeconfig: {}\n{fields}",
            self.scheduler_kubeconfig().display()
        );
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let read = KubeSchedulerConfiguration::from_json(&value).unwrap();
        (value, read)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(Arc::clone(&self.admin), "default")
    }

    async fn node(&self, name: &str, cpu: &str) {
        let status = json!({"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}});
        let nodes = Api::<Node>::all(Arc::clone(&self.admin));
        nodes.create(&object(json!({"metadata": {"name": name}}))).await.unwrap();
        nodes.patch_status(name, rk_api::Patch::merge(json!({"status": status}))).await.unwrap();
        // New nodes are tainted until they say that they are ready.
        nodes.patch(name, rk_api::Patch::merge(json!({"spec": {"taints": null}}))).await.unwrap();
    }

    async fn pod(&self, name: &str, scheduler: &str) {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
        let pod = json!({"metadata": {"name": name}, "spec": {"schedulerName": scheduler, "containers": [container]}});
        self.pods().create(&object(pod)).await.unwrap();
    }

    async fn node_of(&self, name: &str) -> Option<String> {
        let pod = self.pods().get(name).await.unwrap();
        pod.spec.as_ref()?.node_name.clone()
    }

    /// The node that a pod is bound to, waiting for it.
    async fn bound(&self, name: &str) -> String {
        let mut node = None;
        until(&format!("pod {name} is bound"), async || {
            node = self.node_of(name).await;
            node.is_some()
        })
        .await;
        node.unwrap()
    }
}

fn object<K: ResourceType>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn write_kubeconfig(directory: &tempfile::TempDir, pki: &Pki, url: &str, name: &str, wanted: &Wanted) -> PathBuf {
    let identity = pki.identity(name, wanted).unwrap();
    let path = directory.path().join(format!("{name}.kubeconfig"));
    std::fs::write(&path, kubeconfig("rk", url, pki.ca(), name, &identity)).unwrap();
    path
}

async fn client(kubeconfig: &std::path::Path) -> Arc<dyn Client> {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    Arc::new(RemoteClient::new(kube::Client::try_from(config).unwrap()))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within 30 s");
}

fn election(election: &LeaderElection, identity: &str) -> LeaderElectionConfig {
    let wait = |duration| Duration::try_from(duration).unwrap();
    LeaderElectionConfig {
        lease_duration: wait(election.lease_duration),
        renew_deadline: wait(election.renew_deadline),
        retry_period: wait(election.retry_period),
        ..LeaderElectionConfig::new(&election.resource_namespace, &election.resource_name, identity)
    }
}

/// One of several schedulers: competes for the Lease of its configuration, and schedules while it has it.
async fn compete(configuration: KubeSchedulerConfiguration, config: SchedulerConfig, identity: &str) -> JoinHandle<()> {
    let client = client(configuration.client_connection.kubeconfig.as_ref()).await;
    let elector = LeaderElector::new(Arc::clone(&client), election(&configuration.leader_election, identity)).unwrap();
    tokio::spawn(async move {
        let work = |stop| async move { Scheduler::new(client, config).unwrap().run(stop).await };
        elector.run(CancellationToken::new(), work).await;
    })
}

/// Holds pods back for ever before they are bound, while it is told to.
#[derive(Clone, Default)]
struct Stuck {
    on: Arc<AtomicBool>,
    /// Whether it holds one.
    holds: Arc<AtomicBool>,
}

impl Plugin for Stuck {
    fn name(&self) -> &'static str {
        "Stuck"
    }
}

#[async_trait]
impl PreBind for Stuck {
    async fn pre_bind(&self, _: &BindContext<'_>) -> Status {
        if self.on.load(Ordering::SeqCst) {
            self.holds.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        Status::success()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_from_a_leader_that_is_lost_mid_bind() {
    let cluster = Cluster::start().await;
    let (value, configuration) = cluster.configuration(
        "leaderElection:\n  leaseDuration: 3s\n  renewDeadline: 2s\n  retryPeriod: 500ms\n\
         profiles:\n- plugins:\n    preBind:\n      enabled:\n      - name: Stuck\n",
    );
    let stuck = Stuck::default();
    let settings = |stuck: Stuck| {
        let registry = Registry::kubernetes().with("Stuck", move |_| Ok(Registration::new(stuck.clone()).pre_bind()));
        SchedulerConfig::from_json(&value, &registry).unwrap()
    };
    let leader = compete(configuration.clone(), settings(stuck.clone()), "first").await;
    let leases = Api::<Lease>::namespaced(Arc::clone(&cluster.admin), "kube-system");
    let holder = async || {
        let lease = leases.get_opt("kube-scheduler").await.unwrap();
        lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.clone())
    };
    until("the first leads", async || holder().await.as_deref() == Some("first")).await;
    let other = compete(configuration, settings(Stuck::default()), "second").await;

    // Each node has room for one pod.
    cluster.node("n1", "1").await;
    cluster.node("n2", "1").await;
    cluster.pod("before", "default-scheduler").await;
    let taken = cluster.bound("before").await;
    stuck.on.store(true, Ordering::SeqCst);
    cluster.pod("between", "default-scheduler").await;
    until("the binding is under way", async || stuck.holds.load(Ordering::SeqCst)).await;
    assert_eq!(cluster.node_of("between").await, None);
    // It is lost without a word: its Lease stays as it is.
    leader.abort();
    assert_eq!(holder().await.as_deref(), Some("first"));
    let node = cluster.bound("between").await;
    assert_ne!(node, taken);
    assert_eq!(holder().await.as_deref(), Some("second"));
    // Nothing is left for a third, and no node is overcommitted.
    cluster.pod("after", "default-scheduler").await;
    let refused = async || {
        let pod = cluster.pods().get("after").await.unwrap();
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|condition| condition.message.as_ref().is_some_and(|m| m.contains("2 Insufficient cpu")))
    };
    until("the third pod is refused", refused).await;
    other.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_scheduler_serves_its_name_beside_the_first() {
    let cluster = Cluster::start().await;
    let (value, configuration) = cluster.configuration(
        "leaderElection:\n  leaderElect: false\n\
         profiles:\n- schedulerName: packing\n  pluginConfig:\n  - name: NodeResourcesFit\n    args:\n\
         \x20     scoringStrategy:\n        type: MostAllocated\n  plugins:\n    score:\n      enabled:\n\
         \x20     - name: NodeResourcesFit\n        weight: 100\n",
    );
    let packing = SchedulerConfig::from_json(&value, &Registry::kubernetes()).unwrap();
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let kubeconfig = configuration.client_connection.kubeconfig;
    for config in [SchedulerConfig::default(), packing] {
        let client = client(kubeconfig.as_ref()).await;
        tokio::spawn(Scheduler::new(client, config).unwrap().run(stop.clone()));
    }
    cluster.node("small", "3").await;
    cluster.node("big", "30").await;
    for number in 0..3 {
        cluster.pod(&format!("spread-{number}"), "default-scheduler").await;
        cluster.pod(&format!("packed-{number}"), "packing").await;
        assert_eq!(cluster.bound(&format!("spread-{number}")).await, "big");
        assert_eq!(cluster.bound(&format!("packed-{number}")).await, "small");
    }
    // Each sees what the other has placed: the small node is full.
    cluster.pod("packed-3", "packing").await;
    assert_eq!(cluster.bound("packed-3").await, "big");
    // Nobody's pods wait.
    cluster.pod("nobodys", "nobody").await;
    cluster.pod("later", "default-scheduler").await;
    cluster.bound("later").await;
    assert_eq!(cluster.node_of("nobodys").await, None);
}
