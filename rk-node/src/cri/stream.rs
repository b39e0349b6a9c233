//! Streams from the URLs that a container runtime hands out, by its WebSocket protocol `v4.channel.k8s.io`.
//!
//! That protocol has no way to end the input alone: a client that closes its input closes nothing here, and a
//! command that reads to the end of its input ends when its client goes.

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::runtime::{RuntimeError, Session, SessionEnds};

const PROTOCOL: &str = "v4.channel.k8s.io";

async fn connect(url: &str) -> Result<WebSocketStream<TcpStream>, RuntimeError> {
    let failed = |error: &dyn std::fmt::Display| RuntimeError::Failed(format!("{url}: {error}"));
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| failed(&error))?;
    let authority = uri.authority().ok_or_else(|| failed(&"no host in the URL"))?;
    let stream = TcpStream::connect((authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| failed(&error))?;
    let request =
        http::Request::get(format!("ws://{authority}{}", uri.path_and_query().map_or("/", |path| path.as_str())))
            .header("Host", authority.as_str())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
            .header("Sec-WebSocket-Protocol", PROTOCOL)
            .body(())
            .map_err(|error| failed(&error))?;
    let (socket, _) = client_async(request, stream).await.map_err(|error| failed(&error))?;
    Ok(socket)
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(bytes);
    Message::Binary(frame.freeze())
}

/// The exit code that a `Status` tells.
fn outcome(status: &[u8]) -> Result<i32, RuntimeError> {
    let status: Value = serde_json::from_slice(status)
        .map_err(|_| RuntimeError::Failed(String::from_utf8_lossy(status).into_owned()))?;
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    match code.and_then(|cause| cause["message"].as_str()?.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(RuntimeError::Failed(status["message"].as_str().unwrap_or("the command failed").to_owned())),
    }
}

/// The streams of an exec or attach.
pub(super) async fn session(url: &str, stdin: bool) -> Result<Session, RuntimeError> {
    let (mut sink, mut messages) = connect(url).await?.split();
    let (client, ends) = crate::runtime::session(stdin);
    let SessionEnds { stdin, stdout, stderr, mut resize, exit } = ends;
    tokio::spawn(async move {
        let outbound = async move {
            let mut stdin = stdin;
            let mut sizes = true;
            while stdin.is_some() || sizes {
                let input = async {
                    match &mut stdin {
                        Some(stdin) => stdin.recv().await,
                        None => std::future::pending().await,
                    }
                };
                let message = tokio::select! {
                    piece = input => match piece {
                        Some(piece) => framed(0, &piece),
                        None => {
                            stdin = None;
                            continue;
                        }
                    },
                    size = resize.recv(), if sizes => match size.and_then(|size| serde_json::to_vec(&size).ok()) {
                        Some(size) => framed(4, &size),
                        None => {
                            sizes = false;
                            continue;
                        }
                    },
                };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        let inbound = async {
            let mut result = None;
            loop {
                let message = tokio::select! {
                    message = messages.next() => message,
                    // The client has gone, and with it who wants the output.
                    () = stdout.closed() => return None,
                };
                let Some(Ok(message)) = message else { return result };
                let Message::Binary(bytes) = message else { continue };
                let Some(channel) = bytes.first() else { continue };
                let piece = bytes.slice(1..);
                match channel {
                    1 if !piece.is_empty() => drop(stdout.send(piece).await),
                    2 if !piece.is_empty() => drop(stderr.send(piece).await),
                    3 if !piece.is_empty() => result = Some(outcome(&piece)),
                    _ => {}
                }
            }
        };
        let result = tokio::select! {
            result = inbound => result,
            () = outbound => None,
        };
        let lost = || Err(RuntimeError::Unavailable("the runtime closed the stream".to_owned()));
        // The client may be gone.
        let _ = exit.send(result.unwrap_or_else(lost));
        drop((stdout, stderr));
    });
    Ok(client)
}

/// A connection to a port of a sandbox.
pub(super) async fn port(url: &str, port: u16) -> Result<DuplexStream, RuntimeError> {
    let separator = if url.contains('?') { '&' } else { '?' };
    let (mut sink, mut messages) = connect(&format!("{url}{separator}port={port}")).await?.split();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from_near, mut to_near) = tokio::io::split(far);
    tokio::spawn(async move {
        // Each channel begins with the port, which is known.
        let mut greeted = [false; 2];
        let inbound = async {
            while let Some(Ok(message)) = messages.next().await {
                let Message::Binary(bytes) = message else { continue };
                let Some(channel) = bytes.first().copied().filter(|channel| *channel < 2) else { continue };
                if !std::mem::replace(&mut greeted[usize::from(channel)], true) {
                    continue;
                }
                let piece: Bytes = bytes.slice(1..);
                if channel == 1 {
                    tracing::debug!(port, error = %String::from_utf8_lossy(&piece), "port-forward");
                    return;
                }
                if to_near.write_all(&piece).await.is_err() {
                    return;
                }
            }
        };
        let outbound = async {
            let mut buffer = vec![0; 32 * 1024];
            while let Ok(read @ 1..) = from_near.read(&mut buffer).await {
                if sink.send(framed(0, &buffer[..read])).await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = inbound => {}
            () = outbound => {}
        }
        // Who forwards may be gone.
        let _ = to_near.shutdown().await;
    });
    Ok(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_statuses() {
        assert_eq!(outcome(br#"{"status":"Success"}"#).unwrap(), 0);
        let failure = br#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(outcome(failure).unwrap(), 3);
        assert_eq!(outcome(br#"{"status":"Failure","message":"no"}"#).unwrap_err().to_string(), "no");
        assert_eq!(outcome(b"plain").unwrap_err().to_string(), "plain");
    }
}
