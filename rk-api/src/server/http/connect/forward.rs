//! A request sent on, and its answer sent back; after an upgrade, bytes both ways.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

use super::super::{body::Body, identity::drop_headers};
use crate::{Error, status};

/// Headers that concern one connection only, or the caller's identity.
const DROPPED: [header::HeaderName; 8] = [
    header::AUTHORIZATION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
];

/// 503: the other side can't be spoken with, in the words of Kubernetes.
pub(super) fn broken(error: &dyn std::fmt::Display) -> Error {
    status::failure(503, "ServiceUnavailable", format!("error trying to reach service: {error}")).into()
}

/// The headers that go along.
fn headers(from: &HeaderMap, authority: &str) -> HeaderMap {
    let mut headers = from.clone();
    let length = from.get(header::CONTENT_LENGTH).cloned();
    for name in DROPPED {
        headers.remove(name);
    }
    drop_headers(&mut headers, "impersonate-");
    if !from.contains_key(header::UPGRADE) {
        headers.remove(header::CONNECTION);
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    if let Ok(host) = HeaderValue::from_str(authority) {
        headers.insert(header::HOST, host);
    }
    headers
}

/// Sends a request over a connection of its own and answers what comes back.
///
/// # Errors
/// 503: the other side breaks the connection or speaks no HTTP.
pub(in crate::server::http) async fn forward<S>(
    stream: S,
    authority: &str,
    uri: &str,
    parts: &mut Parts,
    body: Body,
) -> Result<Response<Body>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ours = parts.extensions.remove::<OnUpgrade>();
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri.parse().map_err(|_| status::bad_request(format!("invalid path {uri:?}")))?;
    *request.headers_mut() = headers(&parts.headers, authority);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend broke");
        }
    });
    let mut response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(ours) = ours else {
            return Err(status::bad_request("Upgrade request required").into());
        };
        let theirs = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let Err(error) = splice(ours, theirs).await {
                tracing::debug!(%error, "upgraded connection ended");
            }
        });
        let (head, _) = response.into_parts();
        return Ok(Response::from_parts(head, super::super::body::empty()));
    }
    let (mut head, body) = response.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        head.headers.remove(name);
    }
    // The connection lasts as long as its sender does.
    let body = body.map_frame(move |frame| {
        let _ = &sender;
        frame
    });
    Ok(Response::from_parts(head, body.map_err(std::io::Error::other).boxed_unsync()))
}

async fn splice(ours: OnUpgrade, theirs: OnUpgrade) -> std::io::Result<()> {
    let (ours, theirs) = tokio::try_join!(ours, theirs).map_err(std::io::Error::other)?;
    let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
    let copied = copy_bidirectional(&mut ours, &mut theirs).await;
    if copied.is_err() {
        // Where a backend broke off, its client still reads a proper end, unless it is gone itself.
        let _ = ours.shutdown().await;
    }
    copied.map(|_| ())
}
