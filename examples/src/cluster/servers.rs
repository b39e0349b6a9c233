//! This process' servers: an API server on each of its stores, and the ways in, for clients and for processes that join.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rk_api::{
    Informers,
    server::{
        Server, UserInfo,
        pki::{self, Pki, Wanted},
    },
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Addresses, ClusterError,
    control_plane::{ControlPlane, serving_tls},
    front::Front,
    join::{self, Door, Token},
    store::Stores,
};
use crate::options::Options;

/// The port of a server that is one of several, at its own address.
pub(super) const SERVER_PORT: u16 = 6443;
/// In a data folder: certificates and keys, and those of the raft members.
pub(super) const PKI: &str = "pki";
pub(super) const PEER_PKI: &str = "pki/raft";
/// The authority of what servers show to the servers behind them.
pub(super) const PROXY_PKI: &str = "pki/front-proxy";
/// Name of the cluster in kubeconfigs.
const NAME: &str = "mini-cluster";

/// Servers at work.
pub(super) struct Servers {
    /// The cluster's authority.
    pub(super) pki: Pki,
    /// Where clients come in.
    pub(super) url: String,
    /// The command line that has a server in another process join, if one can.
    pub(super) join: Option<String>,
    all: Vec<(String, ControlPlane)>,
    compacting: JoinSet<()>,
    stores: Stores,
    /// Ends the ways in.
    closed: CancellationToken,
}

impl Servers {
    /// Starts a server of each name on the store of the same number. Into an `open` group other processes can join.
    pub(super) async fn start(
        options: &Options,
        data_dir: &Path,
        stores: Stores,
        names: &[String],
        addresses: &Addresses,
        open: bool,
    ) -> Result<Self, ClusterError> {
        let pki = Pki::open(&data_dir.join(PKI))?;
        let proxies = Pki::open(&data_dir.join(PROXY_PKI))?;
        let members = stores.members();
        let several = !members.is_empty();
        let own = (0..options.servers).map(|i| addresses.node(i)).filter(|_| several);
        let certified = [options.api_address, addresses.kubernetes_service()].into_iter().chain(own.clone());
        let tls = serving_tls(&pki, certified.map(|address| address.to_string()).collect())?;

        // Clients of several servers come in through a load balancer, those of one directly.
        let entry = listen((options.api_address, options.api_port).into()).await?;
        let url = format!("https://{}", entry.local_addr().map_err(|e| ClusterError::part("API server", &e))?);
        let mut sockets = Vec::new();
        for address in own {
            sockets.push(listen((address, SERVER_PORT).into()).await?);
        }
        let front = if several {
            Some(entry)
        } else {
            sockets.push(entry);
            None
        };
        let mut all = Vec::new();
        for ((name, socket), store) in names.iter().zip(sockets).zip(stores.all()) {
            let versions = options.runtime_config.clone();
            let server =
                ControlPlane::start(socket, tls.clone(), (store, versions), (&pki, &proxies), addresses, several)
                    .await?;
            all.push((name.clone(), server));
        }

        let closed = CancellationToken::new();
        if let Some(listener) = front {
            let addresses = all.iter().map(|(_, server)| server.address);
            let front = Front::new(addresses.zip(members.iter().cloned()).collect());
            tokio::spawn(front.serve(listener, closed.clone()));
        }
        let mut join = None;
        if let (true, [member], [(_, server)]) = (open, members, all.as_slice()) {
            let (token, file) = Token::open(data_dir, pki.ca())?;
            let at = SocketAddr::from((addresses.node(0), join::PORT));
            let listener = listen(at).await?;
            let door =
                Door { token, member: Arc::clone(member), data_dir: data_dir.to_owned(), block: addresses.block };
            tokio::spawn(door.serve(listener, TlsAcceptor::from(tls.config()), closed.clone()));
            let informers = Informers::new(server.server.client(UserInfo::loopback()));
            tokio::spawn(join::forget_deleted(informers, Arc::clone(member), closed.clone()));
            join = Some(format!("mini-cluster --join https://{at} --token-file {}", file.display()));
        }
        let admin = pki.identity("admin", &Wanted::admin())?;
        let config = pki::kubeconfig(NAME, &url, pki.ca(), "admin", &admin);
        for path in [Some(&kubeconfig(data_dir)), options.write_kubeconfig.as_ref()].into_iter().flatten() {
            pki::write_private(path, config.as_bytes())?;
        }
        let compacting = stores.keep_compacted();
        Ok(Self { pki, url, join, all, compacting, stores, closed })
    }

    /// Them, with their names; there is at least one.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Server)> {
        self.all.iter().map(|(name, server)| (name.as_str(), &server.server))
    }

    /// The one that the process' `i`th node talks to.
    pub(super) fn of_node(&self, i: u16) -> &Server {
        &self.all[usize::from(i) % self.all.len()].1.server
    }

    /// Whether there may be more than these.
    pub(super) fn are_several(&self) -> bool {
        !self.stores.members().is_empty()
    }

    /// Waits until a member of the group can't go on: its disk failed, or the group has forgotten it.
    pub(super) async fn failed(&self) -> ClusterError {
        let ends: Vec<_> = self.stores.members().iter().map(|member| Box::pin(member.stopped())).collect();
        if !ends.is_empty()
            && let (Some(error), ..) = futures::future::select_all(ends).await
        {
            return error.into();
        }
        std::future::pending().await
    }

    /// Takes them out of service, then closes their stores.
    pub(super) async fn stop(self) {
        self.closed.cancel();
        futures::future::join_all(self.all.into_iter().map(|(_, server)| server.stop())).await;
        drop(self.compacting);
        self.stores.close().await;
    }
}

/// Where a data folder has the administrator's kubeconfig.
pub(super) fn kubeconfig(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("kubeconfig")
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ClusterError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| ClusterError::part("API server", &format!("can't listen on {address}: {e}")))
}
