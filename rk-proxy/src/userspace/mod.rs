//! Forwarding through this process: a listener per service address, a task per connection. Needs no privileges.
//!
//! A port with usable endpoints has its listeners open; one without has none, so that the system refuses at once, as
//! a packet filter's reject rule would. Connections outlive their listener, and their endpoint's
//! removal: they end when one of the ends closes them, or with the backend.

mod balancer;
mod tcp;
mod udp;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::balancer::Balancer;
use crate::{BackendError, PortKey, Protocol, ProxyBackend, ServiceChange, ServicePort, Unserved, usable};

/// Settings of the [`Userspace`] backend.
#[derive(Debug, Clone)]
pub struct UserspaceConfig {
    /// Addresses at which node ports are served; none for no node ports.
    pub node_addresses: Vec<IpAddr>,
    /// The node this runs on, for services with a `Local` traffic policy; `None` if it serves all nodes: then all
    /// endpoints are local.
    pub node_name: Option<String>,
    /// How long connecting to an endpoint may take before the next one is tried.
    pub connect_timeout: Duration,
    /// How long a UDP client may be silent before its next datagram may go to another endpoint.
    pub udp_timeout: Duration,
    /// Whether other processes of this user serve the same addresses on this machine: then the system spreads connections over all of
    /// them, and what one of them served goes on with the others when it ends.
    pub shared: bool,
}

impl Default for UserspaceConfig {
    fn default() -> Self {
        Self {
            node_addresses: Vec::new(),
            node_name: None,
            connect_timeout: Duration::from_secs(3),
            udp_timeout: Duration::from_secs(60),
            shared: false,
        }
    }
}

/// Forwards connections and datagrams through this process.
pub struct Userspace {
    config: Arc<UserspaceConfig>,
    state: Mutex<State>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

type Address = (Protocol, SocketAddr);

#[derive(Default)]
struct State {
    ports: HashMap<PortKey, Served>,
    /// Who has an address; the first that asked.
    owners: HashMap<Address, PortKey>,
}

/// A port as it is served.
struct Served {
    /// For clients in the cluster, and for those outside.
    internal: Arc<Balancer>,
    external: Arc<Balancer>,
    listeners: HashMap<Address, Listening>,
}

/// An open listener; dropping it closes it.
struct Listening {
    _stop: DropGuard,
    task: tokio::task::JoinHandle<()>,
}

impl Userspace {
    /// A backend that serves nothing yet.
    pub fn new(config: UserspaceConfig) -> Self {
        let stop = CancellationToken::new();
        Self { config: Arc::new(config), state: Mutex::default(), stop: stop.clone(), _stop_on_drop: stop.drop_guard() }
    }

    /// The addresses at which something listens.
    pub async fn listening(&self) -> Vec<(Protocol, SocketAddr)> {
        self.state.lock().await.ports.values().flat_map(|served| served.listeners.keys().copied()).collect()
    }

    /// Where a port has to listen, and whether clients there count as outside.
    fn addresses(&self, port: &ServicePort) -> Vec<(Address, bool)> {
        let at = |ip: &IpAddr, number: u16| (port.key.protocol, SocketAddr::new(*ip, number));
        let cluster = port.cluster_ips.iter().map(|ip| (at(ip, port.port), false));
        let external = port.external_ips.iter().map(|ip| (at(ip, port.port), true));
        let node_ports = port.node_port.into_iter();
        let node =
            node_ports.flat_map(|number| self.config.node_addresses.iter().map(move |ip| (at(ip, number), true)));
        cluster.chain(external).chain(node).collect()
    }

    /// The usable endpoints under a traffic policy.
    fn targets(&self, port: &ServicePort, local: bool) -> Vec<SocketAddr> {
        let here = |node: Option<&str>| match self.config.node_name.as_deref() {
            Some(name) if local => node == Some(name),
            _ => true,
        };
        let endpoints: Vec<_> =
            port.endpoints.iter().filter(|endpoint| here(endpoint.node.as_deref())).cloned().collect();
        usable(&endpoints).into_iter().map(|endpoint| endpoint.address).collect()
    }

    async fn upsert(&self, state: &mut State, port: &ServicePort, unserved: &mut Vec<Unserved>) {
        let served = state.ports.entry(port.key.clone()).or_insert_with(|| Served {
            internal: Arc::default(),
            external: Arc::default(),
            listeners: HashMap::new(),
        });
        served.internal.set(self.targets(port, port.internal_local), port.affinity);
        served.external.set(self.targets(port, port.external_local), port.affinity);
        let balancer = |served: &Served, outside| Arc::clone(if outside { &served.external } else { &served.internal });
        let mut wanted: HashMap<Address, Arc<Balancer>> = HashMap::new();
        for (address, outside) in self.addresses(port) {
            let balancer = balancer(served, outside);
            if !balancer.is_empty() {
                wanted.entry(address).or_insert(balancer);
            }
        }
        let unwanted: Vec<Address> =
            served.listeners.keys().filter(|address| !wanted.contains_key(address)).copied().collect();
        for address in unwanted {
            close(served, &mut state.owners, &address).await;
        }
        for (address, balancer) in wanted {
            if served.listeners.contains_key(&address) {
                continue;
            }
            let fail =
                |reason: String| Unserved { key: port.key.clone(), address: address.1, protocol: address.0, reason };
            if let Some(owner) = state.owners.get(&address) {
                unserved.push(fail(format!("it is the address of {owner}")));
                continue;
            }
            match self.listen(address, balancer).await {
                Ok(listening) => {
                    state.owners.insert(address, port.key.clone());
                    served.listeners.insert(address, listening);
                }
                Err(error) => unserved.push(fail(error.to_string())),
            }
        }
    }

    async fn listen(&self, (protocol, address): Address, balancer: Arc<Balancer>) -> io::Result<Listening> {
        let stop = self.stop.child_token();
        let config = Arc::clone(&self.config);
        let task = match protocol {
            Protocol::Tcp => {
                let listener = tcp::bind(address, config.shared)?;
                tokio::spawn(tcp::serve(listener, balancer, config, stop.clone(), self.stop.clone()))
            }
            Protocol::Udp => {
                let socket = udp::bind(address, config.shared)?;
                tokio::spawn(udp::serve(socket, balancer, config, stop.clone()))
            }
            Protocol::Sctp => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "SCTP can't be served in userspace"));
            }
        };
        Ok(Listening { _stop: stop.drop_guard(), task })
    }
}

/// Closes a listener and waits until its address is free.
async fn close(served: &mut Served, owners: &mut HashMap<Address, PortKey>, address: &Address) {
    owners.remove(address);
    if let Some(Listening { _stop, task }) = served.listeners.remove(address) {
        drop(_stop);
        if let Err(error) = task.await {
            tracing::error!(%error, address = %address.1, "listener ended badly");
        }
    }
}

#[async_trait]
impl ProxyBackend for Userspace {
    fn name(&self) -> &str {
        "userspace"
    }

    async fn apply(&self, change: ServiceChange) -> Result<Vec<Unserved>, BackendError> {
        let mut state = self.state.lock().await;
        let mut unserved = Vec::new();
        // Removals first: a new port may want a removed one's address.
        for key in &change.removals {
            let Some(mut served) = state.ports.remove(key) else { continue };
            let addresses: HashSet<Address> = served.listeners.keys().copied().collect();
            for address in addresses {
                close(&mut served, &mut state.owners, &address).await;
            }
        }
        for port in &change.upserts {
            self.upsert(&mut state, port, &mut unserved).await;
        }
        Ok(unserved)
    }
}
