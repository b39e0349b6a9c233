//! Serving on sockets.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    authority::AnyAuthority,
    grpc::Body,
    metered::Metered,
    service::{EtcdServer, ServerOptions},
};
use crate::connection::{Corked, Driver, Requests};

/// Bytes that a client may send ahead on one stream and on one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Why a connection has ended early.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn builder(requests: Requests, options: &ServerOptions) -> auto::Builder<Requests> {
    let mut builder = auto::Builder::new(requests);
    builder
        .http2()
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(options.max_concurrent_streams)
        .keep_alive_interval((!options.keepalive_interval.is_zero()).then_some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    builder.http1().timer(TokioTimer::new());
    builder
}

/// Serves a connection, and its requests for as long as it lasts.
async fn run<S, H, F>(options: &ServerOptions, stream: S, service: H) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = F>,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let mut driver = Driver::new();
    let builder = builder(driver.requests(), options);
    let stream = Corked::new(stream);
    let connection = builder.serve_connection(TokioIo::new(AnyAuthority::new(stream.clone())), service);
    driver.drive(&stream, pin!(connection)).await
}

/// Has a connection that ends early say so.
async fn told(connection: impl Future<Output = Result<(), Failure>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection has failed");
    }
}

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
        let second = self.options().second_runtime;
        // It has one thread, which is to carry no more than each of those here.
        let workers = Handle::current().metrics().num_workers();
        let (mut here, mut there) = (JoinSet::new(), JoinSet::new());
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
                Some(_) = here.join_next() => continue,
                Some(_) = there.join_next() => continue,
            };
            let (server, acceptor) = (self.clone(), acceptor.clone());
            match second.filter(|_| there.len() * workers < here.len()).and_then(|second| second()) {
                // A stream belongs to the runtime that it is made in.
                Some(second) => {
                    let stream = stream.into_std();
                    let connection =
                        async move { server.connection(TcpStream::from_std(stream?)?, acceptor, only_web).await };
                    there.spawn_on(told(connection), &second)
                }
                None => here.spawn(told(async move { server.connection(stream, acceptor, only_web).await })),
            };
        }
    }

    async fn connection(self, stream: TcpStream, acceptor: Option<TlsAcceptor>, only_web: bool) -> Result<(), Failure> {
        stream.set_nodelay(true)?;
        let stream = Metered::new(stream, self.meter());
        let options = self.options().clone();
        let service = service_fn(move |request| {
            let server = self.clone();
            async move {
                Ok::<_, Infallible>(match only_web {
                    false => server.handle(request).await,
                    true => server.handle_web(request).await,
                })
            }
        });
        match acceptor {
            None => run(&options, stream, service).await,
            Some(acceptor) => {
                let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long");
                let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(timeout)??;
                run(&options, stream, service).await
            }
        }
    }
}
