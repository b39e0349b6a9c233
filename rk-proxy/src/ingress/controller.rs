//! The component: its settings, its listeners, its life.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rk_api::Client;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{follow::Follower, forward::Shared, serve::serve, tls};

/// Settings of an [`IngressController`].
#[derive(Debug, Clone)]
pub struct IngressConfig {
    /// Where plain HTTP is served.
    pub http: Vec<SocketAddr>,
    /// Where HTTPS is served, with the certificates that the Ingresses' `tls` names.
    pub https: Vec<SocketAddr>,
    /// The class it serves, besides Ingresses without one.
    pub class: String,
    /// The addresses that are written to the Ingresses' status; none to leave the status alone.
    pub addresses: Vec<IpAddr>,
    /// How long connecting to an endpoint may take before the next one is tried.
    pub connect_timeout: Duration,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            https: Vec::new(),
            class: "rk".to_owned(),
            addresses: Vec::new(),
            connect_timeout: Duration::from_secs(3),
        }
    }
}

/// Serves HTTP by the rules of the cluster's Ingresses.
pub struct IngressController {
    client: Arc<dyn Client>,
    config: IngressConfig,
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
}

impl IngressController {
    /// A router of the cluster behind `client`. Its listeners are open when this returns, and served by
    /// [`IngressController::run`].
    ///
    /// # Errors
    /// An address can't be listened at.
    pub async fn new(client: Arc<dyn Client>, config: IngressConfig) -> io::Result<Self> {
        let http = listen(&config.http).await?;
        let https = listen(&config.https).await?;
        Ok(Self { client, config, http, https })
    }

    /// Where plain HTTP is served: as configured, with the ports that the system chose for those given as 0.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.http)
    }

    /// Where HTTPS is served.
    pub fn https_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.https)
    }

    /// Serves until `shutdown`, then lets open requests finish.
    pub async fn run(self, shutdown: CancellationToken) {
        let shared = Arc::new(Shared::new(self.config.connect_timeout));
        let mut listeners = JoinSet::new();
        for listener in self.http {
            listeners.spawn(serve(listener, None, Arc::clone(&shared), shutdown.clone()));
        }
        let certificates = Arc::new(tls::Certificates::default());
        match tls::settings(Arc::clone(&certificates)) {
            Ok(settings) => {
                let acceptor = TlsAcceptor::from(Arc::new(settings));
                for listener in self.https {
                    listeners.spawn(serve(listener, Some(acceptor.clone()), Arc::clone(&shared), shutdown.clone()));
                }
            }
            Err(error) => tracing::error!(%error, "HTTPS is not served"),
        }
        let follower = Follower::new(self.client, self.config, shared, certificates);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follower.run() => {}
        }
        listeners.join_all().await;
    }
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

async fn listen(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?);
    }
    Ok(listeners)
}
