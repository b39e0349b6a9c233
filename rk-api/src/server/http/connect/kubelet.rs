//! The way to a node's kubelet.

use std::{fmt, net::IpAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Error,
    server::{
        Reader,
        http::TlsError,
        outbound::{Trust, client_tls},
        pipeline::Core,
    },
    status,
};

/// The kubelet's port where a node does not name it.
const PORT: i64 = 10250;

/// How the server calls kubelets: with its client certificate, over TLS.
#[derive(Clone)]
pub struct KubeletClient {
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for KubeletClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeletClient").finish_non_exhaustive()
    }
}

impl KubeletClient {
    /// Calls with a client certificate and key, and believes serving certificates of `ca` (all PEM).
    ///
    /// # Errors
    /// One of the parts is not what it should be.
    pub fn new(certificate: &str, key: &str, ca: &str) -> Result<Self, TlsError> {
        Ok(Self { tls: client_tls(Trust::Authorities(ca), Some((certificate, key)))? })
    }

    /// A TLS connection to a host.
    async fn connect(&self, host: &str, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await
    }
}

/// Where a kubelet listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// For the `Host` header.
    pub(super) fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[{}]:{}", self.host, self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Where the kubelet of a node listens.
fn address(node: &Value) -> Option<Address> {
    let addresses = node["status"]["addresses"].as_array()?;
    let of = |kind: &str| addresses.iter().find(|address| address["type"] == kind)?["address"].as_str();
    let host = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"))?.to_owned();
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_i64().unwrap_or(PORT);
    Some(Address { host, port: u16::try_from(port).ok()? })
}

/// A connection to a node's kubelet.
///
/// # Errors
/// 404 for an unknown node, 503 if it has no address or does not answer.
pub(super) async fn connect(core: &Core, name: &str) -> Result<(TlsStream<TcpStream>, Address), Error> {
    let nodes = crate::Resource::new("", "v1", "Node", "nodes", false);
    let node = Reader::get(core, "", "nodes", "", name).await?.ok_or_else(|| status::not_found(&nodes, name))?;
    let Some(address) = address(&node.value()?) else {
        return Err(status::unavailable(format!("no preferred addresses found for node {name:?}")).into());
    };
    let Some(client) = &core.kubelets else {
        return Err(status::unavailable("this server has no client certificate to call kubelets with").into());
    };
    match client.connect(&address.host, address.port).await {
        Ok(stream) => Ok((stream, address)),
        Err(error) => Err(dial_error(&address.authority(), &error)),
    }
}

/// A kubelet or pod that can't be reached, in the words of Go's dialer.
pub(super) fn dial_error(authority: &str, error: &std::io::Error) -> Error {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    };
    status::failure(500, "", format!("error dialing backend: dial tcp {authority}: {why}")).into()
}
