//! A cluster of three servers: in one process, and in three, any one of which is killed while the others go on.
#![allow(missing_docs)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{MiniCluster, binary, eventually, free_port, have, text};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Endpoints, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};

async fn client(kubeconfig: &Path) -> Client {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig).unwrap(), &options).await.unwrap();
    Client::try_from(config).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

fn service(name: &str) -> Service {
    let spec = serde_json::json!({"type": "NodePort", "ports": [{"port": 80}]});
    serde_json::from_value(serde_json::json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

/// A process of the cluster, and how it is started again.
struct Place {
    data: PathBuf,
    api_port: u16,
    args: Vec<String>,
    cluster: Option<MiniCluster>,
}

impl Place {
    fn new(data: PathBuf, args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut place = Self { data, api_port: free_port(), args, cluster: None };
        place.start();
        place
    }

    fn start(&mut self) {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        self.cluster = Some(MiniCluster::start_at(&self.data, self.api_port, &args));
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    fn get(&self) -> &MiniCluster {
        self.cluster.as_ref().unwrap()
    }
}

/// What goes on in the cluster all the time.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// ConfigMaps whose creation was acknowledged.
    acknowledged: Mutex<BTreeSet<String>>,
    /// What each process' watch has shown.
    watched: [Mutex<BTreeSet<String>>; 3],
    /// Each holder of each Lease, in the order in which they were seen, with its number of transitions.
    holders: Mutex<BTreeMap<String, Vec<(String, i32)>>>,
}

impl Load {
    fn written(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Creates ConfigMaps through one process, one after the other. While that is dead, it tries again.
    async fn write(self: Arc<Self>, place: usize, api: Api<ConfigMap>) {
        for i in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("w{place}-{i}");
            match api.create(&PostParams::default(), &config_map(&name)).await {
                Ok(_) => drop(self.acknowledged.lock().unwrap().insert(name)),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn watch(self: Arc<Self>, place: usize, api: Api<ConfigMap>) {
        let mut events = watcher(api, watcher::Config::default()).boxed();
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                    self.watched[place].lock().unwrap().insert(object.metadata.name.unwrap());
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn follow_leases(self: Arc<Self>, apis: Vec<Api<Lease>>) {
        while !self.stop.load(Ordering::Relaxed) {
            for (api, name) in apis.iter().flat_map(|api| ELECTED.map(|name| (api, name))) {
                let Ok(lease) = api.get(name).await else { continue };
                let spec = lease.spec.unwrap();
                let seen = (spec.holder_identity.unwrap_or_default(), spec.lease_transitions.unwrap_or_default());
                let mut holders = self.holders.lock().unwrap();
                let holders = holders.entry(name.to_owned()).or_default();
                if holders.last() != Some(&seen) {
                    holders.push(seen);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

const ELECTED: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// A pod per node that answers HTTP, and a service in front of all of them.
fn hello() -> String {
    r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: hello}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: hello
        image: hello
        imagePullPolicy: Never
        command: ["MINI_CLUSTER", "--hello", "5000"]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        readinessProbe: {httpGet: {path: /, port: 5000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 8080, targetPort: 5000}]}
"#
    .replace("MINI_CLUSTER", env!("CARGO_BIN_EXE_mini-cluster"))
}

/// A pod that must run on one node.
fn pinned(name: &str, node: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      terminationGracePeriodSeconds: 0
      containers: [{{name: sleep, image: sleep, imagePullPolicy: Never, command: [sleep, "1000"]}}]
"#
    )
}

/// Whom a service's address reaches, in some requests.
fn reached(url: &str) -> BTreeSet<String> {
    let ask = || {
        let output = std::process::Command::new("curl").args(["-sf", "-m", "2", url]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    (0..12).filter_map(|_| ask()).collect()
}

#[test]
fn any_of_three_processes_may_be_killed() {
    if !have("kubectl") || !have("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = Place::new(dir.path().join("a"), &["--agents", "0", "--cluster-init"]);
    let block = std::fs::read_to_string(first.data.join("address-block")).unwrap();
    let url = format!("https://127.{}.0.1:9345", block.trim());
    let token = first.data.join("token").display().to_string();

    let wrong = dir.path().join("wrong");
    let refused = |token: &str| {
        let mut command = binary();
        command.args(["--join", &url, "--token", token, "--api-port", "0", "--data-dir"]).arg(&wrong);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let right = std::fs::read_to_string(&token).unwrap();
    let (fingerprint, secret) = right.trim().split_once('.').unwrap();
    let said = refused(&format!("{fingerprint}.{}", "0".repeat(64)));
    assert!(said.contains("the token is not that of this cluster"), "{said}");
    let said = refused(&format!("{}.{secret}", "0".repeat(64)));
    assert!(said.contains("certificate"), "a server that is not the token's is told nothing: {said}");

    let join =
        |name: &str| Place::new(dir.path().join(name), &["--agents", "0", "--join", &url, "--token-file", &token]);
    let mut places = vec![first, join("b"), join("c")];
    places[0].get().until(&["get", "nodes", "--no-headers"], |said| said.matches(" Ready").count() == 3);
    places[0].get().k_in(&["apply", "-f", "-"], &hello());
    for place in &places {
        place.get().k(&["rollout", "status", "daemonset/hello", "--timeout=60s"]);
    }
    let ip = places[1].get().k(&["get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"]);
    let hello = format!("http://{ip}:8080");
    eventually(Duration::from_secs(20), || {
        let reached = reached(&hello);
        if reached.len() == 3 { Ok(()) } else { Err(format!("{reached:?}")) }
    });

    let clients: Vec<_> = places.iter().map(|place| runtime.block_on(client(&place.kubeconfig()))).collect();
    // Services made at all servers at once.
    let made = clients.iter().enumerate().flat_map(|(place, client)| {
        let api: Api<Service> = Api::default_namespaced(client.clone());
        (0..20).map(move |i| (api.clone(), format!("s{place}-{i}")))
    });
    let made =
        made.map(|(api, name)| async move { api.create(&PostParams::default(), &service(&name)).await.unwrap() });
    let made = runtime.block_on(futures::future::join_all(made));
    let specs = made.iter().map(|service| service.spec.as_ref().unwrap());
    let held = specs.map(|spec| (spec.cluster_ip.clone(), spec.ports.as_ref().unwrap()[0].node_port));
    let (ips, ports): (BTreeSet<_>, BTreeSet<_>) = held.unzip();
    assert_eq!((ips.len(), ports.len()), (60, 60));

    let load = Arc::new(Load::default());
    let mut writers = Vec::new();
    for (place, client) in clients.iter().enumerate() {
        let api = || Api::default_namespaced(client.clone());
        writers.push(runtime.spawn(Arc::clone(&load).write(place, api())));
        runtime.spawn(Arc::clone(&load).watch(place, api()));
    }
    let leases = clients.iter().map(|client| Api::namespaced(client.clone(), "kube-system")).collect();
    writers.push(runtime.spawn(Arc::clone(&load).follow_leases(leases)));

    for killed in 0..3 {
        let other = (killed + 1) % 3;
        places[killed].cluster.take().unwrap().kill();
        let at = Instant::now();
        let before = load.written();
        places[other].get().until(&["get", "configmaps", "-o", "name"], |said| said.contains("configmap/"));
        eventually(Duration::from_secs(15), || {
            let more = load.written() - before;
            if more > 20 { Ok(()) } else { Err(format!("{more} writes since the process was killed")) }
        });
        println!("process {killed} was killed: reads and writes go on after {:?}", at.elapsed());
        // A new deployment becomes ready, once the Leases of the killed process have ended if it had them.
        let name = format!("d{killed}");
        places[other].get().k_in(&["apply", "-f", "-"], &pinned(&name, &format!("rk-server-{other}")));
        places[other].get().k(&["rollout", "status", &format!("deployment/{name}"), "--timeout=40s"]);
        println!("process {killed} was killed: a new deployment is ready after {:?}", at.elapsed());
        assert!(!reached(&hello).is_empty(), "the service is reached through the other processes");
        places[killed].start();
    }
    load.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer).unwrap();
    }

    let acknowledged = load.acknowledged.lock().unwrap().clone();
    println!("{} writes were acknowledged", acknowledged.len());
    for (place, client) in clients.iter().enumerate() {
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let found = runtime.block_on(api.list(&ListParams::default())).unwrap();
        let found: BTreeSet<_> = found.into_iter().map(|found| found.metadata.name.unwrap()).collect();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "process {place} lost {lost:?}");
        eventually(Duration::from_secs(20), || {
            let watched = load.watched[place].lock().unwrap();
            let missed = acknowledged.difference(&watched).count();
            if missed == 0 { Ok(()) } else { Err(format!("the watch at process {place} missed {missed}")) }
        });
    }
    // Whoever holds a Lease held it until it had not renewed for long, or gave it back: each change of holder counts one transition.
    let holders = load.holders.lock().unwrap().clone();
    println!("{holders:?}");
    for lease in ELECTED {
        let mut last = (String::new(), -1);
        for (holder, transitions) in &holders[lease] {
            assert!(*transitions >= last.1, "{lease}: {:?}", holders[lease]);
            assert!(*holder == last.0 || *transitions > last.1, "two at once: {lease}: {:?}", holders[lease]);
            last = (holder.clone(), *transitions);
        }
    }
    // All servers are endpoints again.
    let api: Api<Endpoints> = Api::default_namespaced(clients[0].clone());
    eventually(Duration::from_secs(30), || {
        let found = runtime.block_on(api.get("kubernetes")).map_err(|error| error.to_string())?;
        let addresses: Vec<_> = found.subsets.into_iter().flatten().flat_map(|s| s.addresses).flatten().collect();
        if addresses.len() == 3 { Ok(()) } else { Err(format!("{addresses:?}")) }
    });
    places.into_iter().for_each(|place| place.cluster.unwrap().stop());
}

#[test]
fn three_servers_run_in_one_process_and_start_again() {
    if !have("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let cluster = MiniCluster::start(&data, &["--servers", "3", "--agents", "1"]);
    let nodes = cluster.k(&["get", "nodes", "--no-headers"]);
    assert_eq!(nodes.matches("control-plane").count(), 3, "{nodes}");
    assert_eq!(nodes.lines().count(), 4, "{nodes}");
    let endpoints = ["get", "endpointslice", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[0]}"];
    cluster.until(&endpoints, |said| said.split_whitespace().count() == 3);
    cluster.k_in(&["apply", "-f", "-"], &common::web());
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let second = binary().arg("--data-dir").arg(&data).args(["--api-port", "0", "--servers", "3"]).output().unwrap();
    assert!(!second.status.success() && text(&second).contains("in use"), "{}", text(&second));
    cluster.kill();

    let other = binary().arg("--data-dir").arg(&data).args(["--api-port", "0"]).output().unwrap();
    assert!(!other.status.success() && text(&other).contains("--servers 3"), "{}", text(&other));
    let cluster = MiniCluster::start(&data, &["--servers", "3", "--agents", "1"]);
    cluster.k(&["get", "deployment", "web"]);
    // Its own Leases hold nobody up.
    cluster.k(&["scale", "deployment/web", "--replicas=3"]);
    cluster.until(&["get", "deployment", "web"], |said| said.contains("3/3"));
    cluster.stop();
}
