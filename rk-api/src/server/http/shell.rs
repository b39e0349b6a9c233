//! Listening: hyper and rustls around the service.

use std::{io, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::{
    HttpService,
    identity::{ClientCertificate, Peer},
    tls::Tls,
};

/// How long a client may take to shake hands, and to send the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
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
            let Some(tls) = tls else { return connection(stream, service, (None, peer), closing).await };
            let acceptor = TlsAcceptor::from(tls.config());
            let handshake = async {
                if speaks_http(&stream).await {
                    refuse_http(stream).await.map(|()| None)
                } else {
                    acceptor.accept(stream).await.map(Some)
                }
            };
            match tokio::time::timeout(PATIENCE, handshake).await {
                Ok(Ok(None)) => tracing::debug!("a request without TLS"),
                Ok(Ok(Some(stream))) => {
                    let certificate = tls.certificate(stream.get_ref().1.peer_certificates());
                    connection(stream, service, (certificate, peer), closing).await;
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

/// Serves one connection to its end.
async fn connection<S>(
    stream: S,
    service: HttpService,
    (certificate, peer): (Option<ClientCertificate>, Option<Peer>),
    closing: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        service.clone().call(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .max_concurrent_streams(250);
    let mut served = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), answer));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, served).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection broke");
    }
}
