//! How one node agent is set up.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Taint;

use crate::runtime::{ImageService, RuntimeService};

/// A certificate chain and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The chain, leaf first.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// How one node agent is set up. Make one with [`NodeConfig::new`] and change what differs.
#[derive(Clone)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// The node's address: its `InternalIP`, and where the kubelet API listens.
    pub address: IpAddr,
    /// Port of the kubelet API; 0 for any free one.
    pub port: u16,
    /// Folder of the agent's state: volumes, logs, checkpoints.
    pub data_dir: PathBuf,
    /// Runs containers.
    pub runtime: Arc<dyn RuntimeService>,
    /// Has images; often the same object.
    pub images: Arc<dyn ImageService>,
    /// Labels of the Node beside the standard ones.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node registers with.
    pub taints: Vec<Taint>,
    /// Capacity as the Node shows it; empty entries are measured (`cpu`, `memory`, `pods`, `ephemeral-storage`).
    pub capacity: BTreeMap<String, String>,
    /// Range of the pods' addresses, written to the Node's spec where nobody else assigns one.
    pub pod_cidr: Option<String>,
    /// Free bytes on the disk of `data_dir` below which the node has `DiskPressure`. The kubelet counts in per cent, for
    /// disks that are the node's alone; this node may share a large and well-filled one.
    pub disk_pressure: u64,
    /// Most pods at a time.
    pub max_pods: u32,
    /// Name servers of pods with DNS policy `ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Address and port of the API for containers, where there is no `kubernetes` service in `default`.
    pub api_server: Option<(String, u16)>,
    /// Certificate of the kubelet API; a self-signed one is made if there is none.
    pub serving: Option<Identity>,
    /// CA in PEM of those who may use the kubelet API; without it only `/healthz` is answered.
    pub client_ca: Option<String>,
    /// Folder of static pods.
    pub static_pods: Option<PathBuf>,
    /// Time between renewals of the node's lease.
    pub lease_interval: Duration,
    /// Longest time between two writes of the node's status.
    pub status_interval: Duration,
}

impl NodeConfig {
    /// A node called `name` with the given state folder and runtime; the rest as the kubelet has it.
    pub fn new<R: RuntimeService + ImageService>(name: &str, data_dir: PathBuf, runtime: Arc<R>) -> Self {
        Self {
            name: name.to_owned(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 10250,
            data_dir,
            runtime: Arc::clone(&runtime) as Arc<dyn RuntimeService>,
            images: runtime,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            capacity: BTreeMap::new(),
            pod_cidr: None,
            disk_pressure: 256 << 20,
            max_pods: 110,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            api_server: None,
            serving: None,
            client_ca: None,
            static_pods: None,
            lease_interval: Duration::from_secs(10),
            status_interval: Duration::from_secs(300),
        }
    }
}
