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
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, networking::v1::Ingress};
use rk_api::{Api, Client};
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
    http: HttpClient<HttpConnector, Empty<Bytes>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Router {
    async fn start() -> Self {
        let client = api().await;
        let config = IngressConfig {
            http: vec![SocketAddr::new(own_ip(), 0)],
            addresses: vec!["127.0.0.1".parse().unwrap()],
            ..IngressConfig::default()
        };
        let controller = IngressController::new(client.clone(), config).await.unwrap();
        let at = controller.http_addresses()[0];
        let stop = CancellationToken::new();
        let running = tokio::spawn(controller.run(stop.clone()));
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { client, at, http, stop, running }
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
