//! A real API server in this process, addresses of our own, and servers that say who they are.
#![allow(dead_code)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use rand::RngExt;
use rk_api::{
    Api, Client, ResourceType,
    server::{
        Server, UserInfo,
        kinds::{self, service::Ranges},
    },
};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A server with the namespace `default`, whose services get addresses of loopback.
pub async fn api() -> Arc<dyn Client> {
    let ranges = Ranges { cluster_ips: "127.0.0.0/8".parse().unwrap(), ..Ranges::default() };
    let services = kinds::service::strategy(ranges);
    let builder = Server::builder(Arc::new(MemoryStore::new())).strategy("", "Service", services);
    let server = builder.build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    create::<Namespace>(&client, "", json!({"metadata": {"name": "default"}})).await;
    client
}

/// Creates an object.
pub async fn create<K: ResourceType>(client: &Arc<dyn Client>, namespace: &str, object: Value) -> Arc<K> {
    let object: K = serde_json::from_value(object).unwrap();
    Api::<K>::namespaced(client.clone(), namespace).create(&object).await.unwrap()
}

/// An address of 127/8 that other tests don't use.
pub fn own_ip() -> IpAddr {
    let mut random = rand::rng();
    let mut octet = || random.random_range(2..250_u8);
    IpAddr::V4(Ipv4Addr::new(127, octet(), octet(), octet()))
}

/// Waits for something that comes soon.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while std::time::Instant::now() < end {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not in 20 s: {what}");
}

/// A server that greets with its name, then echoes until the client has said all, then says goodbye.
pub async fn greeter(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.unwrap();
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..length]).await.unwrap();
                }
                // A client that broke off hears no goodbye.
                let _ = stream.write_all(b"bye").await;
            });
        }
    });
    address
}

/// The greeting of the server behind an address; `None` if it refuses.
pub async fn greeting(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
