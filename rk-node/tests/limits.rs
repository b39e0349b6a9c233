//! Limits of containers that are host processes: cgroups, where this process may write them.

mod cluster;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::{Cluster, phase, pod_condition, shell, with};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// The root of each hierarchy with limits of memory or cpu: of v1, or the one of v2.
fn roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    match root.join("cgroup.controllers").exists() {
        true => vec![root.to_owned()],
        false => ["memory", "cpu"].iter().map(|name| root.join(name)).filter(|root| root.is_dir()).collect(),
    }
}

/// Whether this process can make cgroups with limits; says so where a test is skipped because it can't.
fn can_limit() -> bool {
    let made = |root: &PathBuf| {
        let folder = root.join(format!("rk-limits-{}", std::process::id()));
        fs::create_dir(&folder).and_then(|()| fs::remove_dir(&folder)).is_ok()
    };
    let controls = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let controls = controls.map_or(roots().len() == 2, |text| text.contains("memory") && text.contains("cpu"));
    let can = controls && roots().iter().all(made);
    if !can {
        println!("skipped: cgroups of memory and cpu can't be made here");
    }
    can
}

/// The pod's folders and all below them.
fn folders(pod: &Pod) -> Vec<PathBuf> {
    let name = format!("pod{}", pod.metadata.uid.as_deref().unwrap());
    let mut found = Vec::new();
    for root in roots() {
        for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            let folder = root.join(class).join(&name);
            let below = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
            found.extend(below.filter(|path| path.is_dir()));
            found.extend(folder.is_dir().then_some(folder));
        }
    }
    found
}

/// What a file of that name says, in whichever of the folders it is a limit.
fn limits(pod: &Pod, file: &str) -> Vec<String> {
    let read = |folder: &PathBuf| fs::read_to_string(folder.join(file)).ok();
    folders(pod).iter().filter_map(read).map(|text| text.trim().to_owned()).collect()
}

async fn until_no_folders(pod: &Pod) {
    let wait = async {
        while !folders(pod).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(cluster::PATIENCE, wait).await;
    assert!(gone.is_ok(), "left behind: {:#?}", folders(pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_takes_too_much_memory_is_oom_killed() {
    if !can_limit() {
        return;
    }
    let cluster = Cluster::start().await;
    let limit = json!({"resources": {"limits": {"memory": "32Mi"}}});
    // It keeps the end of what never ends.
    let greedy = with(shell("main", "exec tail /dev/zero"), limit);
    cluster.pod("greedy", json!({"restartPolicy": "Never", "containers": [greedy]})).await;
    let pod = cluster.until::<Pod>("greedy", |pod| phase(pod) == "Failed").await;
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    let ended = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("OOMKilled")));
    cluster.delete("greedy", Some(0)).await;
    cluster.until_gone("greedy").await;
    until_no_folders(&pod).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_written_and_their_folders_removed() {
    if !can_limit() {
        return;
    }
    let cluster = Cluster::start().await;
    let resources = json!({"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}});
    let containers = [with(shell("main", "exec sleep 1000"), resources), shell("free", "exec sleep 1000")];
    cluster.pod("limited", json!({"containers": containers})).await;
    let pod = cluster.until::<Pod>("limited", |pod| pod_condition(pod, "Ready")).await;
    let expected: &[(&str, &str)] = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        true => &[("cpu.max", "50000 100000"), ("memory.max", "67108864"), ("cpu.weight", "10")],
        false => &[
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_period_us", "100000"),
            ("memory.limit_in_bytes", "67108864"),
            ("cpu.shares", "256"),
        ],
    };
    for (file, value) in expected {
        let said = limits(&pod, file);
        assert!(said.iter().any(|said| said == value), "{file} is {said:?}, not {value}");
    }
    // A container's process joins before its command runs, and the pod is ready as soon as it is there.
    let joined = async {
        loop {
            let all = limits(&pod, "cgroup.procs").into_iter();
            let joined: Vec<_> = all.filter(|processes| !processes.is_empty()).collect();
            if joined.len() >= roots().len() {
                return joined;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let joined = tokio::time::timeout(cluster::PATIENCE, joined).await.expect("the container's process joins");
    assert_eq!(joined.len(), roots().len(), "the container's process is in each, the other one's in none: {joined:?}");
    for pid in joined.iter().flat_map(|text| text.lines()) {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(command.contains("sleep"), "{command}");
    }
    cluster.delete("limited", Some(0)).await;
    cluster.until_gone("limited").await;
    until_no_folders(&pod).await;
    cluster.end().await;
}
