//! exec and attach: a client's channels, by WebSocket or SPDY, joined to a runtime's session.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::Instant,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    routes::{Body, Refusal},
    websocket::{self, Socket},
};
use crate::{
    runtime::{RuntimeError, Session, TerminalSize, types::StreamRequest},
    spdy,
};

/// How often a client is asked whether it is still there.
const PING: Duration = Duration::from_secs(5);
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Ends a channel: the next byte names it (v5).
const CLOSE: u8 = 255;

/// How the outcome is told: a `Status` from version 4 on, words before.
fn outcome(result: Result<i32, RuntimeError>, as_status: bool) -> Bytes {
    let value: Value = match result {
        Ok(0) if !as_status => return Bytes::new(),
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => {
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            if !as_status {
                return message.into();
            }
            let causes = [json!({"reason": "ExitCode", "message": code.to_string()})];
            json!({"metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                "details": {"causes": causes}})
        }
        Err(error) if !as_status => return error.to_string().into(),
        Err(error) => {
            json!({"metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {error}"),
            "reason": "InternalError", "details": {"causes": [{"message": error.to_string()}]}, "code": 500})
        }
    };
    value.to_string().into()
}

fn gone() -> RuntimeError {
    RuntimeError::Failed("the command was abandoned".to_owned())
}

/// Upgrades the connection and serves the session on it.
pub(super) fn answer(
    mut request: Request<Incoming>,
    wanted: StreamRequest,
    open: impl Future<Output = Result<Session, RuntimeError>> + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    match websocket::upgrade_of(&request).as_deref() {
        Some("websocket") => {
            let offered = websocket::listed(&request, "sec-websocket-protocol");
            let known = [
                "v5.channel.k8s.io",
                "v4.channel.k8s.io",
                "v4.base64.channel.k8s.io",
                "v3.channel.k8s.io",
                "v2.channel.k8s.io",
                "channel.k8s.io",
                "base64.channel.k8s.io",
            ];
            let chosen = known.into_iter().find(|known| offered.iter().any(|offered| offered == known));
            let Some(chosen) = chosen.or(offered.is_empty().then_some("")) else {
                let message = format!("unable to upgrade: unsupported protocols {offered:?}, use one of {known:?}");
                return Err((StatusCode::FORBIDDEN, message));
            };
            let (response, socket) = websocket::accept(&mut request, chosen)?;
            let as_status = chosen.starts_with("v5") || chosen.starts_with("v4");
            let base64 = chosen.contains("base64");
            tokio::spawn(async move {
                if let Some(socket) = socket.await {
                    over_websocket(socket, wanted, open, as_status, base64).await;
                }
            });
            Ok(response)
        }
        Some("spdy/3.1") => {
            let offered = websocket::listed(&request, "x-stream-protocol-version");
            let known =
                ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
            let chosen = known.into_iter().find(|known| offered.iter().any(|offered| offered == known));
            let chosen = chosen.unwrap_or("channel.k8s.io");
            let response = websocket::switching("SPDY/3.1", &[("x-stream-protocol-version", chosen.to_owned())])?;
            let upgrade = hyper::upgrade::on(&mut request);
            let as_status = chosen.starts_with("v5") || chosen.starts_with("v4");
            tokio::spawn(async move {
                match upgrade.await {
                    Ok(upgraded) => over_spdy(TokioIo::new(upgraded), wanted, open, as_status).await,
                    Err(error) => tracing::debug!(%error, "kubelet API: upgrade"),
                }
            });
            Ok(response)
        }
        _ => Err((StatusCode::BAD_REQUEST, "Upgrade request required".to_owned())),
    }
}

/// The writing half of a WebSocket of channels.
struct Channels {
    sink: SplitSink<Socket, Message>,
    base64: bool,
}

impl Channels {
    async fn send(&mut self, channel: u8, bytes: &[u8]) -> bool {
        let message = if self.base64 {
            Message::text(format!("{channel}{}", BASE64.encode(bytes)))
        } else {
            let mut framed = BytesMut::with_capacity(bytes.len() + 1);
            framed.put_u8(channel);
            framed.put_slice(bytes);
            Message::Binary(framed.freeze())
        };
        self.sink.send(message).await.is_ok()
    }
}

/// The channel and bytes of a message.
fn unpack(message: Message, base64: bool) -> Option<(u8, Bytes)> {
    match message {
        Message::Binary(bytes) if !base64 && !bytes.is_empty() => Some((bytes[0], bytes.slice(1..))),
        Message::Text(text) if base64 => {
            let (channel, rest) = text.as_str().split_at_checked(1)?;
            Some((channel.parse().ok()?, BASE64.decode(rest).ok()?.into()))
        }
        Message::Text(text) => Some((*text.as_bytes().first()?, Bytes::copy_from_slice(&text.as_bytes()[1..]))),
        _ => None,
    }
}

async fn over_websocket(
    socket: Socket,
    wanted: StreamRequest,
    open: impl Future<Output = Result<Session, RuntimeError>>,
    as_status: bool,
    base64: bool,
) {
    let (sink, mut messages) = socket.split();
    let mut channels = Channels { sink, base64 };
    let result = match open.await {
        Err(error) => Err(error),
        Ok(mut session) => {
            let mut stdin = session.stdin.take().filter(|_| wanted.stdin);
            let mut pending: Option<Bytes> = None;
            let (mut out_open, mut err_open) = (true, true);
            // Between attempts to write to a slow process, output and resizes still flow.
            let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
            ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                if !out_open && !err_open {
                    break (&mut session.exit).await.unwrap_or_else(|_| Err(gone()));
                }
                tokio::select! {
                    piece = session.stdout.recv(), if out_open => match piece {
                        Some(piece) => if wanted.stdout && !channels.send(STDOUT, &piece).await { return },
                        None => out_open = false,
                    },
                    piece = session.stderr.recv(), if err_open => match piece {
                        Some(piece) => if wanted.stderr && !channels.send(STDERR, &piece).await { return },
                        None => err_open = false,
                    },
                    sent = push(&mut stdin, &mut pending), if pending.is_some() => if !sent { stdin = None },
                    message = messages.next(), if pending.is_none() => {
                        let Some(Ok(message)) = message else { return };
                        if matches!(message, Message::Close(_)) {
                            return;
                        }
                        match unpack(message, base64) {
                            Some((STDIN, bytes)) if stdin.is_some() && !bytes.is_empty() => pending = Some(bytes),
                            Some((RESIZE, bytes)) => resize(&session.resize, &bytes),
                            Some((CLOSE, bytes)) if bytes.first() == Some(&STDIN) => stdin = None,
                            _ => {}
                        }
                    }
                    _ = ping.tick() => if channels.sink.send(Message::Ping(Bytes::new())).await.is_err() { return },
                }
            }
        }
    };
    channels.send(ERROR, &outcome(result, as_status)).await;
    if let Ok(socket) = channels.sink.reunite(messages) {
        websocket::part(socket).await;
    }
}

/// Gives the process the input that waits for it; answers whether it takes more.
async fn push(stdin: &mut Option<mpsc::Sender<Bytes>>, pending: &mut Option<Bytes>) -> bool {
    let Some(sender) = stdin else {
        *pending = None;
        return false;
    };
    match sender.reserve().await {
        Ok(permit) => {
            if let Some(bytes) = pending.take() {
                permit.send(bytes);
            }
            true
        }
        Err(_) => {
            *pending = None;
            false
        }
    }
}

fn resize(sender: &mpsc::Sender<TerminalSize>, bytes: &[u8]) {
    if let Ok(size) = serde_json::from_slice::<TerminalSize>(bytes) {
        // A size that finds the queue full is followed by a newer one.
        let _ = sender.try_send(size);
    }
}

/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);

async fn over_spdy(
    io: TokioIo<hyper::upgrade::Upgraded>,
    wanted: StreamRequest,
    open: impl Future<Output = Result<Session, RuntimeError>>,
    as_status: bool,
) {
    let mut connection = spdy::serve(io);
    let (mut error, mut stdin, mut stdout, mut stderr, mut sizes) = (None, None, None, None, None);
    let expected = 1 + usize::from(wanted.stdin) + usize::from(wanted.stdout) + usize::from(wanted.stderr);
    // A terminal's resize stream is the last to come, and only from clients of version 3 and later.
    let expected = expected + usize::from(wanted.tty && as_status);
    let opened = tokio::time::timeout(OPENING, async {
        for _ in 0..expected {
            let Some(stream) = connection.accept().await else { return false };
            match stream.headers.get("streamtype").map(String::as_str) {
                Some("error") => error = Some(stream),
                Some("stdin") => stdin = Some(stream),
                Some("stdout") => stdout = Some(stream),
                Some("stderr") => stderr = Some(stream),
                Some("resize") => sizes = Some(stream),
                _ => return false,
            }
        }
        true
    });
    let (Ok(true), Some(mut error)) = (opened.await, error) else { return };
    let result = match open.await {
        Err(failure) => Err(failure),
        Ok(session) => {
            let Session { stdin: to_stdin, stdout: from_stdout, stderr: from_stderr, resize: to_size, exit } = session;
            let feeding = tokio::spawn(async move {
                let (Some(mut from), Some(to)) = (stdin, to_stdin) else { return };
                let mut buffer = BytesMut::with_capacity(32 * 1024);
                while let Ok(1..) = from.read_buf(&mut buffer).await {
                    if to.send(buffer.split().freeze()).await.is_err() {
                        return;
                    }
                    buffer.reserve(32 * 1024);
                }
            });
            let resizing = tokio::spawn(async move {
                let Some(mut from) = sizes else { return };
                let mut text = Vec::new();
                while let Ok(1..) = from.read_buf(&mut text).await {
                    // Sizes come one after the other, as JSON objects with or without a newline.
                    while let Some(end) = text.iter().position(|byte| *byte == b'}') {
                        let rest = text.split_off(end + 1);
                        resize(&to_size, text.trim_ascii());
                        text = rest;
                    }
                }
            });
            let drained = async { tokio::join!(drain(from_stdout, stdout), drain(from_stderr, stderr)) };
            let lost = async { while connection.accept().await.is_some() {} };
            let result = tokio::select! {
                _ = drained => Some(exit.await.unwrap_or_else(|_| Err(gone()))),
                () = lost => None,
            };
            feeding.abort();
            resizing.abort();
            match result {
                Some(result) => result,
                None => return,
            }
        }
    };
    // The client may be gone already.
    let _ = error.write_all(&outcome(result, as_status)).await;
    let _ = error.shutdown().await;
    drop(error);
    if let Err(error) = connection.finish().await {
        tracing::debug!(%error, "kubelet API: SPDY");
    }
}

async fn drain(mut from: mpsc::Receiver<Bytes>, to: Option<spdy::Stream>) {
    let Some(mut to) = to else {
        while from.recv().await.is_some() {}
        return;
    };
    while let Some(piece) = from.recv().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The client may be gone already.
    let _ = to.shutdown().await;
}
