//! The kubelet API on the node's address: logs, exec, attach, port-forward, and what the node says of itself.
//!
//! It is HTTPS with HTTP/1.1, as streams are upgrades. Whoever shows a certificate of the client CA (the API
//! server) may do everything; others only get `/healthz`.

pub(crate) mod logs;
mod portforward;
mod remote;
mod routes;
mod stats;
mod tls;
mod websocket;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{node::Index, shared::Shared};
pub(crate) use routes::Kubelet;

/// Why the kubelet API can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is taken, or not this machine's.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A certificate or key is broken.
    #[error("certificates: {0}")]
    Certificates(String),
}

/// A listening kubelet API.
pub(crate) struct Served {
    listener: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
    kubelet: Arc<Kubelet>,
}

/// Opens the port.
pub(crate) async fn bind(shared: Arc<Shared>, index: Index) -> Result<Served, ServerError> {
    let address = SocketAddr::new(shared.config.address, shared.config.port);
    let tls = TlsAcceptor::from(Arc::new(tls::config(&shared.config)?));
    let listen = |error| ServerError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    Ok(Served { listener, address, tls, kubelet: Arc::new(Kubelet { shared, index }) })
}

impl Served {
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, mostly: a pause lets some come free.
                        tracing::warn!(%error, "kubelet API: accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (tls, kubelet) = (self.tls.clone(), Arc::clone(&self.kubelet));
            connections.spawn(async move {
                let handshake = tokio::time::timeout(Duration::from_secs(10), tls.accept(stream));
                let stream = match handshake.await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::debug!(%error, "kubelet API: TLS handshake"),
                    Err(_) => return,
                };
                let trusted = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                let service = service_fn(move |request| {
                    let kubelet = Arc::clone(&kubelet);
                    async move { Ok::<_, std::convert::Infallible>(kubelet.answer(request, trusted).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(30))
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "kubelet API: connection");
                }
            });
        }
    }
}
