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
mod service;
mod stream;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, mpsc};

use crate::{
    NetworkPlugin, fsutil,
    runtime::{
        RuntimeError,
        types::{
            ContainerConfig, ContainerEvent, ContainerEventType, ContainerState, Filter, LinuxContainerResources, Map,
            PodSandboxConfig,
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
