//! The contracts' suites on the built-in implementations.

use std::{net::Ipv4Addr, sync::Arc};

use rk_node::{
    Loopback,
    process::{LogRotation, ProcessConfig, ProcessRuntime},
    testing,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_process_runtime_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let network = Arc::new(Loopback::new("127.99.1.0/24", &folder.path().join("network")).unwrap());
    let config = ProcessConfig {
        root: folder.path().join("runtime"),
        log_rotation: LogRotation::default(),
        host_ip: Ipv4Addr::LOCALHOST.into(),
    };
    let runtime = ProcessRuntime::open(config, network).await.unwrap();
    let place = testing::Place { image: "any".to_owned(), logs: folder.path().join("logs"), host_network: false };
    testing::runtime(&runtime, &place).await;
}

#[tokio::test]
async fn the_loopback_network_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    testing::network(&Loopback::new("127.99.2.0/24", folder.path()).unwrap()).await;
}
