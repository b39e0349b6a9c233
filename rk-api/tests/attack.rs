//! The server under load and under clients that misbehave.
#![cfg(feature = "serve")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use rk_api::{
    Api, Client, ListOptions, Patch, RemoteClient, Request, Resource, Verb, WatchEvent, WatchOptions, WriteOptions,
    server::{HttpService, Server, UserInfo, serve},
};
use rk_store::{MemoryStore, Store};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

async fn server() -> (Arc<MemoryStore>, Server, Arc<dyn Client>) {
    let store = Arc::new(MemoryStore::new());
    let server = Server::builder(Arc::clone(&store) as Arc<dyn Store>).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    (store, server, client)
}

async fn create(client: &Arc<dyn Client>, name: &str, label: &str) -> Arc<rk_api::Object> {
    let body = json!({"metadata": {"name": name, "labels": {"l": label}}, "data": {"k": "v"}});
    let request = Request {
        resource: Resource::of::<ConfigMap>(),
        namespace: "default".to_owned(),
        name: String::new(),
        subresource: String::new(),
        verb: Verb::Create(body, WriteOptions::default()),
    };
    client.request(request).await.unwrap()
}

async fn get(service: &HttpService, path: &str) -> (u16, Value) {
    let request = http::Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap();
    let response = service.clone().handle(request).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_objects_and_a_thousand_watchers() {
    const OBJECTS: usize = 10_000;
    const WATCHERS: usize = 1000;
    const CHANGES: usize = 20;
    let (_store, server, client) = server().await;
    let makers = (0..8).map(|maker| {
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            for i in (maker..OBJECTS).step_by(8) {
                create(&client, &format!("c{i:05}"), "x").await;
            }
        })
    });
    futures::future::join_all(makers).await;
    let service = server.service_as(UserInfo::loopback());
    let (code, list) = get(&service, "/api/v1/configmaps").await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, OBJECTS));
    let resource_version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();

    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let options = WatchOptions { resource_version: resource_version.clone(), ..WatchOptions::default() };
        watchers.push(client.watch(&Resource::of::<ConfigMap>(), "default", options).await.unwrap());
    }
    let api = Api::<ConfigMap>::namespaced(Arc::clone(&client), "default");
    let mut versions = Vec::new();
    for i in 0..CHANGES {
        let changed = api.patch("c00000", Patch::merge(json!({"data": {"k": i.to_string()}}))).await.unwrap();
        versions.push(changed.metadata.resource_version.clone().unwrap());
    }
    let seen = watchers.into_iter().map(|watcher| async {
        let events: Vec<_> =
            watcher.take(CHANGES).map(|event| event.unwrap().resource_version().to_owned()).collect().await;
        events
    });
    for seen in futures::future::join_all(seen).await {
        assert_eq!(seen, versions);
    }
}

#[tokio::test]
async fn a_watch_of_an_old_version_is_served_from_history_or_told_to_list_again() {
    let (store, server, client) = server().await;
    let first = create(&client, "a", "x").await;
    create(&client, "b", "x").await;
    drop((server, client));
    let server = Server::builder(Arc::clone(&store) as Arc<dyn Store>).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    let from = |version: &str| WatchOptions { resource_version: version.to_owned(), ..WatchOptions::default() };
    let resource = Resource::of::<ConfigMap>();
    let mut events = client.watch(&resource, "default", from(&first.meta().resource_version)).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(object))) if object.meta().name == "b"));
    create(&client, "c", "x").await;
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(object))) if object.meta().name == "c"));

    let page = ListOptions { limit: 1, ..ListOptions::default() };
    let page = client.list(&resource, "default", page).await.unwrap();
    let last = create(&client, "d", "x").await;
    store.compact(last.revision()).await.unwrap();
    let late = client.watch(&resource, "default", from(&first.meta().resource_version)).await;
    let late = match late {
        Ok(mut events) => events.next().await.unwrap().map(|_| ()).unwrap_err(),
        Err(error) => error,
    };
    assert!(late.is_expired(), "{late}");
    let next = ListOptions { limit: 1, continue_token: page.continue_token, ..ListOptions::default() };
    let next = client.list(&resource, "default", next).await.unwrap_err();
    assert_eq!((next.code(), next.reason()), (410, "Expired"));
    let rk_api::Error::Api(status) = next else { panic!("{next}") };
    let token = status.metadata.continue_.unwrap();
    let rest = ListOptions { continue_token: token, ..ListOptions::default() };
    assert_eq!(client.list(&resource, "default", rest).await.unwrap().items.len(), 3, "b, c and d");
}

#[tokio::test]
async fn bodies_that_are_too_long_or_break_off_are_refused() {
    let (_store, server, _client) = server().await;
    let service = server.service_as(UserInfo::loopback());
    let post = |body: String| {
        let request = http::Request::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .body(Full::<bytes::Bytes>::from(body))
            .unwrap();
        service.clone().handle(request)
    };
    let long = format!("{{\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(3 * 1024 * 1024));
    assert_eq!(post(long).await.status(), 413);
    assert_eq!(post("{\"data\":".to_owned()).await.status(), 400);
    assert_eq!(post("[".repeat(100_000)).await.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_leave_the_server_alone() {
    let (_store, server, client) = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, server.service_as(UserInfo::loopback()), None, stop.clone()));
    for broken in [
        &b"GET /api/v1/configmaps?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{",
        b"\x16\x03\x01garbage",
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
    ] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(broken).await.unwrap();
        }
    }
    create(&client, "a", "x").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");

    // An open watch ends with the server.
    let mut watcher = TcpStream::connect(address).await.unwrap();
    watcher.write_all(b"GET /api/v1/configmaps?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 64];
    assert!(watcher.read(&mut first).await.unwrap() > 0);
    stop.cancel();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), watcher.read_to_end(&mut rest)).await.unwrap().unwrap();
    serving.await.unwrap().unwrap();
}

/// Reads an answer without a body that is longer than a piece.
async fn answered(stream: &mut TcpStream) -> String {
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_not_used_stay_as_long_as_clients_keep_them() {
    let (_store, server, _client) = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, server.service_as(UserInfo::loopback()), None, stop.clone()));
    let silent = TcpStream::connect(address).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let answer = answered(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
    // Whoever asks for nothing is not kept for ever.
    tokio::time::sleep(Duration::from_secs(20)).await;
    for mut unused in [stream, silent] {
        assert_eq!(unused.read(&mut [0; 1]).await.unwrap(), 0);
    }
    stop.cancel();
}

/// A connection that is closed once it has answered a request and has received another one, as by a server that just then gave it up.
#[tokio::test]
async fn what_only_reads_is_asked_again_when_a_connection_that_was_kept_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(answered(&mut stream).await.starts_with("GET"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            answered(&mut stream).await;
        }
    });
    let config = kube::Config::new(url.parse().unwrap());
    let client = RemoteClient::new(kube::Client::try_from(config).unwrap());
    let list = async || client.list(&Resource::of::<ConfigMap>(), "default", ListOptions::default()).await;
    for _ in 0..3 {
        assert_eq!(list().await.unwrap().resource_version, "7");
    }
    let create = Request {
        resource: Resource::of::<ConfigMap>(),
        namespace: "default".to_owned(),
        name: String::new(),
        subresource: String::new(),
        verb: Verb::Create(json!({"metadata": {"name": "a"}}), WriteOptions::default()),
    };
    list().await.unwrap();
    let lost = client.request(create).await.unwrap_err().to_string();
    assert!(lost.contains("client error (SendRequest): "), "{lost}");
}

#[tokio::test]
async fn a_server_that_nobody_uses_ends() {
    let (store, server, client) = server().await;
    create(&client, "a", "x").await;
    let before = Arc::strong_count(&store);
    drop((server, client));
    tokio::time::timeout(Duration::from_secs(10), async {
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the store is still held ({before} before, {} now)", Arc::strong_count(&store)));
}

#[tokio::test]
async fn methods_are_those_of_their_paths() {
    let (_store, server, client) = server().await;
    create(&client, "a", "x").await;
    let service = server.service_as(UserInfo::loopback());
    let collection = "/api/v1/namespaces/default/configmaps";
    for (method, path, code) in [
        ("PUT", collection.to_owned(), 405),
        ("PATCH", collection.to_owned(), 405),
        ("POST", format!("{collection}/a"), 405),
        ("GET", format!("{collection}/a/status"), 404),
        ("BREW", format!("{collection}/a"), 405),
        ("GET", format!("{collection}?sendInitialEvents=true"), 422),
        ("GET", "/apis/nothing/v1/x".to_owned(), 404),
    ] {
        let request = http::Request::builder().method(method).uri(&path).body(Full::<bytes::Bytes>::default()).unwrap();
        assert_eq!(service.clone().handle(request).await.status(), code, "{method} {path}");
    }
}
