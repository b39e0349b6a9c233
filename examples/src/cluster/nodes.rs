//! The nodes: an agent each, with its own address, pod range, certificates and folder.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use rk_api::{
    Informers,
    server::{UserInfo, pki::Wanted},
};
use rk_node::{
    Identity, Loopback, Node, NodeConfig, NodeError,
    cri::CriRuntime,
    process::{LogRotation, ProcessConfig, ProcessRuntime},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Addresses, ClusterError, servers::Servers};
use crate::options::{Options, Runtime};

/// How many nodes this process has.
pub(super) fn count(options: &Options) -> u16 {
    options.servers + options.agents
}

/// The names of the nodes that are servers: those of the process at this place.
pub(super) fn servers(options: &Options, place: u16) -> Vec<String> {
    (place..place + options.servers).map(|i| format!("rk-server-{i}")).collect()
}

/// The names of the nodes that are not. Those of the first process have one number, as in a cluster of one process.
pub(super) fn agents(options: &Options, place: u16) -> Vec<String> {
    let prefix = if place == 0 { "rk-agent".to_owned() } else { format!("rk-agent-{place}") };
    (0..options.agents).map(|i| format!("{prefix}-{i}")).collect()
}

/// An agent at work.
pub(super) struct RunningNode {
    pub(super) name: String,
    agent: JoinHandle<Result<(), NodeError>>,
    shutdown: CancellationToken,
}

impl RunningNode {
    /// Ends the agent and its containers; the API is not told.
    pub(super) async fn stop(self) -> String {
        self.shutdown.cancel();
        let (name, outcome) = self.ended().await;
        if let Err(error) = outcome {
            tracing::error!(node = name, error, "the node's agent failed");
        }
        name
    }

    /// Whether the agent has ended by itself, which only a failure makes it do.
    pub(super) fn has_ended(&self) -> bool {
        self.agent.is_finished()
    }

    /// The node's name and what its agent came to, once it has ended.
    pub(super) async fn ended(self) -> (String, Result<(), String>) {
        let outcome = match self.agent.await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(error) => Err(format!("ended badly: {error}")),
        };
        (self.name, outcome)
    }
}

/// Starts node `i`.
pub(super) async fn start(
    options: &Options,
    data_dir: &Path,
    servers: &Servers,
    addresses: &Addresses,
    i: u16,
    name: String,
) -> Result<RunningNode, ClusterError> {
    let error = |e: &dyn std::fmt::Display| ClusterError::part("node", &format!("{name}: {e}"));
    let folder = data_dir.join("nodes").join(&name);
    let pods = addresses.pods_of(i).to_string();
    let mut config = match &options.runtime {
        Runtime::Process => {
            let network = Loopback::new(&pods, &folder).map_err(|e| error(&e))?;
            let process = ProcessConfig {
                root: folder.join("runtime"),
                log_rotation: LogRotation::default(),
                host_ip: IpAddr::V4(addresses.node(i)),
            };
            let runtime = ProcessRuntime::open(process, Arc::new(network)).await;
            NodeConfig::new(&name, folder.clone(), runtime.map_err(|e| error(&e))?)
        }
        Runtime::Cri(socket) => {
            let runtime = CriRuntime::new(&format!("unix://{}", socket.display()));
            NodeConfig::new(&name, folder.clone(), Arc::new(runtime))
        }
    };
    let address = IpAddr::V4(addresses.node(i));
    let wanted = Wanted::kubelet_server(&name, [address.to_string()]);
    let serving = servers.pki.identity(&format!("kubelet-{name}"), &wanted)?;
    config.address = address;
    config.pod_cidr = Some(pods);
    config.serving = Some(Identity { certificate: serving.certificate, key: serving.key });
    config.client_ca = Some(servers.pki.ca().to_owned());
    config.static_pods = Some(folder.join("manifests"));
    if options.demo {
        config.lease_interval = Duration::from_secs(1);
    }
    let user = UserInfo::new(&format!("system:node:{name}"), ["system:nodes", "system:authenticated"]);
    let informers = Informers::new(servers.of_node(i).client(user));
    let shutdown = CancellationToken::new();
    let agent = tokio::spawn(Node::with_informers(informers, config).run(shutdown.clone()));
    Ok(RunningNode { name, agent, shutdown })
}
