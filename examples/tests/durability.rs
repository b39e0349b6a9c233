//! What a cluster promises about its data: `kill -9` loses nothing acknowledged, a second start continues, two
//! starts on one folder and a full disk are told apart from disaster.
#![allow(missing_docs)]

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{MiniCluster, binary, eventually, have, text};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};

async fn configmaps(kubeconfig: &Path) -> Api<ConfigMap> {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig).unwrap(), &options).await.unwrap();
    Api::default_namespaced(Client::try_from(config).unwrap())
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("value".to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    }
}

/// How often the process is killed.
const ROUNDS: usize = 100;
const WRITERS: usize = 4;

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Name and uid of everything whose creation was acknowledged.
    let acknowledged: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    for round in 0..ROUNDS {
        let cluster = MiniCluster::start(&data, &["--agents", "0"]);
        let api = runtime.block_on(configmaps(&cluster.kubeconfig));
        // What the round before left must all be there.
        let found = runtime.block_on(api.list(&ListParams::default())).unwrap();
        let found: BTreeMap<_, _> =
            found.into_iter().map(|c| (c.metadata.name.unwrap(), c.metadata.uid.unwrap())).collect();
        for (name, uid) in acknowledged.lock().unwrap().iter() {
            assert_eq!(found.get(name), Some(uid), "round {round}: {name} was acknowledged and is not there");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (api, acknowledged, stop) = (api.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
                runtime.spawn(async move {
                    for i in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let name = format!("r{round}-w{writer}-{i}");
                        let Ok(made) = api.create(&PostParams::default(), &config_map(&name, "x")).await else {
                            return;
                        };
                        acknowledged.lock().unwrap().insert(name, made.metadata.uid.unwrap());
                    }
                })
            })
            .collect();
        let before = acknowledged.lock().unwrap().len();
        // Killed under load, at moments that differ: after 1 to 20 more acknowledged writes.
        eventually(Duration::from_secs(30), || {
            let done = acknowledged.lock().unwrap().len() - before;
            if done > round % 20 { Ok(()) } else { Err(format!("{done} writes")) }
        });
        cluster.kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            runtime.block_on(writer).unwrap();
        }
    }
    assert!(acknowledged.lock().unwrap().len() >= ROUNDS);
}

#[test]
fn a_second_start_continues_and_two_at_once_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = MiniCluster::start(&data, &["--agents", "0"]);
    let api = runtime.block_on(configmaps(&cluster.kubeconfig));
    let made = runtime.block_on(api.create(&PostParams::default(), &config_map("kept", "1"))).unwrap();

    let second = binary().arg("--data-dir").arg(&data).args(["--api-port", "0"]).output().unwrap();
    assert!(!second.status.success());
    assert!(text(&second).contains("in use"), "{}", text(&second));
    assert!(runtime.block_on(api.get("kept")).is_ok(), "the first is not harmed");

    for file in ["kubeconfig", "pki/ca.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(data.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    cluster.stop();
    let cluster = MiniCluster::start(&data, &["--agents", "0"]);
    let api = runtime.block_on(configmaps(&cluster.kubeconfig));
    let found = runtime.block_on(api.get("kept")).unwrap();
    assert_eq!(
        (found.metadata.uid, found.metadata.resource_version),
        (made.metadata.uid, made.metadata.resource_version)
    );
    cluster.stop();
}

/// A file system of this many MiB, gone with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_writes_and_reads_go_on() {
    if !have("mount") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&disk, 128) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "mounting a file system is required in CI");
        println!("skipped: no permission to mount a file system");
        return;
    };
    let data = disk.join("data");
    let cluster = MiniCluster::start(&data, &["--agents", "0"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(configmaps(&cluster.kubeconfig));
    let write =
        |name: &str| runtime.block_on(api.create(&PostParams::default(), &config_map(name, &"x".repeat(100_000))));
    write("before").unwrap();
    let ballast = disk.join("ballast");
    let filled =
        Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", ballast.display())).output().unwrap();
    assert!(!filled.status.success(), "the disk is full now");

    // Space that the log already holds may take some more writes; then they stop with a clear error.
    let mut names = Vec::new();
    let error = (0..2000).find_map(|i| {
        let name = format!("w{i}");
        match write(&name) {
            Ok(_) => {
                names.push(name);
                None
            }
            Err(error) => Some(error),
        }
    });
    let error = error.expect("writes stop on a full disk").to_string();
    assert!(error.to_lowercase().contains("no space"), "{error}");
    assert!(runtime.block_on(api.get("before")).is_ok(), "reads go on");
    assert!(write("another").is_err());

    std::fs::remove_file(&ballast).unwrap();
    eventually(Duration::from_secs(30), || write("after").map_err(|e| e.to_string()));
    cluster.kill();
    let cluster = MiniCluster::start(&data, &["--agents", "0"]);
    let api = runtime.block_on(configmaps(&cluster.kubeconfig));
    for name in names.iter().map(String::as_str).chain(["before", "after"]) {
        assert!(runtime.block_on(api.get(name)).is_ok(), "{name} was acknowledged");
    }
    assert!(runtime.block_on(api.get_opt("another")).unwrap().is_none(), "what was refused is not there");
}
