//! The life of pods, end to end.

mod cluster;

use cluster::{Cluster, phase, pod_condition, shell, with};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_answers_and_is_deleted() {
    if !cluster::has_python() {
        return;
    }
    let cluster = Cluster::start().await;
    let server = "import http.server,os; http.server.HTTPServer((os.environ['IP'],8080),http.server.SimpleHTTPRequestHandler).serve_forever()";
    let container = json!({
        "name": "web", "image": "host:latest", "imagePullPolicy": "Never", "command": ["python3", "-u", "-c", server],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}, "limits": {"cpu": "500m", "memory": "200Mi"}},
    });
    cluster.pod("web", json!({"containers": [container]})).await;
    let pod = cluster.until::<Pod>("web", |pod| pod_condition(pod, "Ready")).await;
    let status = pod.status.as_ref().unwrap();
    assert_eq!(phase(&pod), "Running");
    let ip: std::net::IpAddr = status.pod_ip.as_deref().unwrap().parse().unwrap();
    tokio::net::TcpStream::connect((ip, 8080)).await.unwrap();
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert!(container.ready && container.started == Some(true) && container.restart_count == 0);
    assert!(container.container_id.as_deref().unwrap().starts_with("process://"));
    assert_eq!(status.host_ip.as_deref(), Some(cluster.config.address.to_string().as_str()));
    for reason in ["Pulled", "Created", "Started"] {
        cluster.until_event("web", reason).await;
    }
    cluster.delete("web", Some(5)).await;
    cluster.until_gone("web").await;
    let closed = async { while tokio::net::TcpStream::connect((ip, 8080)).await.is_ok() {} };
    tokio::time::timeout(cluster::PATIENCE, closed).await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_succeeds_or_fails() {
    let cluster = Cluster::start().await;
    let spec = |script: &str| json!({"restartPolicy": "Never", "containers": [shell("main", script)]});
    cluster.pod("good", spec("echo done")).await;
    cluster.pod("bad", spec("echo reason > /dev/termination-log; exit 3")).await;
    let good = cluster.until::<Pod>("good", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(cluster.log(&good, "main").await, "done");
    let bad = cluster.until::<Pod>("bad", |pod| phase(pod) == "Failed").await;
    let statuses = bad.status.as_ref().unwrap().container_statuses.as_ref().unwrap();
    let ended = statuses[0].state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(
        (ended.exit_code, ended.reason.as_deref(), ended.message.as_deref()),
        (3, Some("Error"), Some("reason\n"))
    );
    cluster.delete("bad", None).await;
    cluster.until_gone("bad").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_container_backs_off() {
    let cluster = Cluster::start().await;
    cluster.pod("crash", json!({"containers": [shell("main", "exit 1")]})).await;
    let waiting = |pod: &Pod| {
        let status = &pod.status.as_ref()?.container_statuses.as_ref()?[0];
        Some((
            status.state.as_ref()?.waiting.as_ref()?.reason.clone()?,
            status.restart_count,
            status.last_state.clone()?,
        ))
    };
    let pod = cluster
        .until::<Pod>("crash", |pod| waiting(pod).is_some_and(|(reason, ..)| reason == "CrashLoopBackOff"))
        .await;
    let (_, restarts, last) = waiting(&pod).unwrap();
    assert_eq!((restarts, last.terminated.unwrap().exit_code, phase(&pod)), (1, 1, "Running"));
    let message = cluster.until_event("crash", "BackOff").await;
    assert!(message.starts_with("Back-off restarting failed container main in pod crash_default("), "{message}");
    cluster.delete("crash", Some(0)).await;
    cluster.until_gone("crash").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_command_can_not_be_pulled() {
    let cluster = Cluster::start().await;
    cluster.pod("nginx", json!({"containers": [{"name": "main", "image": "nginx"}]})).await;
    let reason = |pod: &Pod| {
        let status = &pod.status.as_ref()?.container_statuses.as_ref()?[0];
        status.state.as_ref()?.waiting.as_ref()?.reason.clone()
    };
    cluster.until::<Pod>("nginx", |pod| reason(pod).as_deref() == Some("ErrImagePull")).await;
    let pod = cluster.until::<Pod>("nginx", |pod| reason(pod).as_deref() == Some("ImagePullBackOff")).await;
    assert_eq!(phase(&pod), "Pending");
    cluster.delete("nginx", Some(0)).await;
    cluster.until_gone("nginx").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_in_order_and_sidecars_stay() {
    let cluster = Cluster::start().await;
    let sidecar = with(shell("side", "echo side; exec sleep 1000"), json!({"restartPolicy": "Always"}));
    let mount = json!({"volumeMounts": [{"name": "work", "mountPath": "/mnt/dir"}]});
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "work", "emptyDir": {}}],
        "initContainers": [with(shell("first", "echo 1 >> /mnt/dir/order"), mount.clone()), sidecar, with(shell("second", "echo 2 >> /mnt/dir/order"), mount.clone())],
        "containers": [with(shell("main", "cat /mnt/dir/order"), mount)],
    });
    let pod = cluster.pod("init", spec).await;
    let done = cluster.until::<Pod>("init", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(cluster.log(&pod, "main").await, "1\n2");
    assert!(pod_condition(&done, "Initialized"));
    let statuses = done.status.as_ref().unwrap().init_container_statuses.as_ref().unwrap();
    assert!(statuses.iter().all(|status| status.state.as_ref().unwrap().terminated.is_some()), "{statuses:#?}");
    cluster.end().await;
}
