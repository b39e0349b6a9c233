//! Listening: hyper and rustls around the service.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tower::Service;

use rk_store::connection::{Corked, Driver, Valve};

use super::{
    Body, HttpService, answer,
    identity::Peer,
    negotiate::Format,
    tls::{Shown, Tls},
};
use crate::status;

/// How long a client may take to shake hands.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection stays open for its first request, and with HTTP/1.1 from one request to the head of the next. Clients give up a
/// connection after 90 s in which they did not use it (Go's and hyper's, and so does kube-apiserver): it is they who have to be first, for a request
/// that is on its way when the server closes is lost.
const IDLE: Duration = Duration::from_secs(100);
/// How long requests in progress may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted (most often: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections, HTTP/1.1 and HTTP/2, with TLS or without, until `shutdown`. Then no new ones are taken,
/// watches end, and requests in progress get a few seconds.
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    listener: TcpListener,
    service: HttpService,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, tls = tls.is_some(), "serving the API");
    let connections = TaskTracker::new();
    let closing = shutdown.child_token();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are written whole; waiting for more to send only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "can't set TCP_NODELAY");
        }
        let (service, tls, closing) = (service.clone(), tls.clone(), closing.clone());
        connections.spawn(async move {
            let peer = stream.peer_addr().ok().map(Peer);
            let Some(tls) = tls else { return connection(Corked::new(stream), service, (None, peer), closing).await };
            let acceptor = TlsAcceptor::from(tls.config());
            let handshake = async {
                if speaks_http(&stream).await {
                    refuse_http(stream).await.map(|()| None)
                } else {
                    let (stream, valve) = Valve::new(stream);
                    let mut stream = acceptor.accept(stream).await?;
                    // How much waits to be sent is limited above it.
                    stream.get_mut().1.set_buffer_limit(None);
                    Ok(Some((stream, valve)))
                }
            };
            match tokio::time::timeout(PATIENCE, handshake).await {
                Ok(Ok(None)) => tracing::debug!("a request without TLS"),
                Ok(Ok(Some((stream, valve)))) => {
                    let shown = tls.shown(stream.get_ref().1.peer_certificates());
                    connection(Corked::over_tls(stream, valve), service, (shown, peer), closing).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            }
        });
    }
    service.stop();
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::info!(open = connections.len(), "connections still open are closed");
    }
    Ok(())
}

/// Whether a client that should shake hands sends a request instead, by Go's `tlsRecordHeaderLooksLikeHTTP`.
async fn speaks_http(stream: &TcpStream) -> bool {
    let mut head = [0; 5];
    let read = stream.peek(&mut head).await.unwrap_or(0);
    [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"].into_iter().any(|method| head[..read] == *method)
}

/// Tells such a client what is wrong, in the words of Go's server.
async fn refuse_http(mut stream: TcpStream) -> io::Result<()> {
    // What is left unread would reset the connection before the client has its answer.
    let _ = stream.read(&mut [0; 16 << 10]).await?;
    stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n").await?;
    stream.shutdown().await
}

/// Bytes that a client may send ahead on one stream and on one connection: the largest body at once.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of one answer that are put together before they are sent: as much as leaves at once. With more they would not stay in a core's cache
/// until then.
const SEND_BUFFER: usize = 128 << 10;

/// Whether an answer may be much work: of what reads or deletes all but what is about one object, which a path of the right length is.
fn takes_long<B>(request: &http::Request<B>) -> bool {
    let path = request.uri().path();
    let one = match path.bytes().filter(|byte| *byte == b'/').count() {
        4 | 6 => path.starts_with("/api/"),
        5 | 7 => path.starts_with("/apis/"),
        _ => false,
    };
    matches!(*request.method(), http::Method::GET | http::Method::DELETE) && !one
}

/// What answers the requests of a connection.
struct Handler {
    service: HttpService,
    shown: Option<Shown>,
    peer: Option<Peer>,
    /// Whether there was a request.
    begun: Arc<AtomicBool>,
}

impl hyper::service::Service<http::Request<Incoming>> for Handler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        if let Some(shown) = &self.shown {
            request.extensions_mut().insert(shown.certificate());
        }
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        let alone = takes_long(&request);
        let answered = self.service.clone().call(request);
        if !alone {
            return answered;
        }
        // Its work must not hold up the connection's other requests.
        let task = AbortOnDropHandle::new(tokio::spawn(answered));
        let failed = |error| Ok(answer::failure(&status::internal(error).into(), Format::Json));
        Box::pin(async move { task.await.unwrap_or_else(failed) })
    }
}

/// Serves one connection to its end.
async fn connection<S>(
    stream: Corked<S>,
    service: HttpService,
    (shown, peer): (Option<Shown>, Option<Peer>),
    closing: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Arc::new(AtomicBool::new(false));
    let handler = Handler { service, shown, peer, begun: Arc::clone(&begun) };
    let mut driver = Driver::new();
    let mut builder = Builder::new(driver.requests());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(250);
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream.clone()), handler));
    let mut idle = pin!(tokio::time::sleep(IDLE));
    let result = loop {
        tokio::select! {
            result = driver.drive(&stream, served.as_mut()) => break result,
            // Before the first bytes it is not known which protocol's limits there are.
            () = &mut idle, if !idle.is_elapsed() => {
                if !begun.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = closing.cancelled() => {
                served.as_mut().graceful_shutdown();
                match tokio::time::timeout(DRAIN, driver.drive(&stream, served)).await {
                    Ok(result) => break result,
                    Err(_) => return,
                }
            }
        }
    };
    // Whoever took the connection over writes by themselves from now on. Where nobody has, nothing is left or nobody reads it.
    let _gone = tokio::time::timeout(DRAIN, stream.uncork()).await;
    if let Err(error) = result {
        tracing::debug!(%error, "connection broke");
    }
}
