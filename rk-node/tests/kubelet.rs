//! The kubelet API as an API server uses it: logs, exec, attach, port-forward, over TLS with a client certificate.

mod cluster;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use cluster::{Cluster, phase, pod_condition, shell, with};
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn port(cluster: &Cluster) -> u16 {
    let nodes = rk_api::Api::<Node>::all(cluster.client.clone());
    let node = nodes.get("node-1").await.unwrap();
    let endpoints = node.status.as_ref().unwrap().daemon_endpoints.as_ref().unwrap();
    u16::try_from(endpoints.kubelet_endpoint.as_ref().unwrap().port).unwrap()
}

async fn connect(cluster: &Cluster, with_certificate: bool) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.pki.ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = if with_certificate {
        let chain = vec![CertificateDer::from_pem_slice(cluster.pki.client.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(cluster.pki.client.key.as_bytes()).unwrap();
        config.with_client_auth_cert(chain, key).unwrap()
    } else {
        config.with_no_client_auth()
    };
    let stream = TcpStream::connect((cluster.config.address, port(cluster).await)).await.unwrap();
    let name = ServerName::from(cluster.config.address);
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn ask(cluster: &Cluster, path: &str, with_certificate: bool) -> http::Response<hyper::body::Incoming> {
    let stream = connect(cluster, with_certificate).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "node").body(Empty::<Bytes>::new()).unwrap();
    sender.send_request(request).await.unwrap()
}

async fn get_as(cluster: &Cluster, path: &str, with_certificate: bool) -> (u16, String) {
    let answer = ask(cluster, path, with_certificate).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn get(cluster: &Cluster, path: &str) -> (u16, String) {
    get_as(cluster, path, true).await
}

async fn websocket(cluster: &Cluster, path: &str, protocol: &str) -> Socket {
    let request = http::Request::get(format!("wss://node{path}"))
        .header("host", "node")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
        .header("sec-websocket-protocol", protocol)
        .body(())
        .unwrap();
    let (socket, answer) = tokio_tungstenite::client_async(request, connect(cluster, true).await).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    socket
}

fn channel(channel: u8, bytes: &[u8]) -> Message {
    let mut framed = BytesMut::from(&[channel][..]);
    framed.put_slice(bytes);
    Message::Binary(framed.freeze())
}

/// What came on standard output and error, and the outcome.
async fn outcome(mut socket: Socket) -> (String, String, Value) {
    let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), Value::Null);
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes[0] {
            1 => out.extend_from_slice(&bytes[1..]),
            2 => err.extend_from_slice(&bytes[1..]),
            3 => status = serde_json::from_slice(&bytes[1..]).unwrap(),
            other => panic!("channel {other}"),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), status)
}

async fn running(cluster: &Cluster, name: &str, script: &str) -> Arc<Pod> {
    cluster.pod(name, json!({"containers": [shell("main", script)]})).await;
    cluster.until::<Pod>(name, |pod| pod_condition(pod, "Ready")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_api_server_may_ask() {
    let cluster = Cluster::start().await;
    assert_eq!(get_as(&cluster, "/healthz", false).await, (200, "ok".to_owned()));
    assert_eq!(get_as(&cluster, "/pods", false).await.0, 401);
    let (status, pods) = get(&cluster, "/pods").await;
    assert_eq!((status, serde_json::from_str::<Value>(&pods).unwrap()["kind"].as_str()), (200, Some("PodList")));
    assert_eq!(get(&cluster, "/nothing").await.0, 404);
    assert_eq!(get(&cluster, "/containerLogs/default/none/main").await, (404, "pod \"none\" not found\n".to_owned()));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_and_followed() {
    let cluster = Cluster::start().await;
    // Each line waits for the one before to be read (output and errors have no order between them), and the second
    // instance for an end that doesn't come.
    let folder = cluster.folder().to_owned();
    let say = |name: &str| std::fs::write(folder.join(name), "").unwrap();
    let said = |name: &str| format!("until [ -e {0}/{name} ]; do sleep 0.02; done", folder.display());
    let (second, third, end) = (said("second"), said("third"), said("end"));
    let script = format!("echo one; {second}; echo two >&2; {third}; echo three; {end}; rm {}/end", folder.display());
    let pod = running(&cluster, "talk", &script).await;
    cluster.until_log(&pod, "main", "one").await;
    say("second");
    cluster.until_log(&pod, "main", "two").await;
    let path = "/containerLogs/default/talk/main";
    let (status, text) = get(&cluster, &format!("{path}?tailLines=1&timestamps=true")).await;
    assert_eq!(status, 200);
    assert!(text.starts_with("20") && text.contains("Z "), "{text}");
    let mut followed = ask(&cluster, &format!("{path}?follow=true"), true).await.into_body();
    let mut text = String::new();
    while let Some(frame) = tokio::time::timeout(cluster::PATIENCE, followed.frame()).await.unwrap() {
        text.push_str(&String::from_utf8_lossy(frame.unwrap().data_ref().unwrap()));
        match text.as_str() {
            "one\ntwo\n" => say("third"),
            "one\ntwo\nthree\n" => say("end"),
            _ => {}
        }
    }
    assert_eq!(text, "one\ntwo\nthree\n", "following ends with the container");
    let restarted = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count > 0;
    cluster.until::<Pod>("talk", restarted).await;
    assert_eq!(get(&cluster, &format!("{path}?previous=true")).await.1, "one\ntwo\nthree\n");
    let (status, text) = get(&cluster, "/containerLogs/default/talk/none").await;
    assert_eq!((status, text.as_str()), (404, "container \"none\" not found in pod \"talk\"\n"));
    cluster.delete("talk", Some(0)).await;
    cluster.until_gone("talk").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_with_their_streams() {
    let cluster = Cluster::start().await;
    running(&cluster, "box", "exec sleep 1000").await;
    let exec = "/exec/default/box/main?output=1&error=1";
    let query = |script: &str| {
        format!(
            "{exec}&{}",
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs([("command", "sh"), ("command", "-c"), ("command", script)])
                .finish()
        )
    };
    let socket = websocket(&cluster, &query("echo out $HOSTNAME; echo err >&2; exit 3"), "v5.channel.k8s.io").await;
    let (out, err, status) = outcome(socket).await;
    assert_eq!((out.as_str(), err.as_str()), ("out box\n", "err\n"));
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));

    // Half-closing the input ends `cat`, and every byte comes back.
    let mut socket = websocket(&cluster, &(query("cat") + "&input=1"), "v5.channel.k8s.io").await;
    let (mut sink, stream) = socket.split();
    let sent: String = (0..50_000).map(|n| format!("{n}\n")).collect();
    let data = sent.clone();
    let sending = tokio::spawn(async move {
        for piece in data.as_bytes().chunks(4000) {
            sink.send(channel(0, piece)).await.unwrap();
        }
        sink.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
        sink
    });
    let mut stream = stream;
    let mut back = Vec::new();
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Binary(bytes) = message {
            match bytes[0] {
                1 => back.extend_from_slice(&bytes[1..]),
                3 => assert_eq!(serde_json::from_slice::<Value>(&bytes[1..]).unwrap()["status"], "Success"),
                _ => {}
            }
        }
    }
    assert_eq!(back.len(), sent.len());
    assert_eq!(back, sent.as_bytes());
    socket = sending.await.unwrap().reunite(stream).unwrap();
    drop(socket);

    let socket = websocket(&cluster, &query("no-such-command-here"), "v4.channel.k8s.io").await;
    let (_, _, status) = outcome(socket).await;
    assert_eq!(status["details"]["causes"][0]["message"], "127");
    let socket = websocket(&cluster, &format!("{exec}&command=nothing"), "v4.channel.k8s.io").await;
    let (_, _, status) = outcome(socket).await;
    assert!(status["message"].as_str().unwrap().contains("executable file not found"), "{status}");

    // A terminal: one stream, a size, and a hang-up when the client goes.
    let tty = "/exec/default/box/main?input=1&output=1&tty=1&command=sh";
    let mut socket = websocket(&cluster, tty, "v5.channel.k8s.io").await;
    socket.send(channel(4, br#"{"Width":123,"Height":45}"#)).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("45 123") {
        socket.send(channel(0, b"stty size\n")).await.unwrap();
        match tokio::time::timeout(cluster::PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Binary(bytes))) if bytes[0] == 1 => seen.push_str(&String::from_utf8_lossy(&bytes[1..])),
            Some(Ok(_)) => {}
            other => panic!("{other:?} after {seen}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    socket.send(channel(0, b"tty; exit 4\n")).await.unwrap();
    let (out, _, status) = outcome(socket).await;
    assert!(out.contains("/dev/pts/"), "{out}");
    assert_eq!(status["details"]["causes"][0]["message"], "4");
    cluster.delete("box", Some(0)).await;
    cluster.until_gone("box").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_input_can_be_attached_to() {
    let cluster = Cluster::start().await;
    let container = with(
        shell("main", "while read line; do echo got $line; done; exit 3"),
        json!({"stdin": true, "stdinOnce": true}),
    );
    cluster.pod("talk", json!({"restartPolicy": "Never", "containers": [container]})).await;
    cluster.until::<Pod>("talk", |pod| pod_condition(pod, "Ready")).await;
    let mut socket = websocket(&cluster, "/attach/default/talk/main?input=1&output=1", "v5.channel.k8s.io").await;
    socket.send(channel(0, b"this\n")).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let (out, _, status) = outcome(socket).await;
    // That the container failed is no failure of the attachment.
    assert_eq!((out.as_str(), status["status"].as_str()), ("got this\n", Some("Success")));
    cluster.until::<Pod>("talk", |pod| phase(pod) == "Failed").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded() {
    if !cluster::has_python() {
        return;
    }
    let cluster = Cluster::start().await;
    let server = "import os,socket\ns=socket.create_server((os.environ['IP'],7000))\nwhile True:\n c,_=s.accept()\n d=c.recv(100)\n c.sendall(b'echo '+d)\n c.close()";
    let container = json!({"name": "main", "image": "host", "imagePullPolicy": "Never", "command": ["python3", "-c", server],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 1}});
    cluster.pod("echo", json!({"containers": [container]})).await;
    cluster.until::<Pod>("echo", |pod| pod_condition(pod, "Ready")).await;
    let mut socket = websocket(&cluster, "/portForward/default/echo?port=7000", "v4.channel.k8s.io").await;
    for channel in [0, 1] {
        let hello = socket.next().await.unwrap().unwrap().into_data();
        assert_eq!((hello[0], u16::from_le_bytes([hello[1], hello[2]])), (channel, 7000));
    }
    socket.send(channel(0, b"hi")).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap().into_data();
    assert_eq!(&answer[..], b"\0echo hi");
    drop(socket);
    let mut socket = websocket(&cluster, "/portForward/default/echo?port=7001", "v4.channel.k8s.io").await;
    socket.next().await;
    socket.next().await;
    let error = socket.next().await.unwrap().unwrap().into_data();
    assert_eq!(error[0], 1);
    assert!(String::from_utf8_lossy(&error[1..]).contains("error forwarding port 7001 to pod echo"));
    drop(socket);
    // The raw upgrade that older clients use.
    let mut stream = connect(&cluster, true).await;
    stream
        .write_all(b"POST /portForward/default/echo HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n")
        .await
        .unwrap();
    let mut head = vec![0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head, b"HTTP/1.1 101");
    cluster.delete("echo", Some(0)).await;
    cluster.until_gone("echo").await;
    cluster.end().await;
}
