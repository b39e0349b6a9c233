//! Services and endpoints as a backend needs them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// A service's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// A key of these texts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: Arc::from(namespace), name: Arc::from(name) }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol of the API's word; `None` there is TCP.
    pub fn parse(word: Option<&str>) -> Option<Self> {
        match word {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// The service.
    pub service: ServiceKey,
    /// The port's name, empty for the only port of a service.
    pub port: Arc<str>,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.port.is_empty() { "" } else { ":" };
        write!(f, "{}{colon}{}/{}", self.service, self.port, self.protocol)
    }
}

/// A place where a service is served.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address and port of the pod.
    pub address: SocketAddr,
    /// It serves and is not on its way out.
    pub ready: bool,
    /// It serves.
    pub serving: bool,
    /// It is on its way out.
    pub terminating: bool,
    /// The node it is on, where known.
    pub node: Option<Arc<str>>,
}

/// The endpoints that traffic goes to: those that are ready or, where there is none, those that still serve though they are terminating
/// (KEP-1669).
pub fn usable(endpoints: &[Endpoint]) -> Vec<&Endpoint> {
    let ready: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.ready).collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.iter().filter(|endpoint| endpoint.serving && endpoint.terminating).collect()
}

/// All that is known of a port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Which port.
    pub key: PortKey,
    /// Identity of the Service object, to tell of failures.
    pub uid: Arc<str>,
    /// The service's own addresses.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses of others that lead here as well: `externalIPs` and those of load balancers.
    pub external_ips: Vec<IpAddr>,
    /// The port at all of these addresses.
    pub port: u16,
    /// The port at each node's address.
    pub node_port: Option<u16>,
    /// How long a client stays with its endpoint, counted from its last connection; `None` for no affinity.
    pub affinity: Option<Duration>,
    /// Traffic from outside only goes to endpoints of the node where it arrives.
    pub external_local: bool,
    /// Traffic from inside only goes to endpoints of the node where it starts.
    pub internal_local: bool,
    /// Where it is served.
    pub endpoints: Vec<Endpoint>,
}

/// What changed: the new truth of some ports, and ports that are gone. Ports not named are as they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceChange {
    /// New or changed ports, complete.
    pub upserts: Vec<Arc<ServicePort>>,
    /// Ports that are gone.
    pub removals: Vec<PortKey>,
}

impl ServiceChange {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}
