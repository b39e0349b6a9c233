//! The ingress with real connections.
#![cfg(feature = "ingress")]

mod common;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use common::{api, create, eventually, own_ip};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use k8s_openapi::api::{
    core::v1::{Event, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::Ingress,
};
use rk_api::{Api, Client, ListOptions, Patch};
use rk_proxy::ingress::{IngressConfig, IngressController};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// An HTTP server that answers its name, and the headers it saw as JSON under `/headers`.
async fn origin(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let mut body = name.to_owned();
                if request.uri().path() == "/headers" {
                    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
                    let seen = request.headers().iter().map(|(name, value)| (name.to_string(), json!(text(value))));
                    body = Value::Object(seen.collect()).to_string();
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

struct Router {
    client: Arc<dyn Client>,
    at: SocketAddr,
    https_at: SocketAddr,
    http: HttpClient<HttpConnector, Empty<Bytes>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Router {
    async fn start() -> Self {
        let client = api().await;
        let config = IngressConfig {
            http: vec![SocketAddr::new(own_ip(), 0)],
            https: vec![SocketAddr::new(own_ip(), 0)],
            addresses: vec!["127.0.0.1".parse().unwrap()],
            ..IngressConfig::default()
        };
        let controller = IngressController::new(client.clone(), config).await.unwrap();
        let (at, https_at) = (controller.http_addresses()[0], controller.https_addresses()[0]);
        let stop = CancellationToken::new();
        let running = tokio::spawn(controller.run(stop.clone()));
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { client, at, https_at, http, stop, running }
    }

    async fn service(&self, name: &str, endpoints: &[SocketAddr]) {
        let spec = json!({"clusterIP": own_ip().to_string(), "ports": [{"name": "web", "port": 80}]});
        create::<Service>(&self.client, "default", json!({"metadata": {"name": name}, "spec": spec})).await;
        for (index, address) in endpoints.iter().enumerate() {
            let labels = json!({"kubernetes.io/service-name": name});
            let slice = json!({
                "metadata": {"name": format!("{name}-{index}"), "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "web", "port": address.port()}],
                "endpoints": [{"addresses": [address.ip().to_string()]}],
            });
            create::<EndpointSlice>(&self.client, "default", slice).await;
        }
    }

    async fn ingress(&self, name: &str, spec: Value) {
        create::<Ingress>(&self.client, "default", json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    async fn get(&self, host: &str, path: &str) -> (StatusCode, String) {
        let request = Request::get(format!("http://{}{path}", self.at)).header(header::HOST, host);
        let response = self.http.request(request.body(Empty::new()).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get_until(&self, host: &str, path: &str, wanted: StatusCode) -> String {
        eventually(&format!("{wanted} for {host}{path}"), async || {
            let (status, body) = self.get(host, path).await;
            (status == wanted).then_some(body)
        })
        .await
    }
}

fn path(kind: &str, path: &str, service: &str, port: Value) -> Value {
    json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": port}}})
}

#[tokio::test]
async fn requests_go_by_host_and_path() {
    let router = Router::start().await;
    router.service("a", &[origin("a").await]).await;
    router.service("b", &[origin("b1").await, origin("b2").await]).await;
    router.service("empty", &[]).await;
    let paths = json!([
        path("Prefix", "/", "a", json!({"number": 80})),
        path("Prefix", "/b", "b", json!({"name": "web"})),
        path("Exact", "/empty", "empty", json!({"number": 80})),
    ]);
    router.ingress("i", json!({"rules": [{"host": "web.local", "http": {"paths": paths}}]})).await;
    assert_eq!(router.get_until("web.local", "/", StatusCode::OK).await, "a");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(router.get("web.local", "/b/x").await.1);
    }
    seen.sort();
    assert_eq!(seen, ["b1", "b1", "b2", "b2"]);
    assert_eq!(router.get("web.local", "/empty").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, body) = router.get("nobody.local", "/").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("404 Not Found"), "{body}");
    let ingresses = Api::<Ingress>::namespaced(router.client.clone(), "default");
    let published = eventually("the status has the address", async || {
        let ingress = ingresses.get("i").await.unwrap();
        ingress.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?.ip.clone()
    })
    .await;
    assert_eq!(published, "127.0.0.1");
    router.stop.cancel();
    router.running.await.unwrap();
}

#[tokio::test]
async fn other_classes_are_left_alone_and_headers_tell_of_the_way() {
    let router = Router::start().await;
    router.service("a", &[origin("a").await]).await;
    let rules =
        |host: &str| json!([{"host": host, "http": {"paths": [path("Prefix", "/", "a", json!({"number": 80}))]}}]);
    router.ingress("theirs", json!({"ingressClassName": "nginx", "rules": rules("theirs.local")})).await;
    router.ingress("ours", json!({"ingressClassName": "rk", "rules": rules("ours.local")})).await;
    let headers = router.get_until("ours.local", "/headers", StatusCode::OK).await;
    let headers: Value = serde_json::from_str(&headers).unwrap();
    assert_eq!(headers["host"], "ours.local");
    assert_eq!(headers["x-forwarded-host"], "ours.local");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-port"], json!(router.at.port().to_string()));
    assert_eq!(headers["x-forwarded-for"], headers["x-real-ip"]);
    assert_eq!(router.get("theirs.local", "/").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let router = Router::start().await;
    router.service("a", &[SocketAddr::new(own_ip(), 9), origin("alive").await]).await;
    let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
    router.ingress("i", json!({"defaultBackend": backend})).await;
    router.get_until("any", "/", StatusCode::OK).await;
    for _ in 0..4 {
        assert_eq!(router.get("any", "/").await, (StatusCode::OK, "alive".to_owned()));
    }
}

/// A server that changes to a protocol that echoes.
async fn echo_upgrade() -> SocketAddr {
    let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                use futures::{SinkExt, StreamExt};
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn websockets_pass_through() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
    let router = Router::start().await;
    router.service("ws", &[echo_upgrade().await]).await;
    let backend = json!({"service": {"name": "ws", "port": {"number": 80}}});
    router.ingress("i", json!({"defaultBackend": backend})).await;
    let mut socket = eventually("the upgrade", async || {
        let stream = TcpStream::connect(router.at).await.ok()?;
        let request = "ws://ws.local/chat".into_client_request().unwrap();
        tokio_tungstenite::client_async(request, stream).await.ok().map(|(socket, _)| socket)
    })
    .await;
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
}

#[tokio::test]
async fn nonsense_is_answered_with_400() {
    let router = Router::start().await;
    let mut stream = TcpStream::connect(router.at).await.unwrap();
    stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

/// A certificate for a host as a Secret's data, and the certificate itself.
fn certificate(host: &str) -> (Value, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let data = json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()});
    (data, made.cert.der().clone())
}

impl Router {
    async fn secret(&self, name: &str, data: Value) {
        let secret = json!({"metadata": {"name": name}, "type": "kubernetes.io/tls", "stringData": data});
        create::<Secret>(&self.client, "default", secret).await;
    }

    /// The answer over TLS to a client that trusts one certificate only; `None` if it is shown another.
    async fn get_tls(&self, host: &str, trusted: &rustls::pki_types::CertificateDer<'static>) -> Option<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.https_at).await.ok()?;
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let request = format!("GET /headers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        Some(answer)
    }
}

#[tokio::test]
async fn each_host_shows_its_certificate_and_new_ones_are_taken_up() {
    let router = Router::start().await;
    router.service("a", &[origin("a").await]).await;
    let ((one_data, one), (two_data, two), (new_data, new)) =
        (certificate("one.local"), certificate("x.two.local"), certificate("one.local"));
    router.secret("one", one_data).await;
    router.secret("two", two_data).await;
    let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
    let tls = json!([
        {"hosts": ["one.local"], "secretName": "one"}, {"hosts": ["*.two.local"], "secretName": "two"},
        {"hosts": ["three.local"], "secretName": "missing"},
    ]);
    router.ingress("i", json!({"defaultBackend": backend, "tls": tls})).await;
    let answer = eventually("the certificate of one.local", async || router.get_tls("one.local", &one).await).await;
    assert!(answer.contains("\"x-forwarded-proto\":\"https\""), "{answer}");
    assert!(router.get_tls("x.two.local", &two).await.is_some());
    assert!(router.get_tls("one.local", &two).await.is_none());
    let events = Api::<Event>::namespaced(router.client.clone(), "default");
    eventually("an event tells of the missing certificate", async || {
        let list = events.list(ListOptions::default()).await.unwrap();
        list.items.iter().find(|event| event.reason.as_deref() == Some("BadCertificate")).cloned()
    })
    .await;
    let secrets = Api::<Secret>::namespaced(router.client.clone(), "default");
    let bytes = |field: &str| k8s_openapi::ByteString(new_data[field].as_str().unwrap().as_bytes().to_vec());
    let data = json!({"data": {"tls.crt": bytes("tls.crt"), "tls.key": bytes("tls.key")}});
    secrets.patch("one", Patch::merge(data)).await.unwrap();
    eventually("the new certificate of one.local", async || router.get_tls("one.local", &new).await).await;
}
