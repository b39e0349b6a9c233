//! Serving on sockets.

use std::{io, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{authority::AnyAuthority, service::EtcdServer};

/// Bytes that a client may send ahead on one stream and on one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Requests that one connection may have under way.
const STREAMS: u32 = 1 << 20;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl EtcdServer {
    /// Serves connections until the future is dropped, over TLS if there is a configuration for it. HTTP/1 and HTTP/2
    /// are told apart by what the client sends.
    pub async fn serve(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        self.accept(listener, tls, false).await;
    }

    /// Serves health, version and metrics and nothing else, until the future is dropped.
    pub async fn serve_web(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        self.accept(listener, tls, true).await;
    }

    async fn accept(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, only_web: bool) {
        let acceptor = tls.map(TlsAcceptor::from);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .adaptive_window(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS);
        builder.http1().timer(TokioTimer::new());
        let builder = Arc::new(builder);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        // Too many open files, most likely: they are not fewer at once.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                Some(_) = connections.join_next() => continue,
            };
            let (server, builder, acceptor) = (self.clone(), builder.clone(), acceptor.clone());
            connections.spawn(async move {
                if let Err(error) = server.connection(stream, &builder, acceptor, only_web).await {
                    tracing::debug!(%error, "a connection has failed");
                }
            });
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        builder: &auto::Builder<TokioExecutor>,
        acceptor: Option<TlsAcceptor>,
        only_web: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let service = service_fn(move |request| {
            let server = self.clone();
            async move {
                Ok::<_, std::convert::Infallible>(match only_web {
                    false => server.handle(request).await,
                    true => server.handle_web(request).await,
                })
            }
        });
        match acceptor {
            None => builder.serve_connection(TokioIo::new(AnyAuthority::new(stream)), service).await,
            Some(acceptor) => {
                let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long");
                let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(timeout)??;
                builder.serve_connection(TokioIo::new(AnyAuthority::new(stream)), service).await
            }
        }
    }
}
