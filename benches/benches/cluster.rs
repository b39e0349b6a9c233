//! The miniature cluster as its user has it: start to `ready`, memory and CPU at rest, and what its API does per
//! second, through HTTPS with one connection per client.
//!
//! `cargo bench -p rk-benches --bench cluster` builds the release binary and prints a table.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rk_benches::{median, row, title};
use rk_benches_common::build;

/// Starts and samples, of which the median counts.
const SAMPLES: usize = 5;
/// Worker nodes beside the server.
const AGENTS: usize = 3;
/// Objects per throughput run.
const OBJECTS: usize = 2000;
/// Clients that write at once.
const WRITERS: usize = 16;
/// Lists of all objects per throughput run.
const LISTS: usize = 20;

fn main() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let binary = build::release("rk-examples", "mini-cluster", scratch.parent().unwrap_or(scratch))
        .expect("a release build of mini-cluster");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");

    title(&format!("mini-cluster with {} nodes, release build, median of {SAMPLES}", AGENTS + 1));
    let (mut ready, mut memory, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for sample in 1..=SAMPLES {
        let dir = tempfile::tempdir().expect("a folder");
        let begun = Instant::now();
        let cluster = Running::start(&binary, dir.path());
        ready.push(begun.elapsed().as_secs_f64() * 1e3);
        // At rest: after what a start sets going has calmed down.
        std::thread::sleep(Duration::from_secs(5));
        let (before, from) = (cluster.cpu_seconds(), Instant::now());
        std::thread::sleep(Duration::from_secs(10));
        cpu.push((cluster.cpu_seconds() - before) / from.elapsed().as_secs_f64() * 100.0);
        memory.push(cluster.resident_mib());
        if sample == SAMPLES {
            median("start to ready", &ready, "ms");
            median("resident memory at rest", &memory, "MiB");
            median("CPU at rest", &cpu, "% of a core");
            runtime.block_on(throughput(&dir.path().join("data/kubeconfig")));
            row("resident memory after the load", cluster.resident_mib(), "MiB");
        }
    }
}

async fn throughput(kubeconfig: &Path) {
    title(&format!("API over HTTPS, durable store, {OBJECTS} ConfigMaps of 1 KiB"));
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    // A client each: a connection each.
    let connect = || Api::<ConfigMap>::default_namespaced(Client::try_from(config.clone()).expect("a client"));

    let watching = connect();
    let list = watching.list(&ListParams::default()).await.expect("a list");
    let from = list.metadata.resource_version.unwrap_or_default();
    let watched = tokio::spawn(async move {
        let mut events = watching.watch(&WatchParams::default(), &from).await.expect("a watch").boxed();
        for _ in 0..OBJECTS {
            events.next().await.expect("more events").expect("an event");
        }
        Instant::now()
    });
    let begun = Instant::now();
    join_all((0..WRITERS).map(|writer| {
        let api = connect();
        async move {
            for i in (writer..OBJECTS).step_by(WRITERS) {
                api.create(&PostParams::default(), &config_map(&format!("c{i:05}"))).await.expect("created");
            }
        }
    }))
    .await;
    let per_second = |from: Instant, to: Instant| OBJECTS as f64 / (to - from).as_secs_f64();
    row(&format!("create, {WRITERS} clients"), per_second(begun, Instant::now()), "objects/s");
    row("watch, one watcher, while they are made", per_second(begun, watched.await.expect("the watcher")), "events/s");

    let api = connect();
    let begun = Instant::now();
    for i in 0..OBJECTS {
        api.get(&format!("c{i:05}")).await.expect("found");
    }
    row("get, 1 client", per_second(begun, Instant::now()), "objects/s");
    let begun = Instant::now();
    for _ in 0..LISTS {
        assert!(api.list(&ListParams::default()).await.expect("a list").items.len() >= OBJECTS);
    }
    row("list, 1 client, all objects at once", per_second(begun, Instant::now()) * LISTS as f64, "objects/s");
}

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some([("value".to_owned(), "x".repeat(1024))].into());
    map
}

struct Running(Child);

impl Running {
    fn start(binary: &Path, dir: &Path) -> Self {
        let mut child = Command::new(binary)
            .args(["--agents", &AGENTS.to_string(), "--api-port", "0"])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mini-cluster starts");
        let out = child.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(out).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "mini-cluster did not become ready");
        std::thread::spawn(move || lines.count());
        Self(child)
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }

    fn resident_mib(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0
    }

    /// User and system time, by `/proc/PID/stat`, in its ticks of 10 ms.
    fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
