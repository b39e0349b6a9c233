//! The assembly: every crate of rk in one process, talking to each other through the API.
//!
//! [`Cluster::start`] lays the parts on each other in order: data folder and addresses, certificates, the store, the
//! API server and its HTTPS listener, the objects every cluster has, then the components, each with a client of its own
//! identity, as they would have in processes of their own: controllers, scheduler, proxy and ingress, nodes.
//!
//! A cluster of several servers has a member of a raft group and an API server for each of them, in this process or in others that
//! `join`; `front` is then where clients come in.

mod addresses;
mod components;
mod control_plane;
mod form;
mod front;
mod join;
mod manifests;
mod nodes;
mod scheduling;
mod servers;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node as NodeObject;
use parking_lot::Mutex;
use rk_api::{Api, Client, Informers, Patch, Resource, server::UserInfo};
use serde_json::{Value, json};
use tokio::time::Instant;

pub use addresses::{AddressError, Addresses, LocalRanges};
pub use manifests::{ManifestError, apply, parse};

use crate::{display::Display, options::Options};
use addresses::NODES_OF_PLACE;
use components::Components;
use form::Form;
use nodes::RunningNode;
use servers::Servers;
use store::Stores;

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

/// A cluster, or a process' part of one, that runs in this process.
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
    /// The command line that has a server in another process join, if one can.
    pub join: Option<String>,
    servers: Servers,
    components: Components,
    nodes: Mutex<Vec<RunningNode>>,
    // The last to go, when everything has stopped, however the cluster ends.
    _ranges: Option<LocalRanges>,
    _addresses: Addresses,
}

impl Cluster {
    /// Starts everything and waits until every node of this process is ready.
    ///
    /// # Errors
    /// The first part that can't start.
    pub async fn start(options: &Options, data_dir: &Path, display: &Display) -> Result<Self, ClusterError> {
        create_private(data_dir)?;
        let form = match (Form::of(options, data_dir)?, &options.join) {
            (Some(form), _) => form,
            (None, url) => {
                let step = display.step("join");
                let url = url.as_deref().unwrap_or_default();
                let group = join::join(url, options, data_dir).await?;
                step.done(format!("{url}: server {}", group.place));
                Form::Group(group)
            }
        };
        let (place, open) = match &form {
            Form::Alone => (0, false),
            Form::Group(group) => (group.place, group.open),
        };
        let count = nodes::count(options);
        if open && count > NODES_OF_PLACE {
            let most = format!("--agents is at most {} where servers can join", NODES_OF_PLACE - 1);
            return Err(ClusterError::part("nodes", &most));
        }
        let server_names = nodes::servers(options, place);
        let claim = || {
            let step = display.step("addresses");
            let addresses = Addresses::claim(data_dir, place, count, options.pod_cidr, options.service_cidr)?;
            step.done(format!("nodes {}, pods {}, services {}", addresses.nodes, addresses.pods, addresses.services));
            Ok::<_, ClusterError>(addresses)
        };
        // The lock comes first: a second process must not touch anything else in the folder. That of a group is its place among the
        // addresses, which its members need.
        let (addresses, stores) = match &form {
            Form::Alone => {
                let step = display.step("store");
                let stores = Stores::alone(data_dir).await?;
                step.done(data_dir.display().to_string());
                (claim()?, stores)
            }
            Form::Group(group) => {
                let addresses = claim()?;
                let step = display.step("raft group");
                let stores = Stores::group(group, &server_names, data_dir, &addresses, display).await?;
                step.done(format!("{} in {}", server_names.join(", "), data_dir.display()));
                (addresses, stores)
            }
        };
        let real: Vec<_> = options.pod_cidr.into_iter().chain(options.service_cidr).collect();
        let ranges = if real.is_empty() { None } else { Some(LocalRanges::add(&real).await?) };

        let step = display.step("API servers");
        let servers = Servers::start(options, data_dir, stores, &server_names, &addresses, open).await?;
        step.done(&servers.url);

        let step = display.step("components");
        let components = Components::start(options, &servers, open, &addresses).await?;
        step.done(format!("{}; http://{}", components.names(), components.ingress));

        let admin = UserInfo::new("kubernetes-admin", ["system:masters", "system:authenticated"]);
        let client = servers.of_node(0).client(admin);
        let step = display.step("nodes");
        let names: Vec<_> = server_names.iter().cloned().chain(nodes::agents(options, place)).collect();
        let mut nodes = Vec::new();
        for (i, name) in (0..).zip(&names) {
            nodes.push(nodes::start(options, data_dir, &servers, &addresses, i, name.clone()).await?);
        }
        let cluster = Self {
            informers: Informers::new(Arc::clone(&client)),
            client,
            api_url: servers.url.clone(),
            kubeconfig: servers::kubeconfig(data_dir),
            ingress_port: components.ingress.port(),
            join: servers.join.clone(),
            servers,
            components,
            nodes: Mutex::new(nodes),
            _ranges: ranges,
            _addresses: addresses,
        };
        if let Err(error) = cluster.wait_for_nodes(&names).await {
            cluster.stop().await;
            return Err(error);
        }
        // A node may not give itself a role (NodeRestriction): the administrator does.
        let role = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
        let api = Api::<NodeObject>::all(Arc::clone(&cluster.client));
        for name in &server_names {
            api.patch(name, Patch::merge(role.clone())).await?;
        }
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

    /// Waits until these nodes are Ready.
    async fn wait_for_nodes(&self, names: &[String]) -> Result<(), ClusterError> {
        let nodes = self.informers.of::<NodeObject>();
        let mut changes = nodes.subscribe();
        let ready = || {
            let ready = |object: &Arc<rk_api::Object>| {
                let node = object.typed::<NodeObject>().ok().filter(|_| names.contains(&object.meta().name))?;
                let conditions = node.status.as_ref()?.conditions.as_ref()?;
                conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(())
            };
            nodes.list().iter().filter_map(ready).count()
        };
        let end = Instant::now() + PATIENCE;
        while ready() < names.len() {
            let pause = (Instant::now() + LOOK).min(end);
            if tokio::time::timeout_at(pause, changes.recv()).await.is_err() {
                if let Some(error) = self.failed_node().await {
                    return Err(error);
                }
                if pause == end {
                    return Err(ClusterError::Late(
                        PATIENCE,
                        format!("{} of {} nodes are ready", ready(), names.len()),
                    ));
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
        self.servers.of_node(0).resource_of(api_version, kind)
    }

    /// Ends the last worker node as a power cut would: its agent and its containers are gone, its objects stay.
    /// Returns its name, `None` if there is no worker.
    pub async fn kill_last_node(&self) -> Option<String> {
        let node = {
            let mut nodes = self.nodes.lock();
            if nodes.len() <= self.servers.iter().len() { None } else { nodes.pop() }
        }?;
        Some(node.stop().await)
    }

    /// Whether a node of this name runs.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.lock().iter().any(|node| node.name == name)
    }

    /// Waits until a member of the group can't go on: its disk failed, or the group has forgotten it.
    pub async fn failed(&self) -> ClusterError {
        self.servers.failed().await
    }

    /// Stops everything: nodes with their containers first, the API server last.
    pub async fn stop(self) {
        let nodes = std::mem::take(&mut *self.nodes.lock());
        futures::future::join_all(nodes.into_iter().map(RunningNode::stop)).await;
        self.components.stop().await;
        // Nobody may follow the server any more when its store closes.
        drop((self.informers, self.client));
        self.servers.stop().await;
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
