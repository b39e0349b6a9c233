//! The agent as a whole: registration and heartbeats beside the pods' workers.

pub(crate) mod admission;
pub(crate) mod machine;
mod pods;
mod static_pods;
mod status;

use std::{sync::Arc, time::Duration};

use rk_api::{Client, EventRecorder, Informers};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    NodeConfig,
    objects::Objects,
    runtime::RuntimeError,
    server::{self, ServerError},
    shared::Shared,
};
pub(crate) use pods::Index;
use pods::Pods;
use status::Reporter;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The container runtime does not answer.
    #[error("container runtime: {0}")]
    Runtime(#[from] RuntimeError),
    /// The kubelet API can't be served.
    #[error("kubelet API: {0}")]
    Server(#[from] ServerError),
    /// The data folder can't be used.
    #[error("data folder {folder}: {error}")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A node agent.
pub struct Node {
    informers: Informers,
    config: NodeConfig,
}

impl Node {
    /// An agent that talks to the API through `client`.
    pub fn new(client: Arc<dyn Client>, config: NodeConfig) -> Self {
        Self::with_informers(Informers::new(client), config)
    }

    /// An agent that shares its view of services with other components of the process.
    pub fn with_informers(informers: Informers, config: NodeConfig) -> Self {
        Self { informers, config }
    }

    /// Runs until `shutdown`: registers the node, keeps its lease, and runs the pods that are bound to it.
    ///
    /// On shutdown the pods stay as they are in the API; containers that can't outlive the agent end.
    ///
    /// # Errors
    /// If the agent can't start. What fails later is tried again, and seen in the node's conditions and the log.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let Self { informers, config } = self;
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|error| NodeError::Folder { folder: config.data_dir.display().to_string(), error })?;
        let version = config.runtime.version().await?;
        let client = Arc::clone(informers.client());
        let shared = Arc::new(Shared {
            recorder: EventRecorder::new(Arc::clone(&client), "kubelet", &config.name),
            services: informers.of::<k8s_openapi::api::core::v1::Service>(),
            runtime_name: version.runtime_name.clone(),
            objects: Objects::new(Arc::clone(&client)),
            allocatable: machine::capacity(&config.capacity, config.max_pods, &config.data_dir),
            client,
            config,
        });
        let pods = Pods::new(Arc::clone(&shared), &informers);
        let served = server::bind(Arc::clone(&shared), pods.index()).await?;
        let reporter = Reporter {
            shared: Arc::clone(&shared),
            port: served.port(),
            runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(served.run(shutdown.clone()));
        tasks.spawn(heartbeat(reporter, shutdown.clone()));
        tasks.spawn(pods.run(shutdown.clone()));
        while tasks.join_next().await.is_some() {}
        shared.config.runtime.shutdown().await;
        Ok(())
    }
}

/// Registers the node, then renews its lease and its status.
async fn heartbeat(reporter: Reporter, shutdown: CancellationToken) {
    let mut node = loop {
        match reporter.register().await {
            Ok(node) => break node,
            Err(error) => {
                tracing::warn!(node = reporter.shared.config.name, %error, "registration failed, trying again");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    };
    let about = rk_api::object_reference(&*node);
    reporter.shared.recorder.normal(&about, "Starting", "Starting kubelet.");
    let mut reported = Instant::now();
    let mut ticks = tokio::time::interval(reporter.shared.config.lease_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = reporter.renew(&node).await {
            tracing::warn!(node = reporter.shared.config.name, %error, "lease not renewed");
        }
        let known = rk_api::Api::<k8s_openapi::api::core::v1::Node>::all(Arc::clone(&reporter.shared.client));
        let written = match known.get_opt(&reporter.shared.config.name).await {
            Ok(Some(current)) => {
                let written = reporter.report(&current, Some(reported.elapsed())).await;
                if written.as_ref().is_ok_and(|new| new.metadata.resource_version != current.metadata.resource_version)
                {
                    reported = Instant::now();
                }
                written
            }
            // Somebody deleted the Node of a live agent: it registers again.
            Ok(None) => reporter.register().await,
            Err(error) => Err(error),
        };
        match written {
            Ok(current) => node = current,
            Err(error) => {
                tracing::warn!(node = reporter.shared.config.name, %error, "node status not written");
            }
        }
    }
}
