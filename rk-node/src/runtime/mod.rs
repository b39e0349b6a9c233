//! The contract between the agent and what runs containers: Kubernetes' Container Runtime Interface.
//!
//! [`RuntimeService`] and [`ImageService`] have the CRI's verbs and messages (`runtime.v1` in
//! `k8s.io/cri-api`) as plain Rust, so that a runtime needs no gRPC. Streams (exec, attach, port-forward)
//! are [`Session`]s and byte streams instead of URLs: whoever implements the contract brings the bytes, the
//! agent's server speaks WebSocket and SPDY to clients.

mod session;
pub mod types;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use session::{ByteStream, Session, SessionEnds, TerminalSize, session};
use types::{
    AuthConfig, Container, ContainerConfig, ContainerEvent, ContainerStats, ContainerStatus, ExecSyncResponse, Filter,
    Image, LinuxContainerResources, PodSandbox, PodSandboxConfig, RuntimeCondition, StreamRequest, VersionResponse,
};

/// Why a runtime could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no such sandbox, container or image.
    #[error("{what} {id:?} not found")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// The id asked for.
        id: String,
    },
    /// The image can't be had: the kubelet's `ErrImagePull`.
    #[error("{0}")]
    ImagePull(String),
    /// The image's name makes no sense: the kubelet's `InvalidImageName`.
    #[error("{0}")]
    InvalidImageName(String),
    /// The request makes no sense for the thing's state.
    #[error("{0}")]
    FailedPrecondition(String),
    /// It took longer than allowed.
    #[error("timed out after {0:?}")]
    Timeout(Duration),
    /// The runtime can't be reached.
    #[error("container runtime unavailable: {0}")]
    Unavailable(String),
    /// The runtime does not offer this.
    #[error("{0} is not offered by this runtime")]
    Unimplemented(&'static str),
    /// Anything else, in the runtime's words.
    #[error("{0}")]
    Failed(String),
}

impl RuntimeError {
    /// The thing asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// A failure that an operation of the system reported.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

/// Runs sandboxes (one per pod) and containers in them.
///
/// # Guarantees
/// 1. `run_pod_sandbox` makes a ready sandbox or leaves nothing; `stop_pod_sandbox` stops its containers and network;
///    `remove_pod_sandbox` also forgets it with its containers. Stop and remove succeed on what is already gone.
/// 2. A container goes Created, Running, Exited, and stays listed with its exit code until removed.
/// 3. `stop_container` asks (SIGTERM, or the image's signal), waits for at most the timeout, then kills.
/// 4. What was listed before a restart of the agent is listed after it.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// The runtime's name and versions.
    async fn version(&self) -> Result<VersionResponse, RuntimeError>;

    /// The conditions `RuntimeReady` and `NetworkReady`.
    async fn status(&self) -> Result<Vec<RuntimeCondition>, RuntimeError>;

    /// Makes and starts a pod's sandbox; answers its id.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String, RuntimeError>;

    /// Stops a sandbox, its containers and its network.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError>;

    /// Removes a sandbox and its containers.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError>;

    /// A sandbox, with its addresses.
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandbox, RuntimeError>;

    /// Sandboxes.
    async fn list_pod_sandbox(&self, filter: &Filter) -> Result<Vec<PodSandbox>, RuntimeError>;

    /// Makes a container in a sandbox; answers its id.
    async fn create_container(
        &self,
        pod_sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &PodSandboxConfig,
    ) -> Result<String, RuntimeError>;

    /// Starts a container that was made.
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;

    /// Stops a container: asks, waits for at most `timeout`, kills.
    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError>;

    /// Removes a container, killing it first if it runs.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;

    /// Containers.
    async fn list_containers(&self, filter: &Filter) -> Result<Vec<Container>, RuntimeError>;

    /// All that is known of a container.
    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError>;

    /// Changes the limits of a running container.
    async fn update_container_resources(
        &self,
        id: &str,
        resources: &LinuxContainerResources,
    ) -> Result<(), RuntimeError>;

    /// Runs a command in a container to its end.
    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecSyncResponse, RuntimeError>;

    /// Runs a command in a container with its streams at hand.
    async fn exec(&self, request: &StreamRequest) -> Result<Session, RuntimeError>;

    /// The streams of a container's main process.
    async fn attach(&self, request: &StreamRequest) -> Result<Session, RuntimeError>;

    /// A connection to a port in a sandbox.
    async fn port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn ByteStream>, RuntimeError>;

    /// What a container uses.
    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError>;

    /// What containers use.
    async fn list_container_stats(&self, filter: &Filter) -> Result<Vec<ContainerStats>, RuntimeError>;

    /// Starts the log file anew after it was renamed.
    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError>;

    /// What happens from now on; `None` if the runtime can't tell, and the agent has to look.
    fn container_events(&self) -> Option<broadcast::Receiver<ContainerEvent>> {
        None
    }

    /// Ends what can't outlive the agent, before it goes. Runtimes that live on their own do nothing.
    async fn shutdown(&self) {}
}

/// Has images.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// Images the runtime has.
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError>;

    /// The image of this name, or `None`.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError>;

    /// Fetches an image; answers its reference.
    async fn pull_image(&self, image: &str, auth: Option<&AuthConfig>) -> Result<String, RuntimeError>;

    /// Forgets an image.
    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError>;
}
