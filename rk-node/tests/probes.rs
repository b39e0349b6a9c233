//! Probes that ask over the network: HTTP, TCP and gRPC, of servers that answer, refuse, and say no.

mod cluster;

use cluster::{Cluster, pod_condition, shell, with};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_ask_over_http_tcp_and_grpc() {
    if !cluster::has("etcd") {
        return;
    }
    let cluster = Cluster::start().await;
    // etcd answers HTTP and gRPC's health check on one port.
    let script = format!(
        "exec etcd --data-dir {} --listen-client-urls http://$IP:2379 --advertise-client-urls http://$IP:2379 \
         --listen-peer-urls http://$IP:2380 --log-level error",
        cluster.folder().join("etcd").display()
    );
    let ip = json!({"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]});
    let probed = |name: &str, probe: Value| {
        with(shell(name, "exec sleep 1000"), json!({"readinessProbe": with(probe, json!({"periodSeconds": 1}))}))
    };
    // Port 2378 is nobody's.
    let containers = [
        with(shell("etcd", &script), ip),
        probed("http", json!({"httpGet": {"path": "/health", "port": 2379}})),
        probed("tcp", json!({"tcpSocket": {"port": 2379}})),
        probed("grpc", json!({"grpc": {"port": 2379}})),
        probed("http-404", json!({"httpGet": {"path": "/nope", "port": 2379}})),
        probed("http-tls", json!({"httpGet": {"path": "/health", "port": 2379, "scheme": "HTTPS"}})),
        probed("http-refused", json!({"httpGet": {"path": "/health", "port": 2378}})),
        probed("tcp-refused", json!({"tcpSocket": {"port": 2378}})),
        probed("grpc-refused", json!({"grpc": {"port": 2378}})),
        probed("grpc-unknown", json!({"grpc": {"port": 2379, "service": "nope"}})),
    ];
    cluster.pod("probed", json!({"terminationGracePeriodSeconds": 1, "containers": containers})).await;
    let ready = |pod: &Pod| -> Vec<String> {
        statuses(pod).filter(|status| status.ready).map(|status| status.name.clone()).collect()
    };
    let good = ["etcd", "grpc", "http", "tcp"];
    let all_good = |pod: &Pod| good.iter().all(|name| ready(pod).contains(&(*name).to_owned()));
    let pod = cluster.until::<Pod>("probed", all_good).await;
    let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    let refused = format!("dial tcp {ip}:2378: connect: connection refused");
    for told in [
        "Readiness probe failed: HTTP probe failed with statuscode: 404".to_owned(),
        format!("Readiness probe failed: Get \"https://{ip}:2379/health\": tls: "),
        format!("Readiness probe failed: Get \"http://{ip}:2378/health\": {refused}"),
        format!("Readiness probe failed: {refused}"),
        format!("Readiness probe failed: timeout: failed to connect service \"{ip}:2378\": {refused}"),
        "Readiness probe failed: rpc error: code = 5 desc = unknown service".to_owned(),
    ] {
        cluster.until_told("probed", &told).await;
    }
    let mut names = ready(&cluster.get::<Pod>("probed").await.unwrap());
    names.sort();
    assert_eq!(names, good, "those whose probes fail are not ready");
    assert!(!pod_condition(&pod, "Ready"));
    cluster.delete("probed", Some(0)).await;
    cluster.until_gone("probed").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_http_probe_restarts_the_container() {
    let cluster = Cluster::start().await;
    let probe = json!({"httpGet": {"path": "/", "port": 2378}, "periodSeconds": 1, "failureThreshold": 2});
    let container = with(shell("main", "exec sleep 1000"), json!({"livenessProbe": probe}));
    cluster.pod("dead", json!({"terminationGracePeriodSeconds": 1, "containers": [container]})).await;
    cluster.until::<Pod>("dead", |pod| statuses(pod).any(|status| status.restart_count == 1)).await;
    cluster.until_told("dead", "Liveness probe failed: Get \"http://").await;
    cluster.delete("dead", Some(0)).await;
    cluster.until_gone("dead").await;
    cluster.end().await;
}
