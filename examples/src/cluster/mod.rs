//! The assembly: every crate of rk in one process, talking to each other through the API.
//!
//! [`Cluster::start`] lays the parts on each other in order: data folder and addresses, certificates, the store, the
//! API server and its HTTPS listener, the objects every cluster has, then the components, each with a client of its own
//! identity, as they would have in processes of their own: controllers, scheduler, proxy and ingress, nodes.

mod addresses;
mod components;
mod control_plane;
mod manifests;
mod nodes;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node as NodeObject;
use parking_lot::Mutex;
use rk_api::{Api, Client, Informers, Patch, Resource, server::UserInfo};
use rk_store::Store;
use serde_json::{Value, json};
use tokio::time::Instant;

pub use addresses::{AddressError, Addresses, LocalRanges};
pub use manifests::{ManifestError, apply, parse};

use crate::{display::Display, options::Options};
use components::Components;
use control_plane::ControlPlane;
use nodes::RunningNode;

/// A cluster that can't start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The data folder can't be used.
    #[error("data folder {}: {message}", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Addresses can't be had.
    #[error(transparent)]
    Addresses(#[from] AddressError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] rk_store::Error),
    /// Certificates can't be made or read.
    #[error(transparent)]
    Pki(#[from] rk_api::server::pki::PkiError),
    /// The API server refused something.
    #[error(transparent)]
    Api(#[from] rk_api::Error),
    /// A part can't start.
    #[error("{part}: {message}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        message: String,
    },
    /// Not ready in time.
    #[error("not ready within {0:?}: {1}")]
    Late(Duration, String),
}

impl ClusterError {
    fn part(part: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self::Part { part, message: error.to_string() }
    }
}

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a start looks whether a node's agent has given up.
const LOOK: Duration = Duration::from_millis(200);

/// A cluster that runs in this process.
pub struct Cluster {
    /// May do everything.
    pub client: Arc<dyn Client>,
    /// Current copies of collections, for whoever shows or waits for something.
    pub informers: Informers,
    /// Where the API listens.
    pub api_url: String,
    /// Where the admin's kubeconfig is.
    pub kubeconfig: PathBuf,
    /// Port of the ingress on 127.0.0.1.
    pub ingress_port: u16,
    control_plane: ControlPlane,
    components: Components,
    nodes: Mutex<Vec<RunningNode>>,
    ranges: Option<LocalRanges>,
    _addresses: Addresses,
}

impl Cluster {
    /// Starts everything and waits until every node is ready.
    ///
    /// # Errors
    /// The first part that can't start.
    pub async fn start(options: &Options, data_dir: &Path, display: &Display) -> Result<Self, ClusterError> {
        create_private(data_dir)?;
        // The store's lock comes first: a second process must not touch anything else in the folder.
        let step = display.step("store");
        let store = control_plane::open_store(data_dir).await?;
        let revision = store.status().await?.revision;
        step.done(format!("{} at revision {revision}", data_dir.display()));

        let step = display.step("addresses");
        let nodes = options.agents + 1;
        let addresses = Addresses::claim(data_dir, nodes, options.pod_cidr, options.service_cidr)?;
        let real: Vec<_> = options.pod_cidr.into_iter().chain(options.service_cidr).collect();
        let ranges = if real.is_empty() { None } else { Some(LocalRanges::add(&real).await?) };
        step.done(format!("nodes {}, pods {}, services {}", addresses.nodes, addresses.pods, addresses.services));

        let step = display.step("API server");
        let control_plane = ControlPlane::start(options, data_dir, store, &addresses).await?;
        step.done(&control_plane.url);

        let step = display.step("components");
        let components = Components::start(options, &control_plane, &addresses).await?;
        step.done(format!("{}; http://{}", components.names(), components.ingress));

        let admin = UserInfo::new("kubernetes-admin", ["system:masters", "system:authenticated"]);
        let client = control_plane.server.client(admin);
        let step = display.step("nodes");
        let mut nodes = Vec::new();
        for (i, name) in (0..).zip(nodes::names(options)) {
            nodes.push(nodes::start(options, data_dir, &control_plane, &addresses, i, name).await?);
        }
        let cluster = Self {
            informers: Informers::new(Arc::clone(&client)),
            client,
            api_url: control_plane.url.clone(),
            kubeconfig: control_plane.kubeconfig.clone(),
            ingress_port: components.ingress.port(),
            control_plane,
            components,
            nodes: Mutex::new(nodes),
            ranges,
            _addresses: addresses,
        };
        let count = usize::from(options.agents) + 1;
        if let Err(error) = cluster.wait_for_nodes(count).await {
            cluster.stop().await;
            return Err(error);
        }
        // A node may not give itself a role (NodeRestriction): the administrator does.
        let role = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
        Api::<NodeObject>::all(Arc::clone(&cluster.client)).patch(nodes::SERVER, Patch::merge(role)).await?;
        step.done(format!("{count} ready"));
        Ok(cluster)
    }

    /// The first node whose agent has ended by itself, with why.
    async fn failed_node(&self) -> Option<ClusterError> {
        let failed = {
            let mut nodes = self.nodes.lock();
            let failed = nodes.iter().position(RunningNode::has_ended)?;
            nodes.remove(failed)
        };
        let (name, outcome) = failed.ended().await;
        Some(ClusterError::part("node", &format!("{name}: {}", outcome.err().unwrap_or_else(|| "ended".to_owned()))))
    }

    /// Waits until this many nodes are Ready.
    async fn wait_for_nodes(&self, count: usize) -> Result<(), ClusterError> {
        let nodes = self.informers.of::<NodeObject>();
        let mut changes = nodes.subscribe();
        let ready = || {
            let ready = |object: &Arc<rk_api::Object>| {
                let node = object.typed::<NodeObject>().ok()?;
                let conditions = node.status.as_ref()?.conditions.as_ref()?;
                conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(())
            };
            nodes.list().iter().filter_map(ready).count()
        };
        let end = Instant::now() + PATIENCE;
        while ready() < count {
            let pause = (Instant::now() + LOOK).min(end);
            if tokio::time::timeout_at(pause, changes.recv()).await.is_err() {
                if let Some(error) = self.failed_node().await {
                    return Err(error);
                }
                if pause == end {
                    return Err(ClusterError::Late(PATIENCE, format!("{} of {count} nodes are ready", ready())));
                }
            }
        }
        Ok(())
    }

    /// Applies objects, one after the other; calls `done` with each one's kind and name.
    ///
    /// # Errors
    /// The first that is malformed or refused.
    pub async fn apply(&self, objects: Vec<Value>, done: impl FnMut(&str)) -> Result<(), ManifestError> {
        apply(&self.client, |api_version, kind| self.resource_of(api_version, kind), objects, done).await
    }

    /// The resource that serves a kind, if one does.
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        self.control_plane.server.resource_of(api_version, kind)
    }

    /// Ends the last worker node as a power cut would: its agent and its containers are gone, its objects stay.
    /// Returns its name, `None` if there is no worker.
    pub async fn kill_last_node(&self) -> Option<String> {
        let node = {
            let mut nodes = self.nodes.lock();
            if nodes.len() < 2 { None } else { nodes.pop() }
        }?;
        Some(node.stop().await)
    }

    /// Whether a node of this name runs.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.lock().iter().any(|node| node.name == name)
    }

    /// Stops everything: nodes with their containers first, the API server last.
    pub async fn stop(self) {
        let nodes = std::mem::take(&mut *self.nodes.lock());
        futures::future::join_all(nodes.into_iter().map(RunningNode::stop)).await;
        self.components.stop().await;
        // Nobody may follow the server any more when its store closes.
        drop((self.informers, self.client));
        self.control_plane.stop().await;
        if let Some(ranges) = self.ranges {
            ranges.remove().await;
        }
    }
}

/// Makes a folder that only its owner may look into; one that is there is taken as it is.
fn create_private(path: &Path) -> Result<(), ClusterError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| ClusterError::DataDir { path: path.to_owned(), message: e.to_string() })
}
