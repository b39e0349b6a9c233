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

#[test]
fn a_second_start_ends_what_the_first_left() {
    let folder = tempfile::tempdir().unwrap();
    let open = || async {
        let network = Arc::new(Loopback::new("127.99.3.0/24", &folder.path().join("network")).unwrap());
        ProcessRuntime::open(ProcessConfig::new(folder.path().join("runtime")), network).await.unwrap()
    };
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // One that ended and that nobody has waited for yet has no command line any more.
    let runs = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let pids = folder.path().join("pids");
    let script = format!("sleep 1000 & echo $$ $! >{0}.new; mv {0}.new {0}; wait", pids.display());
    let agent = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    // The first agent stands still when this is done, with all its tasks: as after `kill -9`, its processes stay.
    let first = agent();
    let (sandbox, container) = first.block_on(async {
        let first = open().await;
        let config = PodSandboxConfig { log_directory: folder.path().join("logs"), ..PodSandboxConfig::default() };
        let sandbox = first.run_pod_sandbox(&config).await.unwrap();
        let container = ContainerConfig {
            metadata: ContainerMetadata { name: "main".to_owned(), attempt: 0 },
            command: ["sh", "-c", &script].map(str::to_owned).into(),
            log_path: "main.log".into(),
            ..ContainerConfig::default()
        };
        let container = first.create_container(&sandbox, &container, &config).await.unwrap();
        first.start_container(&container).await.unwrap();
        let up = || std::fs::read_to_string(&pids).is_ok_and(|pids| pids.split_whitespace().all(runs));
        until("the container does not start", &up).await;
        (sandbox, container)
    });
    let pids = std::fs::read_to_string(&pids).unwrap();
    assert_eq!(pids.split_whitespace().count(), 2, "{pids}");

    agent().block_on(async {
        let second = open().await;
        let status = second.container_status(&container).await.unwrap();
        assert_eq!((status.container.state, status.exit_code), (ContainerState::Exited, 137));
        assert_eq!(second.pod_sandbox_status(&sandbox).await.unwrap().state, PodSandboxState::NotReady);
        until("processes stay", &|| !pids.split_whitespace().any(runs)).await;
        second.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    drop(first);
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
