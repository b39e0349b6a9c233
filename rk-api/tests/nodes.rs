//! Connections to a node: the server calls a kubelet's port with its certificate and passes on what it says.
#![cfg(feature = "serve")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use rk_api::{
    Client, Patch, Resource, Verb, WriteOptions,
    server::{
        KubeletClient, Operation, Server, ServerBuilder, Tls, UserInfo,
        pki::{Pki, Wanted},
        plugins::{forbid, from_fn},
        serve, tls_config,
    },
};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// A port that answers like a kubelet: a log, and an echo behind an upgrade. It insists on a client certificate.
async fn kubelet(pki: &Pki) -> u16 {
    let wanted = Wanted::kubelet_server("n1", ["127.0.0.1".to_owned()]);
    let identity = pki.identity("kubelet", &wanted).unwrap();
    let tls = tls_config(&identity.certificate, &identity.key, Some(pki.ca())).unwrap();
    answering(tls, true).await
}

/// A port that answers over TLS to who shows a certificate, or shows none.
async fn answering(tls: Tls, certified: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.config());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                assert_eq!(stream.get_ref().1.peer_certificates().is_some(), certified);
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades().await;
            });
        }
    });
    port
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let target = request.uri().to_string();
    let reply = |code: u16, text: String| Response::builder().status(code).body(Full::from(text)).unwrap();
    if target.starts_with("/exec/default/p/c?input=1&output=1&command=cat&command=-u") {
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.unwrap();
            word.make_ascii_uppercase();
            stream.write_all(&word).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let switch = Response::builder().status(101).header("upgrade", "echo").header("connection", "Upgrade");
        return Ok(switch.body(Full::default()).unwrap());
    }
    Ok(match target.as_str() {
        "/containerLogs/default/p/c?tailLines=1" => reply(200, "last line\n".to_owned()),
        "/containerLogs/default/p/i?" => reply(400, "container \"i\" in pod \"p\" is waiting to start\n".to_owned()),
        other => reply(200, format!("{} {other}", request.method())),
    })
}

async fn send(
    client: &Arc<dyn Client>,
    resource: Resource,
    namespace: &str,
    name: &str,
    subresource: &str,
    verb: Verb,
) {
    let (namespace, name, subresource) = (namespace.to_owned(), name.to_owned(), subresource.to_owned());
    client.request(rk_api::Request { resource, namespace, name, subresource, verb }).await.unwrap();
}

/// A server with a node and a pod on it, listening without TLS.
async fn cluster() -> (String, tempfile::TempDir, CancellationToken) {
    cluster_with(|builder| builder).await.0
}

/// The same with other parts of the server, and a client of it.
async fn cluster_with(
    parts: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> ((String, tempfile::TempDir, CancellationToken), Arc<dyn Client>) {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(directory.path()).unwrap();
    let port = kubelet(&pki).await;
    let identity = pki.identity("kubelet-client", &Wanted::api_server_kubelet_client()).unwrap();
    let kubelets = KubeletClient::new(&identity.certificate, &identity.key, pki.ca()).unwrap();
    let builder = Server::builder(Arc::new(MemoryStore::new())).kubelets(kubelets);
    let server = parts(builder).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    let options = WriteOptions::default;
    send(&client, Resource::of::<Node>(), "", "", "", Verb::Create(json!({"metadata": {"name": "n1"}}), options()))
        .await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    send(&client, Resource::of::<Node>(), "", "n1", "status", Verb::Patch(Patch::merge(status), options())).await;
    for (name, node) in [("p", "n1"), ("q", "")] {
        let mut spec = json!({"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}],
            "initContainers": [{"name": "i", "image": "x"}]});
        if !node.is_empty() {
            spec["nodeName"] = node.into();
        }
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        send(&client, Resource::of::<Pod>(), "default", "", "", Verb::Create(pod, options())).await;
    }
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    send(&client, Resource::of::<Pod>(), "default", "p", "status", Verb::Patch(Patch::merge(status), options())).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, server.service_as(UserInfo::loopback()), None, stop.clone()));
    ((address, directory, stop), client)
}

async fn call(address: &str, method: &str, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", address);
    let response = sender.send_request(request.body(Full::<bytes::Bytes>::default()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

fn message(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn logs_and_proxied_paths_come_from_the_node() {
    let (address, _directory, _stop) = cluster().await;
    let pod = "/api/v1/namespaces/default/pods/p";
    let log = call(&address, "GET", &format!("{pod}/log?container=c&tailLines=1")).await;
    assert_eq!(log, (200, "last line\n".to_owned()));
    let (code, body) = call(&address, "GET", &format!("{pod}/log")).await;
    let wanted =
        "a container name must be specified for pod p, choose one of: [c d] or one of the init containers: [i]";
    assert_eq!((code, message(&body).as_str()), (400, wanted));
    let (code, body) = call(&address, "GET", &format!("{pod}/log?container=x")).await;
    assert_eq!((code, message(&body).as_str()), (400, "container x is not valid for pod p"));
    let (code, body) = call(&address, "GET", &format!("{pod}/log?container=i")).await;
    assert_eq!((code, message(&body).as_str()), (400, "container \"i\" in pod \"p\" is waiting to start"));
    let (code, _) = call(&address, "GET", &format!("{pod}/log?container=c&tailLines=-1")).await;
    assert_eq!(code, 422);
    let nowhere = call(&address, "GET", "/api/v1/namespaces/default/pods/q/log?container=c").await;
    assert_eq!(nowhere, (200, String::new()));
    let (code, _) = call(&address, "GET", "/api/v1/namespaces/default/pods/none/log").await;
    assert_eq!(code, 404);
    let proxied = call(&address, "GET", "/api/v1/nodes/n1/proxy/stats/summary?x=1").await;
    assert_eq!(proxied, (200, "GET /stats/summary?x=1".to_owned()));
    let (code, _) = call(&address, "GET", "/api/v1/nodes/n2/proxy/").await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn an_upgraded_stream_passes_through() {
    let (address, _directory, _stop) = cluster().await;
    let exec = "/api/v1/namespaces/default/pods/p/exec?container=c&stdin=true&stdout=true&command=cat&command=-u";
    let (code, body) = call(&address, "POST", exec).await;
    assert_eq!((code, message(&body).as_str()), (400, "Upgrade request required"));
    echoes(&address, exec).await;
}

/// Whether what is behind an upgrade answers.
async fn echoes(address: &str, path: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = String::new();
    stream.read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "HELLO");
}

#[tokio::test]
async fn connections_are_shown_to_admission() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let guard = from_fn(
        "NoExec",
        |operation, resource, subresource| {
            operation == Operation::Connect && resource.plural == "pods" && subresource != "log"
        },
        move |request| {
            let attributes = &request.attributes;
            told.lock().unwrap().push(format!("{} {}/{}", attributes.verb, attributes.name, attributes.subresource));
            if attributes.subresource == "exec" { Err(forbid(request, "nobody may look inside")) } else { Ok(()) }
        },
    );
    let ((address, _directory, _stop), _client) = cluster_with(|builder| builder.admission(guard)).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let exec = "/api/v1/namespaces/default/pods/p/exec?container=c&command=cat";
    let head = format!("POST {exec} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("nobody may look inside"), "{answer}");
    assert_eq!(*seen.lock().unwrap(), ["connect p/exec"]);
    // Reading a log is no connection.
    let log = call(&address, "GET", "/api/v1/namespaces/default/pods/p/log?container=c&tailLines=1").await;
    assert_eq!(log, (200, "last line\n".to_owned()));
    call(&address, "GET", "/api/v1/namespaces/default/pods/p:1/proxy/").await;
    assert_eq!(*seen.lock().unwrap(), ["connect p/exec", "connect p:1/proxy"]);
}

/// A port that says which path it was asked for, without TLS.
async fn backend() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    port
}

/// The same with TLS: its certificate is of an authority that is nobody else's, and names another host.
async fn secure_backend() -> u16 {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(directory.path()).unwrap();
    let wanted = Wanted::server("backend", ["backend.example.com".to_owned()]);
    let identity = pki.identity("backend", &wanted).unwrap();
    let tls = tls_config(&identity.certificate, &identity.key, None).unwrap();
    answering(tls, false).await
}

/// A Service whose one endpoint is the backend's, as the address of this object.
async fn publish(client: &Arc<dyn Client>, name: &str, port: u16, target: Value) {
    let options = WriteOptions::default;
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    send(client, Resource::of::<Service>(), "default", "", "", Verb::Create(service, options())).await;
    let slice = json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "targetRef": target}]});
    send(client, Resource::of::<EndpointSlice>(), "default", "", "", Verb::Create(slice, options())).await;
}

#[tokio::test]
async fn proxies_lead_to_this_machine_only_where_they_are_told_to() {
    let port = backend().await;
    let pod = format!("/api/v1/namespaces/default/pods/p:{port}/proxy/x");
    let node = format!("/api/v1/nodes/n1:{port}/proxy/x");
    let service = |name: &str| format!("/api/v1/namespaces/default/services/{name}/proxy/x");
    for (networks, open) in [(vec![], false), (vec![([127, 0, 0, 0].into(), 8)], true)] {
        let ((address, _directory, _stop), client) = cluster_with(|builder| builder.proxy_to(networks)).await;
        let of_pod = json!({"kind": "Pod", "namespace": "default", "name": "p"});
        publish(&client, "good", port, of_pod).await;
        publish(&client, "none", port, Value::Null).await;
        publish(&client, "other", port, json!({"kind": "Pod", "namespace": "default", "name": "q"})).await;
        for path in [&pod, &node, &service("good")] {
            let (code, body) = call(&address, "GET", path).await;
            match open {
                true => assert_eq!((code, body.as_str()), (200, "GET /x"), "{path}"),
                false => assert_eq!((code, message(&body).as_str()), (400, "address not allowed"), "{path}"),
            }
        }
        // An endpoint that is no pod's is none to lead to, whatever its address.
        for name in ["none", "other"] {
            let (code, body) = call(&address, "GET", &service(name)).await;
            let wanted = format!("no endpoints available for service {name:?}");
            assert_eq!((code, message(&body)), (503, wanted));
        }
        let (code, body) = call(&address, "GET", "/api/v1/namespaces/default/pods/q/proxy/").await;
        assert_eq!((code, message(&body).as_str()), (400, "address not allowed"), "it has no address");
    }
}

#[tokio::test]
async fn proxies_lead_to_https_whoever_the_certificate_is_of() {
    let (secure, plain) = (secure_backend().await, backend().await);
    let networks = [([127, 0, 0, 0].into(), 8)];
    let ((address, _directory, _stop), client) = cluster_with(|builder| builder.proxy_to(networks)).await;
    publish(&client, "web", secure, json!({"kind": "Pod", "namespace": "default", "name": "p"})).await;
    let all = "/api/v1/namespaces/default";
    for path in [
        format!("{all}/pods/https:p:{secure}/proxy/x?y=1"),
        format!("/api/v1/nodes/https:n1:{secure}/proxy/x?y=1"),
        format!("{all}/services/https:web:80/proxy/x?y=1"),
        format!("{all}/services/https:web:/proxy/x?y=1"),
    ] {
        assert_eq!(call(&address, "GET", &path).await, (200, "GET /x?y=1".to_owned()), "{path}");
    }
    let exec = "exec/default/p/c?input=1&output=1&command=cat&command=-u";
    echoes(&address, &format!("{all}/pods/https:p:{secure}/proxy/{exec}")).await;

    // Neither who speaks something else nor who says nothing is spoken with.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let (code, body) = call(&address, "GET", &format!("{all}/pods/https:p:{plain}/proxy/")).await;
    let start = "error trying to reach service: ";
    assert!(code == 503 && message(&body).starts_with(start), "{code} {body}");
    tokio::time::pause();
    let (code, body) = call(&address, "GET", &format!("{all}/pods/https:p:{silent_port}/proxy/")).await;
    assert_eq!((code, message(&body)), (503, format!("{start}net/http: TLS handshake timeout")));
}
