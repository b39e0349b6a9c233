//! What a killed agent leaves running is found and ended.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rk_node::{
    Loopback,
    process::{ProcessConfig, ProcessRuntime},
    runtime::{
        RuntimeService,
        types::{ContainerConfig, ContainerMetadata, ContainerState, PodSandboxConfig, PodSandboxState},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_ends_what_the_first_left() {
    let folder = tempfile::tempdir().unwrap();
    let open = || async {
        let network = Arc::new(Loopback::new("127.99.3.0/24", &folder.path().join("network")).unwrap());
        ProcessRuntime::open(ProcessConfig::new(folder.path().join("runtime")), network).await.unwrap()
    };
    // The first runtime is not shut down: as after `kill -9`, its processes stay.
    let first = open().await;
    let config = PodSandboxConfig { log_directory: folder.path().join("logs"), ..PodSandboxConfig::default() };
    let sandbox = first.run_pod_sandbox(&config).await.unwrap();
    let pids = folder.path().join("pids");
    let script = format!("sleep 1000 & echo $$ $! >{0}.new; mv {0}.new {0}; wait", pids.display());
    let container = ContainerConfig {
        metadata: ContainerMetadata { name: "main".to_owned(), attempt: 0 },
        command: ["sh", "-c", &script].map(str::to_owned).into(),
        log_path: "main.log".into(),
        ..ContainerConfig::default()
    };
    let container = first.create_container(&sandbox, &container, &config).await.unwrap();
    first.start_container(&container).await.unwrap();
    // One that ended and that nobody has waited for yet has no command line any more.
    let runs = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !pids.exists() {
        assert!(Instant::now() < deadline, "the container does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pids = std::fs::read_to_string(&pids).unwrap();
    assert!(pids.split_whitespace().count() == 2 && pids.split_whitespace().all(runs), "{pids}");

    let second = open().await;
    let status = second.container_status(&container).await.unwrap();
    assert_eq!((status.container.state, status.exit_code), (ContainerState::Exited, 137));
    assert_eq!(second.pod_sandbox_status(&sandbox).await.unwrap().state, PodSandboxState::NotReady);
    assert!(!pids.split_whitespace().any(runs), "{pids}");
    second.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn unreadable_records_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let containers = folder.path().join("runtime/containers/abc");
    std::fs::create_dir_all(&containers).unwrap();
    std::fs::write(containers.join("state.json"), "{").unwrap();
    let network = Arc::new(Loopback::new("127.99.4.0/24", &folder.path().join("network")).unwrap());
    let runtime = ProcessRuntime::open(ProcessConfig::new(folder.path().join("runtime")), network).await.unwrap();
    assert!(runtime.container_status("abc").await.unwrap_err().is_not_found());
    assert!(!containers.exists());
}
