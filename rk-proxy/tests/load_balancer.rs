//! Addresses for services of type LoadBalancer.

mod common;

use common::{api, create, eventually};
use k8s_openapi::api::core::v1::Service;
use rk_api::Api;
use rk_proxy::{LoadBalancerConfig, LoadBalancers};
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_service_gets_an_address() {
    let client = api().await;
    let config = LoadBalancerConfig { addresses: vec!["127.0.0.1".parse().unwrap()] };
    let stop = CancellationToken::new();
    let running = tokio::spawn(LoadBalancers::new(client.clone(), config).run(stop.clone()));
    let service = |name: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "clusterIP": common::own_ip().to_string(), "ports": [{"port": 80}]},
        })
    };
    create::<Service>(&client, "default", service("web")).await;
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let address = eventually("the service has its address", async || {
        let service = services.get("web").await.unwrap();
        service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?.ip.clone()
    })
    .await;
    assert_eq!(address, "127.0.0.1");
    stop.cancel();
    running.await.unwrap();
}
