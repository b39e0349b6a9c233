//! The userspace backend with real sockets.
#![cfg(feature = "userspace")]

mod common;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use common::{api, create, eventually, greeter, greeting, own_ip};
use k8s_openapi::api::{
    core::v1::{Event, Service},
    discovery::v1::EndpointSlice,
};
use rk_api::{Api, ListOptions, Patch};
use rk_proxy::{
    Endpoint, PortKey, Protocol, ProxyBackend, ProxyConfig, ServiceChange, ServiceKey, ServicePort, ServiceProxy,
    userspace::{Userspace, UserspaceConfig},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use tokio_util::sync::CancellationToken;

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { address, ready: true, serving: true, terminating: false, node: None }
}

fn port(ip: IpAddr, endpoints: Vec<Endpoint>) -> ServicePort {
    let service = ServiceKey::new("default", "web");
    ServicePort {
        key: PortKey { service, port: "".into(), protocol: Protocol::Tcp },
        uid: "".into(),
        cluster_ips: vec![ip],
        external_ips: Vec::new(),
        port: 8080,
        node_port: None,
        affinity: None,
        external_local: false,
        internal_local: false,
        endpoints,
    }
}

fn upsert(port: ServicePort) -> ServiceChange {
    ServiceChange { upserts: vec![Arc::new(port)], removals: Vec::new() }
}

#[tokio::test]
async fn connections_go_to_the_endpoints_in_turn() {
    let backend = Userspace::new(UserspaceConfig::default());
    let (ip, a, b) = (own_ip(), greeter("a").await, greeter("b").await);
    let at = SocketAddr::new(ip, 8080);
    assert_eq!(backend.apply(upsert(port(ip, vec![endpoint(a), endpoint(b)]))).await.unwrap(), []);
    let mut seen = BTreeMap::new();
    for _ in 0..10 {
        *seen.entry(greeting(at).await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(seen, BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 5)]));

    backend.apply(upsert(port(ip, Vec::new()))).await.unwrap();
    assert_eq!(greeting(at).await, None, "without endpoints connections are refused");
    assert!(backend.listening().await.is_empty());
}

#[tokio::test]
async fn terminating_endpoints_serve_only_while_none_is_ready() {
    let backend = Userspace::new(UserspaceConfig::default());
    let (ip, a, b) = (own_ip(), greeter("a").await, greeter("b").await);
    let at = SocketAddr::new(ip, 8080);
    let leaving = Endpoint { ready: false, terminating: true, ..endpoint(a) };
    backend.apply(upsert(port(ip, vec![leaving.clone(), endpoint(b)]))).await.unwrap();
    for _ in 0..4 {
        assert_eq!(greeting(at).await.as_deref(), Some("b"));
    }
    backend.apply(upsert(port(ip, vec![leaving.clone()]))).await.unwrap();
    assert_eq!(greeting(at).await.as_deref(), Some("a"));
    backend.apply(upsert(port(ip, vec![Endpoint { serving: false, ..leaving }]))).await.unwrap();
    assert_eq!(greeting(at).await, None);
}

#[tokio::test]
async fn an_open_connection_outlives_its_endpoint_and_halves_close_apart() {
    let backend = Userspace::new(UserspaceConfig::default());
    let (ip, a) = (own_ip(), greeter("a").await);
    backend.apply(upsert(port(ip, vec![endpoint(a)]))).await.unwrap();
    let mut stream = TcpStream::connect((ip, 8080)).await.unwrap();
    let mut buffer = [0; 1];
    stream.read_exact(&mut buffer).await.unwrap();
    let key = port(ip, Vec::new()).key;
    backend.apply(ServiceChange { upserts: Vec::new(), removals: vec![key] }).await.unwrap();
    assert_eq!(greeting(SocketAddr::new(ip, 8080)).await, None);
    stream.write_all(b"still here").await.unwrap();
    // Our half is closed; the answer comes on the other.
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "still herebye");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_the_backend_leaves_nothing_behind() {
    let backend = Userspace::new(UserspaceConfig::default());
    let (ip, alive) = (own_ip(), greeter("alive").await);
    let dead = SocketAddr::new(own_ip(), 9);
    let at = SocketAddr::new(ip, 8080);
    backend.apply(upsert(port(ip, vec![endpoint(dead), endpoint(alive)]))).await.unwrap();
    for _ in 0..4 {
        assert_eq!(greeting(at).await.as_deref(), Some("alive"));
    }
    let mut open = TcpStream::connect(at).await.unwrap();
    drop(backend);
    let mut rest = Vec::new();
    // The connection is cut; whether by a reset or a close is not said.
    let _ = open.read_to_end(&mut rest).await;
    eventually("the address is free", async || std::net::TcpListener::bind(at).ok()).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_of_and_the_rest_is_served() {
    let (ip, a) = (own_ip(), greeter("a").await);
    let taken = std::net::TcpListener::bind((own_ip(), 0)).unwrap();
    let taken_at = taken.local_addr().unwrap();
    let config = UserspaceConfig { node_addresses: vec![taken_at.ip()], ..UserspaceConfig::default() };
    let backend = Userspace::new(config);
    let port = ServicePort { node_port: Some(taken_at.port()), ..port(ip, vec![endpoint(a)]) };
    let unserved = backend.apply(upsert(port.clone())).await.unwrap();
    assert_eq!(unserved.len(), 1);
    assert_eq!(unserved[0].address, taken_at);
    assert_eq!(greeting(SocketAddr::new(ip, 8080)).await.as_deref(), Some("a"));
    drop(taken);
    assert_eq!(backend.apply(upsert(port)).await.unwrap(), []);
    assert_eq!(greeting(taken_at).await.as_deref(), Some("a"));
}

#[tokio::test]
async fn what_one_of_two_shares_goes_on_with_the_other() {
    let shared = || Userspace::new(UserspaceConfig { shared: true, ..UserspaceConfig::default() });
    let (one, other) = (shared(), shared());
    let (ip, a) = (own_ip(), greeter("a").await);
    let at = SocketAddr::new(ip, 8080);
    let mut udp = port(ip, vec![endpoint(a)]);
    udp.key.protocol = Protocol::Udp;
    let both =
        ServiceChange { upserts: vec![Arc::new(port(ip, vec![endpoint(a)])), Arc::new(udp)], removals: Vec::new() };
    for backend in [&one, &other] {
        assert_eq!(backend.apply(both.clone()).await.unwrap(), []);
    }
    let alone = Userspace::new(UserspaceConfig::default());
    let refused = alone.apply(upsert(port(ip, vec![endpoint(a)]))).await.unwrap();
    assert_eq!(refused.len(), 1, "one that does not share takes nothing from those that do: {refused:?}");
    one.apply(ServiceChange { upserts: Vec::new(), removals: vec![port(ip, Vec::new()).key] }).await.unwrap();
    for _ in 0..10 {
        assert_eq!(greeting(at).await.as_deref(), Some("a"));
    }
}

/// A server that sends datagrams back.
async fn datagram_echo() -> SocketAddr {
    let echo = UdpSocket::bind((own_ip(), 0)).await.unwrap();
    let address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            echo.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    address
}

/// What comes back for a datagram, if anything does soon.
async fn echoed(address: SocketAddr, text: &str) -> Option<String> {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    client.send(text.as_bytes()).await.unwrap();
    let mut buffer = [0; 64];
    let length = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer)).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[tokio::test]
async fn datagrams_find_an_endpoint_and_their_way_back() {
    let backend = Userspace::new(UserspaceConfig::default());
    let echo_at = datagram_echo().await;
    let ip = own_ip();
    let mut port = port(ip, vec![endpoint(echo_at)]);
    port.key.protocol = Protocol::Udp;
    backend.apply(upsert(port.clone())).await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect((ip, 8080)).await.unwrap();
    for text in ["one", "two"] {
        client.send(text.as_bytes()).await.unwrap();
        let mut buffer = [0; 16];
        let length = tokio::time::timeout(Duration::from_secs(10), client.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..length], text.as_bytes());
    }
}

#[tokio::test]
async fn services_of_the_api_are_served_and_failures_are_told() {
    let client = api().await;
    let backend = Arc::new(Userspace::new(UserspaceConfig::default()));
    let stop = CancellationToken::new();
    let proxy = ServiceProxy::new(client.clone(), backend.clone(), ProxyConfig::default());
    let running = tokio::spawn(proxy.run(stop.clone()));
    let (ip, a, b) = (own_ip(), greeter("a").await, greeter("b").await);
    let at = SocketAddr::new(ip, 8080);
    let taken = std::net::TcpListener::bind(at).unwrap();
    create::<Service>(
        &client,
        "default",
        json!({
            "metadata": {"name": "web"},
            "spec": {"clusterIP": ip.to_string(), "ports": [{"name": "http", "port": 8080, "targetPort": 80}]},
        }),
    )
    .await;
    let slice = |address: SocketAddr| {
        json!({
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        })
    };
    create::<EndpointSlice>(&client, "default", slice(a)).await;
    let events = Api::<Event>::namespaced(client.clone(), "default");
    eventually("an event tells of the taken address", async || {
        let list = events.list(ListOptions::default()).await.unwrap();
        list.items.iter().find(|event| event.reason.as_deref() == Some("FailedToServe")).cloned()
    })
    .await;
    drop(taken);
    // Any change of the service brings another try.
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default");
    let greeted = |name: &'static str| async move || greeting(at).await.filter(|text| text == name);
    slices.patch("web-1", Patch::merge(slice(b))).await.unwrap();
    eventually("the new endpoint answers", greeted("b")).await;
    slices.patch("web-1", Patch::merge(slice(a))).await.unwrap();
    eventually("the first endpoint answers again", greeted("a")).await;
    let services = Api::<Service>::namespaced(client.clone(), "default");
    services.delete("web", rk_api::DeleteOptions::default()).await.unwrap();
    eventually("the service is gone", async || greeting(at).await.is_none().then_some(())).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn node_ports_affinity_and_datagrams_are_what_the_service_says() {
    let client = api().await;
    let node = own_ip();
    let config = UserspaceConfig { node_addresses: vec![node], ..UserspaceConfig::default() };
    let stop = CancellationToken::new();
    let proxy = ServiceProxy::new(client.clone(), Arc::new(Userspace::new(config)), ProxyConfig::default());
    let running = tokio::spawn(proxy.run(stop.clone()));
    let ip = own_ip();
    let ports = json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 8053, "protocol": "UDP"}]);
    let spec = json!({"type": "NodePort", "clusterIP": ip.to_string(), "ports": ports});
    let made: Arc<Service> = create(&client, "default", json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let node_ports: Vec<_> =
        made.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter_map(|port| port.node_port).collect();
    let [http, dns] = node_ports.try_into().unwrap();
    let at_node = |port: i32| SocketAddr::new(node, u16::try_from(port).unwrap());
    let at = SocketAddr::new(ip, 8080);
    for (slice, name, protocol, address) in [
        ("web-1", "http", "TCP", greeter("a").await),
        ("web-2", "http", "TCP", greeter("b").await),
        ("web-3", "dns", "UDP", datagram_echo().await),
    ] {
        let slice = json!({
            "metadata": {"name": slice, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": name, "port": address.port(), "protocol": protocol}],
            "endpoints": [{"addresses": [address.ip().to_string()]}],
        });
        create::<EndpointSlice>(&client, "default", slice).await;
    }
    let greetings = async |at: SocketAddr| {
        let mut greetings = Vec::new();
        for _ in 0..6 {
            greetings.extend(greeting(at).await);
        }
        greetings
    };
    let (a, b) = (&"a".to_owned(), &"b".to_owned());
    for at in [at, at_node(http)] {
        let both = eventually("both endpoints answer", async || {
            Some(greetings(at).await).filter(|seen| seen.contains(a) && seen.contains(b))
        });
        assert_eq!(both.await.iter().filter(|name| *name == a).count(), 3, "in turn");
    }
    for at in [SocketAddr::new(ip, 8053), at_node(dns)] {
        let answer = eventually("a datagram comes back", async || echoed(at, "asked").await).await;
        assert_eq!(answer, "asked");
    }

    let services = Api::<Service>::namespaced(client.clone(), "default");
    let patch = |spec: serde_json::Value| Patch::merge(json!({"spec": spec}));
    services.patch("web", patch(json!({"sessionAffinity": "ClientIP"}))).await.unwrap();
    for at in [at, at_node(http)] {
        eventually("a client stays with its endpoint", async || {
            let seen = greetings(at).await;
            (seen.len() == 6 && seen.iter().all(|name| *name == seen[0])).then_some(())
        })
        .await;
    }
    services.patch("web", patch(json!({"sessionAffinity": "None"}))).await.unwrap();
    eventually("and no longer", async || Some(greetings(at).await).filter(|seen| seen.contains(a) && seen.contains(b)))
        .await;

    services.patch("web", patch(json!({"type": "ClusterIP"}))).await.unwrap();
    eventually("the node port is closed", async || greeting(at_node(http)).await.is_none().then_some(())).await;
    assert!(echoed(at_node(dns), "asked").await.is_none());
    assert!(greeting(at).await.is_some());
    stop.cancel();
    running.await.unwrap();
}
