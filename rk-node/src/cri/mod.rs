//! The `cri` runtime: a real container runtime (containerd, CRI-O) over gRPC on its unix socket.
//!
//! [`CriRuntime`] turns the contract's calls into the wire's; streams are fetched from the URLs that the runtime
//! hands out (`stream`).

mod convert;
mod stream;

/// Messages and client of the wire, generated from `proto/cri.proto`.
#[allow(missing_docs, clippy::all, reason = "generated")]
mod wire {
    tonic::include_proto!("runtime.v1");
}

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::runtime::{
    ByteStream, ImageService, RuntimeError, RuntimeService, Session,
    types::{
        AuthConfig, Container, ContainerConfig, ContainerStats, ContainerStatus, ExecSyncResponse, Filter, Image,
        LinuxContainerResources, PodSandbox, PodSandboxConfig, RuntimeCondition, StreamRequest, VersionResponse,
    },
};
use wire::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};

/// How long calls may take that only look, or change little: the kubelet's `runtimeRequestTimeout`.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Largest answer: lists of many containers are long.
const LARGEST: usize = 16 << 20;

/// A container runtime behind a unix socket.
#[derive(Clone)]
pub struct CriRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

fn failed(status: Status) -> RuntimeError {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => RuntimeError::NotFound { what: "object of the container runtime", id: message },
        Code::DeadlineExceeded => RuntimeError::Failed(format!("deadline exceeded: {message}")),
        Code::Unavailable => RuntimeError::Unavailable(message),
        Code::FailedPrecondition => RuntimeError::FailedPrecondition(message),
        _ => RuntimeError::Failed(message),
    }
}

/// What is gone already is removed already.
fn absent_is_fine<T>(result: Result<T, Status>) -> Result<(), RuntimeError> {
    match result {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => other.map(drop).map_err(failed),
    }
}

fn request<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

fn missing(what: &'static str) -> RuntimeError {
    RuntimeError::Failed(format!("the container runtime's answer has no {what}"))
}

impl CriRuntime {
    /// A client of the runtime at `socket` (`/run/containerd/containerd.sock`, with or without `unix://`). It connects
    /// when it is first used, and again whenever the connection breaks. Must be called in a tokio runtime.
    pub fn new(socket: &str) -> Self {
        let path = Path::new(socket.strip_prefix("unix://").unwrap_or(socket)).to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is not used: the connector knows where to go.
        let channel = Endpoint::from_static("http://cri").connect_with_connector_lazy(connector);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(LARGEST),
            images: ImageServiceClient::new(channel).max_decoding_message_size(LARGEST),
        }
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }
}

#[async_trait]
impl RuntimeService for CriRuntime {
    async fn version(&self) -> Result<VersionResponse, RuntimeError> {
        let asked = wire::VersionRequest { version: "v1".to_owned() };
        let answer = self.client().version(request(asked, TIMEOUT)).await.map_err(failed)?.into_inner();
        Ok(VersionResponse {
            runtime_name: answer.runtime_name,
            runtime_version: answer.runtime_version,
            runtime_api_version: answer.runtime_api_version,
        })
    }

    async fn status(&self) -> Result<Vec<RuntimeCondition>, RuntimeError> {
        let asked = wire::StatusRequest { verbose: false };
        let answer = self.client().status(request(asked, TIMEOUT)).await.map_err(failed)?.into_inner();
        let conditions = answer.status.ok_or_else(|| missing("status"))?.conditions;
        let condition = |condition: wire::RuntimeCondition| RuntimeCondition {
            r#type: condition.r#type,
            status: condition.status,
            reason: condition.reason,
            message: condition.message,
        };
        Ok(conditions.into_iter().map(condition).collect())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String, RuntimeError> {
        std::fs::create_dir_all(&config.log_directory)
            .map_err(|error| RuntimeError::io(config.log_directory.display(), &error))?;
        let asked = wire::RunPodSandboxRequest {
            config: Some(convert::sandbox_config(config)),
            runtime_handler: config.runtime_handler.clone(),
        };
        let answer = self.client().run_pod_sandbox(request(asked, TIMEOUT * 2)).await.map_err(failed)?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let asked = wire::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        absent_is_fine(self.client().stop_pod_sandbox(request(asked, TIMEOUT)).await)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_pod_sandbox(id).await?;
        let asked = wire::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        absent_is_fine(self.client().remove_pod_sandbox(request(asked, TIMEOUT)).await)
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandbox, RuntimeError> {
        let asked = wire::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.client().pod_sandbox_status(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(convert::sandbox_status(answer.into_inner().status.ok_or_else(|| missing("status"))?))
    }

    async fn list_pod_sandbox(&self, filter: &Filter) -> Result<Vec<PodSandbox>, RuntimeError> {
        let filter = wire::PodSandboxFilter { id: filter.id.clone(), label_selector: convert::to_map(&filter.labels) };
        let asked = wire::ListPodSandboxRequest { filter: Some(filter) };
        let answer = self.client().list_pod_sandbox(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(answer.into_inner().items.into_iter().map(convert::sandbox).collect())
    }

    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let folder = sandbox.log_directory.join(&config.log_path);
        if let Some(folder) = folder.parent() {
            std::fs::create_dir_all(folder).map_err(|error| RuntimeError::io(folder.display(), &error))?;
        }
        let asked = wire::CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.to_owned(),
            config: Some(convert::container_config(config, sandbox)),
            sandbox_config: Some(convert::sandbox_config(sandbox)),
        };
        let answer = self.client().create_container(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(answer.into_inner().container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let asked = wire::StartContainerRequest { container_id: id.to_owned() };
        self.client().start_container(request(asked, TIMEOUT)).await.map(drop).map_err(failed)
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        let seconds = i64::try_from(timeout.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
        let asked = wire::StopContainerRequest { container_id: id.to_owned(), timeout: seconds };
        absent_is_fine(self.client().stop_container(request(asked, TIMEOUT + timeout)).await)
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let asked = wire::RemoveContainerRequest { container_id: id.to_owned() };
        absent_is_fine(self.client().remove_container(request(asked, TIMEOUT)).await)
    }

    async fn list_containers(&self, filter: &Filter) -> Result<Vec<Container>, RuntimeError> {
        let filter = wire::ContainerFilter {
            id: filter.id.clone(),
            pod_sandbox_id: filter.pod_sandbox_id.clone(),
            label_selector: convert::to_map(&filter.labels),
        };
        let asked = wire::ListContainersRequest { filter: Some(filter) };
        let answer = self.client().list_containers(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(answer.into_inner().containers.into_iter().map(convert::container).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        // The status does not name the sandbox; the list does.
        let filter = Filter { id: id.to_owned(), ..Filter::default() };
        let listed = self.list_containers(&filter).await?.into_iter().next();
        let listed = listed.ok_or_else(|| RuntimeError::NotFound { what: "container", id: id.to_owned() })?;
        let asked = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.client().container_status(request(asked, TIMEOUT)).await.map_err(failed)?;
        let status = answer.into_inner().status.ok_or_else(|| missing("status"))?;
        Ok(convert::container_status(status, listed.pod_sandbox_id))
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: &LinuxContainerResources,
    ) -> Result<(), RuntimeError> {
        let asked = wire::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(convert::resources(resources)),
        };
        self.client().update_container_resources(request(asked, TIMEOUT)).await.map(drop).map_err(failed)
    }

    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecSyncResponse, RuntimeError> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(0);
        let asked = wire::ExecSyncRequest { container_id: id.to_owned(), cmd: cmd.to_vec(), timeout: seconds };
        let mut message = tonic::Request::new(asked);
        if !timeout.is_zero() {
            // The runtime ends the command itself; this is for a runtime that hangs.
            message.set_timeout(timeout + Duration::from_secs(10));
        }
        match self.client().exec_sync(message).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                Ok(ExecSyncResponse { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
            }
            Err(status) if status.code() == Code::DeadlineExceeded => Err(RuntimeError::Timeout(timeout)),
            Err(status) => Err(failed(status)),
        }
    }

    async fn exec(&self, wanted: &StreamRequest) -> Result<Session, RuntimeError> {
        let asked = wire::ExecRequest {
            container_id: wanted.container_id.clone(),
            cmd: wanted.cmd.clone(),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr && !wanted.tty,
        };
        let answer = self.client().exec(request(asked, TIMEOUT)).await.map_err(failed)?;
        stream::session(&answer.into_inner().url, wanted.stdin).await
    }

    async fn attach(&self, wanted: &StreamRequest) -> Result<Session, RuntimeError> {
        let asked = wire::AttachRequest {
            container_id: wanted.container_id.clone(),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr && !wanted.tty,
        };
        let answer = self.client().attach(request(asked, TIMEOUT)).await.map_err(failed)?;
        stream::session(&answer.into_inner().url, wanted.stdin).await
    }

    async fn port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError> {
        let asked = wire::PortForwardRequest { pod_sandbox_id: pod_sandbox_id.to_owned(), port: vec![i32::from(port)] };
        let answer = self.client().port_forward(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(Box::new(stream::port(&answer.into_inner().url, port).await?))
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        let asked = wire::ContainerStatsRequest { container_id: id.to_owned() };
        let answer = self.client().container_stats(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(convert::stats(answer.into_inner().stats.ok_or_else(|| missing("stats"))?))
    }

    async fn list_container_stats(&self, filter: &Filter) -> Result<Vec<ContainerStats>, RuntimeError> {
        let filter = wire::ContainerStatsFilter {
            id: filter.id.clone(),
            pod_sandbox_id: filter.pod_sandbox_id.clone(),
            label_selector: convert::to_map(&filter.labels),
        };
        let asked = wire::ListContainerStatsRequest { filter: Some(filter) };
        let answer = self.client().list_container_stats(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(answer.into_inner().stats.into_iter().map(convert::stats).collect())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        let asked = wire::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.client().reopen_container_log(request(asked, TIMEOUT)).await.map(drop).map_err(failed)
    }
}

#[async_trait]
impl ImageService for CriRuntime {
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let answer = self.images.clone().list_images(request(wire::ListImagesRequest {}, TIMEOUT)).await;
        Ok(answer.map_err(failed)?.into_inner().images.into_iter().map(convert::image).collect())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let asked = wire::ImageStatusRequest { image: Some(convert::image_spec(image)), verbose: false };
        let answer = self.images.clone().image_status(request(asked, TIMEOUT)).await.map_err(failed)?;
        Ok(answer.into_inner().image.map(convert::image))
    }

    async fn pull_image(&self, image: &str, auth: Option<&AuthConfig>) -> Result<String, RuntimeError> {
        let auth = auth.map(|auth| wire::AuthConfig {
            username: auth.username.clone(),
            password: auth.password.clone(),
            auth: auth.auth.clone(),
            server_address: auth.server_address.clone(),
        });
        let asked = wire::PullImageRequest { image: Some(convert::image_spec(image)), auth };
        // A pull ends by itself when nothing comes any more; a large image takes its time.
        let answer = self.images.clone().pull_image(tonic::Request::new(asked)).await;
        let answer = answer.map_err(|status| RuntimeError::ImagePull(status.message().to_owned()))?;
        Ok(answer.into_inner().image_ref)
    }

    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError> {
        let asked = wire::RemoveImageRequest { image: Some(convert::image_spec(image)) };
        absent_is_fine(self.images.clone().remove_image(request(asked, TIMEOUT)).await)
    }
}
