//! Port-forward: streams of SPDY (plain, or tunnelled in a WebSocket as kubectl does), or channels of a WebSocket.

use std::{collections::HashMap, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    routes::{Body, Query, Refusal},
    websocket::{self, Socket},
};
use crate::{pod::spec, shared::Shared, spdy};

/// The tunnel's subprotocol and the one inside.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOL: &str = "portforward.k8s.io";

/// Where connections go.
#[derive(Clone)]
struct Forward {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    sandbox: String,
}

impl Forward {
    fn failure(&self, port: u16, error: &dyn std::fmt::Display) -> String {
        let uid = spec::uid(&self.pod);
        format!("error forwarding port {port} to pod {}, uid {uid}: {error}", spec::name(&self.pod))
    }
}

/// Upgrades the connection and forwards on it.
pub(super) fn answer(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    sandbox: String,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let forward = Forward { shared, pod, sandbox };
    match websocket::upgrade_of(&request).as_deref() {
        Some("websocket") => {
            let offered = websocket::listed(&request, "sec-websocket-protocol");
            if offered.iter().any(|offered| offered == TUNNEL) {
                let (response, socket) = websocket::accept(&mut request, TUNNEL)?;
                tokio::spawn(async move {
                    if let Some(socket) = socket.await {
                        over_spdy(websocket::tunnel(socket), forward).await;
                    }
                });
                return Ok(response);
            }
            let known = ["v4.channel.k8s.io", "portforward.k8s.io"];
            let chosen = known.into_iter().find(|known| offered.iter().any(|offered| offered == known));
            let Some(chosen) = chosen.or(offered.is_empty().then_some("")) else {
                let message = format!("unable to upgrade: unsupported protocols {offered:?}");
                return Err((StatusCode::FORBIDDEN, message));
            };
            let ports: Result<Vec<u16>, _> = ["port", "ports"]
                .iter()
                .flat_map(|name| query.all(name))
                .flat_map(|list| list.split(',').map(str::parse).collect::<Vec<_>>())
                .collect();
            let ports =
                ports.map_err(|_| (StatusCode::BAD_REQUEST, "query parameter \"port\" must be a port".to_owned()))?;
            if ports.is_empty() {
                return Err((StatusCode::BAD_REQUEST, "query parameter \"port\" is required".to_owned()));
            }
            let (response, socket) = websocket::accept(&mut request, chosen)?;
            tokio::spawn(async move {
                if let Some(socket) = socket.await {
                    over_channels(socket, forward, ports).await;
                }
            });
            Ok(response)
        }
        Some("spdy/3.1") => {
            let response = websocket::switching("SPDY/3.1", &[("x-stream-protocol-version", PROTOCOL.to_owned())])?;
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                match upgrade.await {
                    Ok(upgraded) => over_spdy(TokioIo::new(upgraded), forward).await,
                    Err(error) => tracing::debug!(%error, "kubelet API: upgrade"),
                }
            });
            Ok(response)
        }
        _ => Err((StatusCode::BAD_REQUEST, "Upgrade request required".to_owned())),
    }
}

/// Each connection is a pair of streams with the same `requestID`: one for data, one for errors.
async fn over_spdy(io: impl AsyncRead + AsyncWrite + Send + 'static, forward: Forward) {
    let mut connection = spdy::serve(io);
    let mut halves: HashMap<String, spdy::Stream> = HashMap::new();
    let mut pairs = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => match stream {
                Some(stream) => stream,
                None => break,
            },
            Some(_) = pairs.join_next(), if !pairs.is_empty() => continue,
        };
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let (kind, port) = (header("streamtype"), header("port").parse::<u16>());
        // Old clients send no id: their pair is the port's.
        let id = Some(header("requestid")).filter(|id| !id.is_empty()).unwrap_or_else(|| header("port"));
        let Ok(port) = port else { continue };
        let Some(other) = halves.remove(&id) else {
            halves.insert(id, stream);
            continue;
        };
        let (data, error) = if kind == "data" { (stream, other) } else { (other, stream) };
        pairs.spawn(carry(data, error, forward.clone(), port));
    }
    pairs.shutdown().await;
}

async fn carry(mut data: spdy::Stream, mut error: spdy::Stream, forward: Forward, port: u16) {
    let carried = match forward.shared.config.runtime.port_forward(&forward.sandbox, port).await {
        Ok(mut inside) => {
            tokio::io::copy_bidirectional(&mut data, &mut inside).await.map(drop).map_err(|e| e.to_string())
        }
        Err(failure) => Err(failure.to_string()),
    };
    // The client may be gone already.
    if let Err(failure) = carried {
        let _ = error.write_all(forward.failure(port, &failure).as_bytes()).await;
    }
    let _ = error.shutdown().await;
    let _ = data.shutdown().await;
}

/// Port i has channel 2i for data and 2i + 1 for errors; each begins with the port in two bytes.
async fn over_channels(socket: Socket, forward: Forward, ports: Vec<u16>) {
    let (mut sink, mut messages) = socket.split();
    let (out, mut frames) = mpsc::channel::<Bytes>(32);
    let mut inputs: HashMap<u8, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let Ok(channel) = u8::try_from(index * 2) else { break };
        let (to_port, input) = mpsc::channel(32);
        inputs.insert(channel, to_port);
        tasks.spawn(one_channel(forward.clone(), channel, port, input, out.clone()));
    }
    drop(out);
    let sending = async {
        while let Some(frame) = frames.recv().await {
            if sink.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
    };
    let receiving = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) if !bytes.is_empty() => {
                    let closed = match inputs.get(&bytes[0]) {
                        Some(input) => input.send(bytes.slice(1..)).await.is_err(),
                        None => false,
                    };
                    if closed {
                        inputs.remove(&bytes[0]);
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
    tasks.shutdown().await;
    if let Ok(socket) = sink.reunite(messages) {
        websocket::part(socket).await;
    }
}

fn framed(channel: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(bytes);
    frame.freeze()
}

async fn one_channel(
    forward: Forward,
    channel: u8,
    port: u16,
    mut input: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Bytes>,
) {
    for channel in [channel, channel + 1] {
        if out.send(framed(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let inside = match forward.shared.config.runtime.port_forward(&forward.sandbox, port).await {
        Ok(inside) => inside,
        Err(failure) => {
            let text = forward.failure(port, &failure);
            // The client may be gone already.
            let _ = out.send(framed(channel + 1, text.as_bytes())).await;
            return;
        }
    };
    let (mut from_port, mut to_port) = tokio::io::split(inside);
    let outbound = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(read @ 1..) = from_port.read(&mut buffer).await {
            if out.send(framed(channel, &buffer[..read])).await.is_err() {
                return;
            }
        }
    };
    let inbound = async {
        while let Some(bytes) = input.recv().await {
            if to_port.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The port may be closed already.
        let _ = to_port.shutdown().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = outbound => {}
        () = inbound => {}
    }
}
