//! The way to a node's kubelet.

use std::{fmt, sync::Arc};

use rustls::ClientConfig;
use serde_json::Value;

use crate::{
    Error,
    server::{
        Reader,
        http::TlsError,
        outbound::{self, Connection, Trust, authority, client_tls},
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
        authority(&self.host, self.port)
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

/// Where a node's kubelet listens.
///
/// # Errors
/// 404 for an unknown node, 503 if it has no address.
pub(super) async fn locate(core: &Core, name: &str) -> Result<Address, Error> {
    let nodes = crate::Resource::new("", "v1", "Node", "nodes", false);
    let node = Reader::get(core, "", "nodes", "", name).await?.ok_or_else(|| status::not_found(&nodes, name))?;
    let none = || status::unavailable(format!("no preferred addresses found for node {name:?}"));
    Ok(address(&node.value()?).ok_or_else(none)?)
}

/// A connection to a node's kubelet.
///
/// # Errors
/// As of [`locate`] and [`dial`].
pub(super) async fn connect(core: &Core, name: &str) -> Result<(Box<dyn Connection>, Address), Error> {
    dial(core, locate(core, name).await?).await
}

/// A connection to the kubelet that listens there.
///
/// # Errors
/// 503 if this server may not call kubelets, 500 if it does not answer.
pub(super) async fn dial(core: &Core, address: Address) -> Result<(Box<dyn Connection>, Address), Error> {
    let Some(client) = &core.kubelets else {
        return Err(status::unavailable("this server has no client certificate to call kubelets with").into());
    };
    match outbound::connect(&address.authority(), Some((&client.tls, &address.host))).await {
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
