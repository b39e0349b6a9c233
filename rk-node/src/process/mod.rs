//! The `process` runtime: a container is a process group of the host.
//!
//! No images and no privileges are needed. `image` is a name only; the container's `command` is looked up on the
//! host, and runs in a working folder of its own with exactly the environment that the pod says. As root a
//! container also has a mount namespace of its own with its volumes in their places, its host name, and cgroup
//! limits. Output goes to log files in the CRI's format. The pod's network is a [`NetworkPlugin`]'s.
//!
//! ```text
//! ROOT/sandboxes/ID.json            the sandbox
//! ROOT/containers/ID/state.json     the container: configuration, pid and start time, exit code
//! ROOT/containers/ID/root/          its working folder
//! ROOT/containers/ID/copies/        host folders copied to make room for mounts
//! ```
//!
//! Containers end with the agent. What a killed agent left running is found by pid and start time, and ended, when
//! the runtime opens its folder again; such containers show exit code 137.

mod cgroup;
mod container;
mod launch;
mod log;
mod mounts;
mod ports;
mod stream;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, mpsc};

use crate::{
    NetworkPlugin, NetworkRequest, fsutil,
    runtime::{
        ByteStream, ImageService, RuntimeError, RuntimeService, Session,
        types::{
            AuthConfig, Container, ContainerConfig, ContainerEvent, ContainerEventType, ContainerState, ContainerStats,
            ContainerStatus, ExecSyncResponse, Filter, Image, LinuxContainerResources, Map, PodSandbox,
            PodSandboxConfig, PodSandboxState, RuntimeCondition, StreamRequest, VersionResponse,
        },
    },
};
use cgroup::Cgroup;
use container::{Process, Record, Stream};
use launch::{Launch, View};
pub use log::LogRotation;

/// How the process runtime works.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Folder of all state.
    pub root: PathBuf,
    /// When logs are set aside.
    pub log_rotation: LogRotation,
    /// The address on which ports of pods with the host's network are forwarded to.
    pub host_ip: IpAddr,
}

impl ProcessConfig {
    /// State in `root`; the rest as usual.
    pub fn new(root: PathBuf) -> Self {
        Self { root, log_rotation: LogRotation::default(), host_ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sandbox {
    id: String,
    config: PodSandboxConfig,
    ready: bool,
    created_at: Timestamp,
    ips: Vec<IpAddr>,
}

#[derive(Default)]
struct State {
    sandboxes: HashMap<String, Sandbox>,
    containers: HashMap<String, Arc<Process>>,
    ports: HashMap<String, ports::HostPorts>,
}

/// Runs containers as process groups of the host.
pub struct ProcessRuntime {
    config: ProcessConfig,
    network: Arc<dyn NetworkPlugin>,
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEvent>,
    /// Whether containers can have mount namespaces.
    mounts: bool,
}

/// The identity of an image that is a name only.
fn image_id(name: &str) -> String {
    let digest: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("host@sha256:{digest}")
}

fn new_id() -> String {
    (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect()
}

fn matches(filter: &Filter, id: &str, labels: &Map) -> bool {
    (filter.id.is_empty() || filter.id == id) && filter.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl ProcessRuntime {
    /// Opens the runtime on its folder, and ends what a killed agent left running there.
    ///
    /// # Errors
    /// If the folder can't be used, or what was left can't be ended.
    pub async fn open(config: ProcessConfig, network: Arc<dyn NetworkPlugin>) -> Result<Arc<Self>, RuntimeError> {
        let mut state = State::default();
        let (sandboxes, containers) = (config.root.join("sandboxes"), config.root.join("containers"));
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| RuntimeError::io(path, &error)
        };
        for folder in [&sandboxes, &containers] {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        for entry in std::fs::read_dir(&sandboxes).map_err(io(&sandboxes))? {
            let path = entry.map_err(io(&sandboxes))?.path();
            match std::fs::read(&path).map(|bytes| serde_json::from_slice::<Sandbox>(&bytes)) {
                Ok(Ok(mut sandbox)) => {
                    sandbox.ready = false;
                    state.sandboxes.insert(sandbox.id.clone(), sandbox);
                }
                Ok(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "sandbox record unreadable, dropped");
                    fsutil::remove_all(&path).map_err(io(&path))?;
                }
                Err(error) => return Err(io(&path)(error)),
            }
        }
        for entry in std::fs::read_dir(&containers).map_err(io(&containers))? {
            let folder = entry.map_err(io(&containers))?.path();
            let path = folder.join("state.json");
            let record = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
            match record {
                Ok(record) => {
                    let process = Arc::new(Process::new(folder, record));
                    end_leftover(&process).await?;
                    let id = process.record.lock().id.clone();
                    state.containers.insert(id, process);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "container record unreadable, dropped");
                    fsutil::remove_all(&folder).map_err(io(&folder))?;
                }
            }
        }
        let mounts = mounts::permitted();
        Ok(Arc::new(Self { config, network, state: Mutex::new(state), events: broadcast::channel(1024).0, mounts }))
    }

    fn sandbox(&self, id: &str) -> Result<Sandbox, RuntimeError> {
        let found = self.state.lock().sandboxes.get(id).cloned();
        found.ok_or_else(|| RuntimeError::NotFound { what: "sandbox", id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<Arc<Process>, RuntimeError> {
        let found = self.state.lock().containers.get(id).cloned();
        found.ok_or_else(|| RuntimeError::NotFound { what: "container", id: id.to_owned() })
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Process>> {
        let state = self.state.lock();
        state.containers.values().filter(|c| c.record.lock().sandbox == sandbox).cloned().collect()
    }

    fn sandbox_path(&self, id: &str) -> PathBuf {
        self.config.root.join("sandboxes").join(format!("{id}.json"))
    }

    fn keep_sandbox(&self, sandbox: Sandbox) -> Result<(), RuntimeError> {
        let path = self.sandbox_path(&sandbox.id);
        container::save(&path, &sandbox).map_err(|error| RuntimeError::io(path.display(), &error))?;
        self.state.lock().sandboxes.insert(sandbox.id.clone(), sandbox);
        Ok(())
    }

    fn tell(events: &broadcast::Sender<ContainerEvent>, container: &Process, r#type: ContainerEventType) {
        let record = container.record.lock();
        // Nobody may be listening yet.
        let _ =
            events.send(ContainerEvent { container_id: record.id.clone(), pod_uid: record.pod_uid.clone(), r#type });
    }

    /// The part of starting that the main process and commands in the container share.
    fn launch(&self, container: &Process, command: Vec<String>) -> Launch {
        let record = container.record.lock();
        let config = &record.config;
        let root = container.folder.join("root");
        let mut envs = config.envs.clone();
        if !envs.iter().any(|(name, _)| name == "PATH") {
            envs.insert(0, ("PATH".to_owned(), launch::PATH.to_owned()));
        }
        envs.push(("RK_CONTAINER_ROOT".to_owned(), root.display().to_string()));
        let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
        let me = nix::unistd::geteuid();
        Launch {
            command,
            envs,
            cwd: if config.working_dir.is_empty() { root } else { PathBuf::from(&config.working_dir) },
            // A user who is not root can't change; being that user already is fine.
            user: id(config.security.run_as_user).filter(|user| *user != me.as_raw()),
            group: id(config.security.run_as_group).filter(|group| *group != nix::unistd::getegid().as_raw()),
            view: View::Host,
            cgroup: record.cgroup.clone(),
            tty: None,
            stdin: false,
        }
    }

    /// The view of a command run in a running container.
    fn view_of(&self, container: &Process) -> Result<View, RuntimeError> {
        let record = container.record.lock();
        match record.process {
            Some((pid, _)) if record.state == ContainerState::Running => {
                Ok(if self.mounts { View::Join(pid) } else { View::Host })
            }
            _ => Err(RuntimeError::FailedPrecondition(format!("container {} is not running", record.id))),
        }
    }

    async fn start(&self, container: &Arc<Process>) -> Result<(), RuntimeError> {
        let failed = |error: io::Error| RuntimeError::Failed(error.to_string());
        let (config, log_path, id, sandbox) = {
            let record = container.record.lock();
            if record.state != ContainerState::Created {
                return Err(RuntimeError::FailedPrecondition(format!("container {} was started before", record.id)));
            }
            (record.config.clone(), record.log_path.clone(), record.id.clone(), record.sandbox.clone())
        };
        let sandbox = self.sandbox(&sandbox)?;
        let command: Vec<String> = config.command.iter().chain(&config.args).cloned().collect();
        let root = container.folder.join("root");
        std::fs::create_dir_all(&root).map_err(failed)?;
        if let (Some(user), true) = (config.security.run_as_user, nix::unistd::geteuid().is_root()) {
            let group = config.security.run_as_group.and_then(|group| u32::try_from(group).ok());
            std::os::unix::fs::chown(&root, u32::try_from(user).ok(), group).map_err(failed)?;
        }
        let cgroup = self.limits(&id, &config, &sandbox.config);
        container.update(|record| record.cgroup = cgroup).map_err(failed)?;
        let mut launch = self.launch(container, command);
        if self.mounts {
            let hostname = &sandbox.config.hostname;
            launch.view = View::New {
                scratch: container.folder.join("copies"),
                hostname: (!hostname.is_empty()).then(|| hostname.clone()),
                mounts: config.mounts.clone(),
            };
        } else {
            mounts::link(&root, &config.mounts).map_err(failed)?;
        }
        launch.stdin = config.stdin;
        *container.log.lock() = Some(log::LogFile::open(&log_path, self.config.log_rotation).map_err(failed)?);
        let mut terminal = config.tty.then(stream::Terminal::open).transpose().map_err(failed)?;
        launch.tty = terminal.as_mut().and_then(|terminal| terminal.process.take());
        let spawned = launch.spawn().await;
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                container.finish(128, "StartError", &error.to_string()).await;
                return Err(failed(error));
            }
        };
        let pid = child.id().unwrap_or_default().cast_signed();
        let saved = container.update(|record| {
            record.state = ContainerState::Running;
            record.started_at = Some(rk_api::now());
            record.process = Some((pid, launch::start_time(pid).unwrap_or(0)));
        });
        if let Err(error) = saved {
            // Without its record it could not be found after a crash.
            launch::signal_group(pid, Signal::SIGKILL);
            return Err(failed(error));
        }
        let mut pumps = tokio::task::JoinSet::new();
        let pump = |stream: Stream, from: Box<dyn tokio::io::AsyncRead + Send + Unpin>| {
            let container = Arc::clone(container);
            async move { container.pump(stream, from).await }
        };
        let (to_stdin, from_clients) = mpsc::channel(16);
        if let Some(terminal) = terminal {
            pumps.spawn(pump(Stream::Out, Box::new(terminal.reader)));
            *container.terminal.lock() = Some(terminal.control);
            if config.stdin {
                tokio::spawn(stream::copy_in(from_clients, terminal.writer));
                *container.stdin.lock() = Some(to_stdin);
            }
        } else {
            if let Some(out) = child.stdout.take() {
                pumps.spawn(pump(Stream::Out, Box::new(out)));
            }
            if let Some(err) = child.stderr.take() {
                pumps.spawn(pump(Stream::Err, Box::new(err)));
            }
            if let Some(input) = child.stdin.take() {
                tokio::spawn(stream::copy_in(from_clients, input));
                *container.stdin.lock() = Some(to_stdin);
            }
        }
        Self::tell(&self.events, container, ContainerEventType::Started);
        let (container, events) = (Arc::clone(container), self.events.clone());
        tokio::spawn(async move {
            let status = child.wait().await;
            launch::signal_group(pid, Signal::SIGKILL);
            // A process that left the group may hold the output open; its output is not the container's any more.
            let all = async { while pumps.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
            match status {
                Ok(status) => container.finish(stream::exit_code(status), "", "").await,
                Err(error) => container.finish(255, "Unknown", &error.to_string()).await,
            }
            Self::tell(&events, &container, ContainerEventType::Stopped);
        });
        Ok(())
    }

    /// The container's cgroup, where it has limits and this process may set them.
    fn limits(&self, id: &str, config: &ContainerConfig, sandbox: &PodSandboxConfig) -> Option<Cgroup> {
        let LinuxContainerResources { cpu_quota, memory_limit_in_bytes, .. } = config.resources;
        if sandbox.cgroup_parent.is_empty() || (cpu_quota == 0 && memory_limit_in_bytes == 0) {
            return None;
        }
        match Cgroup::create(&format!("{}/{id}", sandbox.cgroup_parent), &config.resources) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                let (pod, name) = (&sandbox.metadata.name, &config.metadata.name);
                tracing::info!(pod, container = name, %error, "limits are not enforced");
                None
            }
        }
    }
}

/// Ends what a killed agent left running of a container.
async fn end_leftover(container: &Process) -> Result<(), RuntimeError> {
    if container.record.lock().state != ContainerState::Running {
        return Ok(());
    }
    if let Some(pid) = container.leftover() {
        launch::signal_group(pid, Signal::SIGKILL);
        // It is init's child now: gone, or a zombie that holds nothing, as soon as the kernel gets to it.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while container.leftover().is_some_and(|pid| !is_zombie(pid)) {
            if tokio::time::Instant::now() > deadline {
                return Err(RuntimeError::Failed(format!("process {pid} of an earlier run can't be killed")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    container.finish(137, "ContainerStatusUnknown", "The container ended with the node agent that ran it").await;
    Ok(())
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[async_trait]
impl RuntimeService for ProcessRuntime {
    async fn version(&self) -> Result<VersionResponse, RuntimeError> {
        Ok(VersionResponse {
            runtime_name: "process".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self) -> Result<Vec<RuntimeCondition>, RuntimeError> {
        let ready = |r#type: &str| RuntimeCondition { r#type: r#type.to_owned(), status: true, ..Default::default() };
        Ok(vec![ready("RuntimeReady"), ready("NetworkReady")])
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String, RuntimeError> {
        let id = new_id();
        let ips = if config.host_network {
            Vec::new()
        } else {
            self.network.add(&network_request(&id, config)).await.map_err(|e| RuntimeError::Failed(e.to_string()))?
        };
        if let Some(ip) = ips.first() {
            match ports::open(&config.port_mappings, self.config.host_ip, *ip).await {
                Ok(open) => drop(self.state.lock().ports.insert(id.clone(), open)),
                Err(error) => {
                    // Nothing is left of a sandbox that was not made.
                    let released = self.network.del(&network_request(&id, config)).await;
                    return Err(match released {
                        Ok(()) => error,
                        Err(other) => RuntimeError::Failed(format!("{error}; {other}")),
                    });
                }
            }
        }
        let sandbox = Sandbox { id: id.clone(), config: config.clone(), ready: true, created_at: rk_api::now(), ips };
        self.keep_sandbox(sandbox)?;
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(mut sandbox) = self.sandbox(id) else { return Ok(()) };
        for container in self.containers_of(id) {
            container.stop(Duration::ZERO).await;
        }
        self.state.lock().ports.remove(id);
        self.network
            .del(&network_request(id, &sandbox.config))
            .await
            .map_err(|error| RuntimeError::Failed(error.to_string()))?;
        sandbox.ready = false;
        self.keep_sandbox(sandbox)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_pod_sandbox(id).await?;
        for container in self.containers_of(id) {
            let id = container.record.lock().id.clone();
            self.remove_container(&id).await?;
        }
        let path = self.sandbox_path(id);
        fsutil::remove_all(&path).map_err(|error| RuntimeError::io(path.display(), &error))?;
        self.state.lock().sandboxes.remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandbox, RuntimeError> {
        Ok(listed(&self.sandbox(id)?))
    }

    async fn list_pod_sandbox(&self, filter: &Filter) -> Result<Vec<PodSandbox>, RuntimeError> {
        let state = self.state.lock();
        let all = state.sandboxes.values().filter(|sandbox| matches(filter, &sandbox.id, &sandbox.config.labels));
        Ok(all.map(listed).collect())
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        if !self.sandbox(pod_sandbox_id)?.ready {
            return Err(RuntimeError::FailedPrecondition(format!("sandbox {pod_sandbox_id} is not ready")));
        }
        if config.command.is_empty() {
            return Err(RuntimeError::ImagePull(format!(
                "failed to pull image {:?}: the process runtime has no images: container {:?} needs a command of the host",
                config.image, config.metadata.name
            )));
        }
        let id = new_id();
        let folder = self.config.root.join("containers").join(&id);
        std::fs::create_dir_all(&folder).map_err(|error| RuntimeError::io(folder.display(), &error))?;
        let record = Record {
            id: id.clone(),
            sandbox: pod_sandbox_id.to_owned(),
            pod_uid: sandbox.metadata.uid.clone(),
            config: config.clone(),
            log_path: sandbox.log_directory.join(&config.log_path),
            state: ContainerState::Created,
            created_at: rk_api::now(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            process: None,
            cgroup: None,
        };
        let container = Arc::new(Process::new(folder, record));
        container.update(|_| {}).map_err(|error| RuntimeError::io("keep the container's record", &error))?;
        self.state.lock().containers.insert(id.clone(), Arc::clone(&container));
        Self::tell(&self.events, &container, ContainerEventType::Created);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        self.start(&container).await
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        container.stop(timeout).await;
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        container.stop(Duration::ZERO).await;
        fsutil::remove_all(&container.folder).map_err(|error| RuntimeError::io(container.folder.display(), &error))?;
        self.state.lock().containers.remove(id);
        Self::tell(&self.events, &container, ContainerEventType::Deleted);
        Ok(())
    }

    async fn list_containers(&self, filter: &Filter) -> Result<Vec<Container>, RuntimeError> {
        let state = self.state.lock();
        let all = state.containers.values().map(|container| container.listed());
        Ok(all
            .filter(|c| matches(filter, &c.id, &c.labels))
            .filter(|c| filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == c.pod_sandbox_id)
            .collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        Ok(self.container(id)?.status())
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: &LinuxContainerResources,
    ) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let cgroup = container.record.lock().cgroup.clone();
        if let Some(cgroup) = cgroup {
            cgroup.limit(resources).map_err(|error| RuntimeError::Failed(error.to_string()))?;
        }
        container
            .update(|record| record.config.resources = resources.clone())
            .map_err(|error| RuntimeError::io("keep the container's record", &error))
    }

    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecSyncResponse, RuntimeError> {
        let request = StreamRequest {
            container_id: id.to_owned(),
            cmd: cmd.to_vec(),
            stdout: true,
            stderr: true,
            ..StreamRequest::default()
        };
        let mut session = self.exec(&request).await?;
        let mut answer = ExecSyncResponse::default();
        let run = async {
            let out = async {
                while let Some(piece) = session.stdout.recv().await {
                    answer.stdout.extend(piece)
                }
            };
            let err = async {
                while let Some(piece) = session.stderr.recv().await {
                    answer.stderr.extend(piece)
                }
            };
            tokio::join!(out, err);
            (&mut session.exit).await
        };
        let ended = if timeout.is_zero() {
            run.await
        } else {
            tokio::time::timeout(timeout, run).await.map_err(|_| RuntimeError::Timeout(timeout))?
        };
        answer.exit_code = ended.map_err(|_| RuntimeError::Failed("the command was abandoned".to_owned()))??;
        Ok(answer)
    }

    async fn exec(&self, request: &StreamRequest) -> Result<Session, RuntimeError> {
        let container = self.container(&request.container_id)?;
        let mut launch = self.launch(&container, request.cmd.clone());
        launch.view = self.view_of(&container)?;
        if request.tty && !launch.envs.iter().any(|(name, _)| name == "TERM") {
            launch.envs.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        stream::exec(container, launch, request).await
    }

    async fn attach(&self, request: &StreamRequest) -> Result<Session, RuntimeError> {
        let container = self.container(&request.container_id)?;
        self.view_of(&container)?;
        Ok(stream::attach(&container, request))
    }

    async fn port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
        let sandbox = self.sandbox(pod_sandbox_id)?;
        let ip = sandbox.ips.first().copied().unwrap_or(self.config.host_ip);
        match tokio::net::TcpStream::connect((ip, port)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(RuntimeError::Failed(format!("dial tcp {ip}:{port}: {error}"))),
        }
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        let container = self.container(id)?;
        let record = container.record.lock().clone();
        let (cpu_nanos, working_set, rss) = match (&record.cgroup, record.process) {
            (Some(cgroup), Some(_)) => {
                let usage = cgroup.usage();
                (usage.cpu_nanos, usage.working_set, usage.rss)
            }
            (None, Some((pid, _))) => {
                let (cpu, rss) = launch::group_usage(pid);
                (cpu, rss, rss)
            }
            (_, None) => (0, 0, 0),
        };
        Ok(ContainerStats {
            id: record.id,
            metadata: record.config.metadata,
            labels: record.config.labels,
            timestamp: rk_api::now(),
            usage_core_nano_seconds: cpu_nanos,
            working_set_bytes: working_set,
            rss_bytes: rss,
        })
    }

    async fn list_container_stats(&self, filter: &Filter) -> Result<Vec<ContainerStats>, RuntimeError> {
        let mut all = Vec::new();
        for container in self.list_containers(filter).await? {
            if container.state == ContainerState::Running {
                all.push(self.container_stats(&container.id).await?);
            }
        }
        Ok(all)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let mut log = container.log.lock();
        log.as_mut().map_or(Ok(()), log::LogFile::reopen).map_err(|error| RuntimeError::io("reopen the log", &error))
    }

    fn container_events(&self) -> Option<broadcast::Receiver<ContainerEvent>> {
        Some(self.events.subscribe())
    }

    async fn shutdown(&self) {
        let all: Vec<_> = self.state.lock().containers.values().cloned().collect();
        futures::future::join_all(all.iter().map(|container| container.stop(Duration::from_secs(1)))).await;
    }
}

fn network_request(id: &str, config: &PodSandboxConfig) -> NetworkRequest {
    NetworkRequest {
        sandbox_id: id.to_owned(),
        namespace: config.metadata.namespace.clone(),
        name: config.metadata.name.clone(),
        netns: PathBuf::new(),
    }
}

fn listed(sandbox: &Sandbox) -> PodSandbox {
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: if sandbox.ready { PodSandboxState::Ready } else { PodSandboxState::NotReady },
        created_at: sandbox.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        ips: sandbox.ips.clone(),
    }
}

/// Every name is an image that the host "has".
#[async_trait]
impl ImageService for ProcessRuntime {
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(Some(Image { id: image_id(image), repo_tags: vec![image.to_owned()], ..Image::default() }))
    }

    async fn pull_image(&self, image: &str, _auth: Option<&AuthConfig>) -> Result<String, RuntimeError> {
        Ok(image_id(image))
    }

    async fn remove_image(&self, _image: &str) -> Result<(), RuntimeError> {
        Ok(())
    }
}
