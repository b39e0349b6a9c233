//! The userspace backend keeps the guarantees of backends.
#![cfg(all(feature = "testing", feature = "userspace"))]

mod common;

use std::{net::IpAddr, sync::Arc};

use rk_proxy::{
    ProxyBackend,
    testing::{Setup, conformance},
    userspace::{Userspace, UserspaceConfig},
};

struct OnLoopback;

impl Setup for OnLoopback {
    fn backend(&mut self) -> Arc<dyn ProxyBackend> {
        Arc::new(Userspace::new(UserspaceConfig::default()))
    }

    fn service_address(&mut self) -> IpAddr {
        common::own_ip()
    }

    fn endpoint_address(&mut self) -> IpAddr {
        common::own_ip()
    }
}

#[tokio::test]
async fn userspace_conforms() {
    conformance(&mut OnLoopback).await.unwrap();
}
