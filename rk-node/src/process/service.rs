//! The contract's verbs on the process runtime.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};

use super::{
    ProcessRuntime, Sandbox,
    container::{Process, Record},
    image_id, launch, log, matches, new_id, ports, stream,
};
use crate::{
    NetworkRequest, fsutil,
    runtime::{
        ByteStream, ImageService, RuntimeError, RuntimeService, Session,
        types::{
            AuthConfig, Container, ContainerConfig, ContainerEvent, ContainerEventType, ContainerState, ContainerStats,
            ContainerStatus, ExecSyncResponse, Filter, Image, LinuxContainerResources, PodSandbox, PodSandboxConfig,
            PodSandboxState, RuntimeCondition, StreamRequest, VersionResponse,
        },
    },
};

/// Bytes kept of each output of a command that is run to its end: as many as containerd keeps.
const OUTPUT: usize = 16 << 20;

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
                "the process runtime has no images: container {:?} needs a command of the host",
                config.metadata.name
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
        let asked = |container: &&Arc<Process>| {
            let record = container.record.lock();
            matches(filter, &record.id, &record.config.labels)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == record.sandbox)
        };
        Ok(state.containers.values().filter(asked).map(|container| container.listed()).collect())
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
        let session = self.exec(&request).await?;
        let run = async { tokio::join!(collect(session.stdout), collect(session.stderr), session.exit) };
        let (stdout, stderr, exit) = if timeout.is_zero() {
            run.await
        } else {
            tokio::time::timeout(timeout, run).await.map_err(|_| RuntimeError::Timeout(timeout))?
        };
        let exit_code = exit.map_err(|_| RuntimeError::Failed("the command was abandoned".to_owned()))??;
        Ok(ExecSyncResponse { stdout, stderr, exit_code })
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

/// An output to its end. What is beyond the limit is read and dropped, so that the command can go on.
async fn collect(mut pieces: mpsc::Receiver<Bytes>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece[..piece.len().min(OUTPUT - all.len())]);
    }
    all
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
