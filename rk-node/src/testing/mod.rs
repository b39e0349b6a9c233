//! Conformance suites of the contracts: what every implementation must do.
//!
//! [`runtime`] takes a [`RuntimeService`] with its [`ImageService`], [`network`] a [`NetworkPlugin`]. Both panic with
//! what was not kept, as tests do.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    NetworkPlugin, NetworkRequest,
    runtime::{
        ImageService, RuntimeService,
        types::{
            ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, Filter, Map, PodSandboxConfig,
            PodSandboxMetadata, PodSandboxState, StreamRequest,
        },
    },
};

/// What the suite needs to know of the place it runs in.
#[derive(Debug, Clone)]
pub struct Place {
    /// An image with `sh`, `cat` and `sleep` that is present.
    pub image: String,
    /// Folder for the containers' logs.
    pub logs: PathBuf,
    /// Run the sandboxes in the host's network.
    pub host_network: bool,
}

struct Suite<'a, R> {
    runtime: &'a R,
    place: &'a Place,
}

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn labels(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl<R: RuntimeService> Suite<'_, R> {
    fn sandbox(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "conformance".to_owned(),
                attempt: 0,
            },
            hostname: if self.place.host_network { String::new() } else { name.to_owned() },
            log_directory: self.place.logs.join(name),
            labels: labels(&[("suite", "conformance"), ("pod", name)]),
            annotations: labels(&[("note", "kept")]),
            host_network: self.place.host_network,
            ..PodSandboxConfig::default()
        }
    }

    fn container(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: ContainerMetadata { name: name.to_owned(), attempt: 0 },
            image: self.place.image.clone(),
            command: ["sh", "-c", script].map(str::to_owned).into(),
            labels: labels(&[("suite", "conformance"), ("container", name)]),
            annotations: labels(&[("note", "kept")]),
            log_path: PathBuf::from(format!("{name}.log")),
            envs: vec![("GREETING".to_owned(), "hello".to_owned())],
            ..ContainerConfig::default()
        }
    }

    async fn started(&self, sandbox: &str, config: &PodSandboxConfig, container: &ContainerConfig) -> String {
        let id = self.runtime.create_container(sandbox, container, config).await.expect("create_container");
        let status = self.runtime.container_status(&id).await.expect("container_status");
        assert_eq!(status.container.state, ContainerState::Created, "a container that was made is Created");
        assert_eq!(status.container.pod_sandbox_id, sandbox);
        assert_eq!(status.container.annotations.get("note").map(String::as_str), Some("kept"));
        self.runtime.start_container(&id).await.expect("start_container");
        id
    }

    async fn ended(&self, id: &str) -> ContainerStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.runtime.container_status(id).await.expect("container_status");
            if status.container.state == ContainerState::Exited {
                assert!(status.started_at.is_some() && status.finished_at.is_some(), "{status:?}");
                return status;
            }
            assert!(Instant::now() < deadline, "container {id} does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a container to say in its log that it is up: before that it hasn't set its traps.
    async fn up(&self, id: &str) {
        let status = self.runtime.container_status(id).await.expect("container_status");
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&status.log_path).is_ok_and(|log| log.contains(" stdout F up\n")) {
            assert!(Instant::now() < deadline, "container {id} does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn lifecycle(&self) {
        let config = self.sandbox("life");
        let sandbox = self.runtime.run_pod_sandbox(&config).await.expect("run_pod_sandbox");
        let status = self.runtime.pod_sandbox_status(&sandbox).await.expect("pod_sandbox_status");
        assert_eq!((status.state, &status.metadata), (PodSandboxState::Ready, &config.metadata));
        assert!(self.place.host_network || !status.ips.is_empty(), "a pod with its own network has an address");
        let good = self.started(&sandbox, &config, &self.container("good", "echo $GREETING; echo bad >&2")).await;
        let status = self.ended(&good).await;
        assert_eq!(status.exit_code, 0);
        let log = std::fs::read_to_string(&status.log_path).expect("the log file");
        assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F bad\n"), "{log}");
        let bad = self.started(&sandbox, &config, &self.container("bad", "exit 7")).await;
        assert_eq!(self.ended(&bad).await.exit_code, 7);
        assert!(self.runtime.start_container(&bad).await.is_err(), "a container starts once");

        let list =
            |filter: Filter| async move { self.runtime.list_containers(&filter).await.expect("list_containers") };
        let of = |pairs| Filter { labels: labels(pairs), ..Filter::default() };
        assert_eq!(list(of(&[("container", "bad")])).await.len(), 1, "lists are by labels");
        assert_eq!(list(of(&[("container", "bad"), ("suite", "other")])).await.len(), 0);
        assert_eq!(list(Filter { pod_sandbox_id: sandbox.clone(), ..Filter::default() }).await.len(), 2);
        self.runtime.remove_container(&bad).await.expect("remove_container");
        self.runtime.remove_container(&bad).await.expect("what is gone is removed");
        assert!(self.runtime.container_status(&bad).await.expect_err("it is gone").is_not_found());

        let left = self.started(&sandbox, &config, &self.container("left", "exec sleep 1000")).await;
        self.runtime.stop_pod_sandbox(&sandbox).await.expect("stop_pod_sandbox");
        self.runtime.stop_pod_sandbox(&sandbox).await.expect("what is stopped is stopped");
        self.ended(&left).await;
        let status = self.runtime.pod_sandbox_status(&sandbox).await.expect("pod_sandbox_status");
        assert_eq!(status.state, PodSandboxState::NotReady);
        self.runtime.remove_pod_sandbox(&sandbox).await.expect("remove_pod_sandbox");
        self.runtime.remove_pod_sandbox(&sandbox).await.expect("what is gone is removed");
        assert!(list(of(&[("suite", "conformance")])).await.is_empty(), "a sandbox goes with its containers");
        assert!(self.runtime.pod_sandbox_status(&sandbox).await.expect_err("it is gone").is_not_found());
    }

    async fn stopping(&self) {
        let config = self.sandbox("stop");
        let sandbox = self.runtime.run_pod_sandbox(&config).await.expect("run_pod_sandbox");
        let polite = self.container("polite", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done");
        let polite = self.started(&sandbox, &config, &polite).await;
        self.up(&polite).await;
        self.runtime.stop_container(&polite, Duration::from_secs(20)).await.expect("stop_container");
        assert_eq!(self.ended(&polite).await.exit_code, 5, "SIGTERM comes first");
        self.runtime.stop_container(&polite, Duration::ZERO).await.expect("what ended is stopped");
        let stubborn = self.container("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done");
        let stubborn = self.started(&sandbox, &config, &stubborn).await;
        self.up(&stubborn).await;
        let begun = Instant::now();
        self.runtime.stop_container(&stubborn, Duration::from_secs(1)).await.expect("stop_container");
        assert!(begun.elapsed() >= Duration::from_millis(900), "the timeout is waited for");
        assert_eq!(self.ended(&stubborn).await.exit_code, 137, "SIGKILL comes last");
        self.runtime.remove_pod_sandbox(&sandbox).await.expect("remove_pod_sandbox");
    }

    async fn streams(&self) {
        let config = self.sandbox("exec");
        let sandbox = self.runtime.run_pod_sandbox(&config).await.expect("run_pod_sandbox");
        let container = self.started(&sandbox, &config, &self.container("main", "exec sleep 1000")).await;
        let command = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        let answer = self
            .runtime
            .exec_sync(&container, &command("echo $GREETING; echo no >&2; exit 4"), PATIENCE)
            .await
            .expect("exec_sync");
        assert_eq!((&answer.stdout[..], &answer.stderr[..], answer.exit_code), (&b"hello\n"[..], &b"no\n"[..], 4));
        let late = self.runtime.exec_sync(&container, &command("sleep 100"), Duration::from_secs(1)).await;
        assert!(late.is_err(), "a command that takes too long is an error");
        let mut session = self
            .runtime
            .exec(&StreamRequest {
                container_id: container.clone(),
                cmd: command("read a; echo got $a; exit 6"),
                stdin: true,
                stdout: true,
                stderr: true,
                tty: false,
            })
            .await
            .expect("exec");
        let stdin = session.stdin.take().expect("standard input was asked for");
        stdin.send(Bytes::from_static(b"this\n")).await.expect("the command reads");
        let mut out = Vec::new();
        while let Some(piece) = session.stdout.recv().await {
            out.extend_from_slice(&piece);
        }
        assert_eq!(out, b"got this\n");
        assert_eq!(session.exit.await.expect("an outcome").expect("an exit code"), 6);
        let stats = self.runtime.container_stats(&container).await.expect("container_stats");
        assert_eq!(stats.metadata.name, "main");
        self.runtime.reopen_container_log(&container).await.expect("reopen_container_log");
        self.runtime.remove_pod_sandbox(&sandbox).await.expect("remove_pod_sandbox");
    }
}

/// Checks a container runtime and its images.
///
/// # Panics
/// If a guarantee of [`RuntimeService`] is not kept.
pub async fn runtime<R: RuntimeService + ImageService>(runtime: &Arc<R>, place: &Place) {
    let version = runtime.version().await.expect("version");
    assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty(), "{version:?}");
    let conditions = runtime.status().await.expect("status");
    assert!(
        conditions.iter().any(|condition| condition.r#type == "RuntimeReady" && condition.status),
        "{conditions:?}"
    );
    let image = runtime.image_status(&place.image).await.expect("image_status");
    assert!(image.is_some_and(|image| !image.id.is_empty()), "the image is there");
    let suite = Suite { runtime: &**runtime, place };
    suite.lifecycle().await;
    suite.stopping().await;
    suite.streams().await;
}

/// Checks a pod network.
///
/// # Panics
/// If a guarantee of [`NetworkPlugin`] is not kept.
pub async fn network(plugin: &dyn NetworkPlugin) {
    let request = |id: &str| NetworkRequest {
        sandbox_id: id.to_owned(),
        namespace: "conformance".to_owned(),
        name: id.to_owned(),
        netns: PathBuf::new(),
    };
    let a = plugin.add(&request("a")).await.expect("add");
    let b = plugin.add(&request("b")).await.expect("add");
    assert!(!a.is_empty() && !b.is_empty(), "every pod has an address");
    assert!(a.iter().all(|ip| !b.contains(ip)), "addresses are unique");
    assert_eq!(plugin.add(&request("a")).await.expect("add"), a, "the same sandbox gets the same addresses");
    for id in ["a", "a", "b", "never"] {
        plugin.del(&request(id)).await.expect("del succeeds on what is gone");
    }
}
