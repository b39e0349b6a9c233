//! The conformance suite of `Client`: in the server's process, and over HTTP through kube.
#![cfg(all(feature = "server", feature = "testing"))]

use std::sync::Arc;

use rk_api::{
    server::{Server, UserInfo},
    testing::client_conformance,
};
use rk_store::MemoryStore;

async fn server() -> Server {
    Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap()
}

#[tokio::test]
async fn the_client_in_the_servers_process_conforms() {
    client_conformance(server().await.client(UserInfo::loopback()), "default").await;
}

#[cfg(feature = "remote")]
#[tokio::test]
async fn the_client_through_kube_conforms() {
    let service = server().await.service_as(UserInfo::loopback());
    let client = rk_api::RemoteClient::new(kube::Client::new(service, "default"));
    client_conformance(Arc::new(client), "default").await;
}

#[cfg(all(feature = "remote", feature = "serve"))]
#[tokio::test]
async fn the_client_over_a_socket_conforms() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let service = server().await.service_as(UserInfo::loopback());
    let serving = tokio::spawn(rk_api::server::serve(listener, service, None, stop.clone()));
    let config = kube::Config::new(url.parse().unwrap());
    let client = rk_api::RemoteClient::new(kube::Client::try_from(config).unwrap());
    client_conformance(Arc::new(client), "default").await;
    stop.cancel();
    serving.await.unwrap().unwrap();
}
