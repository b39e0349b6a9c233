//! WebSockets of the kubelet API: the upgrade, and a WebSocket as a plain stream of bytes.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::routes::{Body, Refusal};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What a request wants its connection to become.
pub(super) fn upgrade_of(request: &Request<Incoming>) -> Option<String> {
    let asked = request.headers().get(header::CONNECTION)?.to_str().ok()?.to_ascii_lowercase();
    if !asked.split(',').any(|word| word.trim() == "upgrade") {
        return None;
    }
    Some(request.headers().get(header::UPGRADE)?.to_str().ok()?.to_ascii_lowercase())
}

/// Every value of a header that holds a list.
pub(super) fn listed(request: &Request<Incoming>, name: &str) -> Vec<String> {
    let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

pub(super) fn switching(upgrade: &'static str, headers: &[(&'static str, String)]) -> Result<Response<Body>, Refusal> {
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, upgrade);
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        response = response.header(*name, value);
    }
    let body = Empty::new().map_err(|never| match never {}).boxed();
    response.body(body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// The answer that makes the connection a WebSocket, and the socket to come.
pub(super) fn accept(
    request: &mut Request<Incoming>,
    protocol: &str,
) -> Result<(Response<Body>, impl Future<Output = Option<Socket>> + Send + use<>), Refusal> {
    let key = request.headers().get("sec-websocket-key");
    let key = key.ok_or((StatusCode::BAD_REQUEST, "missing Sec-WebSocket-Key".to_owned()))?;
    let mut headers = vec![("sec-websocket-accept", derive_accept_key(key.as_bytes()))];
    if !protocol.is_empty() {
        headers.push(("sec-websocket-protocol", protocol.to_owned()));
    }
    let response = switching("websocket", &headers)?;
    let upgrade = hyper::upgrade::on(request);
    let socket = async move {
        match upgrade.await {
            Ok(upgraded) => Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await),
            Err(error) => {
                tracing::debug!(%error, "kubelet API: upgrade");
                None
            }
        }
    };
    Ok((response, socket))
}

/// How long a client may take to answer a goodbye.
const PARTING: Duration = Duration::from_secs(5);

/// The end of a WebSocket as clients want it: without the code for a normal end they report an error.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// Says goodbye, ends the stream and waits for the client to close. Closing a connection with unread input resets it, and what
/// was sent last would be lost. A client that sleeps until its connection has news, with frames left that it read together
/// with others, is woken by the end.
pub(super) async fn part(mut socket: Socket) {
    let parting = async {
        // The client may be gone already.
        let _ = socket.send(goodbye()).await;
        let _ = socket.get_mut().shutdown().await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    if tokio::time::timeout(PARTING, parting).await.is_err() {
        tracing::debug!("kubelet API: a client did not answer the end of its WebSocket");
    }
}

/// A WebSocket whose binary messages are pieces of one stream of bytes (KEP-4006's tunnel). Must be called in a
/// tokio runtime.
pub(super) fn tunnel(socket: Socket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let (mut sink, mut messages) = socket.split();
    tokio::spawn(async move {
        let inbound = async {
            while let Some(Ok(message)) = messages.next().await {
                match message {
                    Message::Binary(bytes) if to_far.write_all(&bytes).await.is_err() => return,
                    Message::Close(_) => break,
                    _ => {}
                }
            }
            // The other side may be gone already.
            let _ = to_far.shutdown().await;
        };
        let outbound = async {
            let mut buffer = bytes::BytesMut::with_capacity(32 * 1024);
            while let Ok(1..) = from_far.read_buf(&mut buffer).await {
                let piece: Bytes = buffer.split().freeze();
                if sink.send(Message::Binary(piece)).await.is_err() {
                    return;
                }
                buffer.reserve(32 * 1024);
            }
            // The client may be gone already.
            let _ = sink.send(goodbye()).await;
        };
        tokio::join!(inbound, outbound);
        if let Ok(socket) = sink.reunite(messages) {
            part(socket).await;
        }
    });
    near
}
