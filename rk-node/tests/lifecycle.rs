//! Probes, hooks, ends and restarts.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, phase, pod_condition, shell, with};
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use serde_json::json;

fn first(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_gate_and_restart() {
    let cluster = Cluster::start().await;
    let folder = cluster.folder().to_owned();
    let exists = |name: &str| json!({"exec": {"command": ["test", "-e", folder.join(name)]}, "periodSeconds": 1, "failureThreshold": 1});
    let container = with(
        shell("main", "exec sleep 1000"),
        json!({
            "startupProbe": with(exists("started"), json!({"failureThreshold": 100})),
            "readinessProbe": exists("ready"),
            "livenessProbe": exists("alive"),
        }),
    );
    cluster.pod("probed", json!({"terminationGracePeriodSeconds": 1, "containers": [container]})).await;
    let pod = cluster.until::<Pod>("probed", |pod| phase(pod) == "Running").await;
    assert!(!first(&pod).unwrap().ready && first(&pod).unwrap().started == Some(false));
    std::fs::write(folder.join("alive"), "").unwrap();
    std::fs::write(folder.join("started"), "").unwrap();
    let pod = cluster.until::<Pod>("probed", |pod| first(pod).unwrap().started == Some(true)).await;
    assert!(!pod_condition(&pod, "Ready"));
    std::fs::write(folder.join("ready"), "").unwrap();
    cluster.until::<Pod>("probed", |pod| pod_condition(pod, "Ready")).await;
    std::fs::remove_file(folder.join("ready")).unwrap();
    cluster.until::<Pod>("probed", |pod| !pod_condition(pod, "Ready")).await;
    std::fs::remove_file(folder.join("alive")).unwrap();
    let pod = cluster.until::<Pod>("probed", |pod| first(pod).unwrap().restart_count == 1).await;
    assert!(first(&pod).unwrap().last_state.as_ref().unwrap().terminated.is_some());
    let message = cluster.until_event("probed", "Killing").await;
    assert_eq!(message, "Container main failed liveness probe, will be restarted");
    cluster.until_event("probed", "Unhealthy").await;
    cluster.delete("probed", Some(0)).await;
    cluster.until_gone("probed").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_graceful_and_can_be_hastened() {
    let cluster = Cluster::start().await;
    let said = cluster.folder().join("said");
    let script = format!("trap 'echo term >> {0}; exit 0' TERM; while :; do sleep 0.1; done", said.display());
    let hooks = json!({"lifecycle": {
        "postStart": {"exec": {"command": ["sh", "-c", format!("echo post >> {}", said.display())]}},
        "preStop": {"exec": {"command": ["sh", "-c", format!("echo pre >> {}", said.display())]}},
    }});
    cluster.pod("polite", json!({"containers": [with(shell("main", &script), hooks)]})).await;
    cluster.until::<Pod>("polite", |pod| pod_condition(pod, "Ready")).await;
    cluster.delete("polite", Some(20)).await;
    cluster.until_gone("polite").await;
    assert_eq!(std::fs::read_to_string(&said).unwrap(), "post\npre\nterm\n");

    cluster.pod("stubborn", json!({"containers": [shell("main", "trap '' TERM; while :; do sleep 0.1; done")]})).await;
    cluster.until::<Pod>("stubborn", |pod| pod_condition(pod, "Ready")).await;
    let begun = Instant::now();
    cluster.delete("stubborn", Some(1000)).await;
    cluster.until_event("stubborn", "Killing").await;
    let pod = cluster.get::<Pod>("stubborn").await.expect("it is still ending");
    assert!(pod.metadata.deletion_timestamp.is_some() && pod_condition(&pod, "Ready"), "it serves to its end");
    cluster.delete("stubborn", Some(1)).await;
    cluster.until_gone("stubborn").await;
    assert!(begun.elapsed() < Duration::from_secs(25));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_deadline_fails_the_pod() {
    let cluster = Cluster::start().await;
    let spec = json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 0, "containers": [shell("main", "exec sleep 1000")]});
    cluster.pod("late", spec).await;
    let pod = cluster.until::<Pod>("late", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_fit_is_refused() {
    let cluster = Cluster::start_with(|config| drop(config.capacity.insert("cpu".to_owned(), "1".to_owned()))).await;
    let container = with(shell("main", "exec sleep 1000"), json!({"resources": {"requests": {"cpu": "2"}}}));
    cluster.pod("big", json!({"containers": [container]})).await;
    let pod = cluster.until::<Pod>("big", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("OutOfcpu"));
    assert!(first(&pod).is_none_or(|status| status.state.as_ref().unwrap().running.is_none()));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_goes_on() {
    let mut cluster = Cluster::start().await;
    let kept = json!({"containers": [shell("main", "echo run; exec sleep 1000")]});
    let kept = cluster.pod("kept", kept).await;
    cluster.pod("once", json!({"restartPolicy": "Never", "containers": [shell("main", "echo once")]})).await;
    cluster.pod("gone", json!({"containers": [shell("main", "exec sleep 1000")]})).await;
    cluster.until::<Pod>("kept", |pod| pod_condition(pod, "Ready")).await;
    cluster.until::<Pod>("gone", |pod| pod_condition(pod, "Ready")).await;
    let once = cluster.until::<Pod>("once", |pod| phase(pod) == "Succeeded").await;
    cluster.stop_agent().await;
    cluster.delete("gone", Some(0)).await;
    cluster.reopen_runtime().await;
    cluster.start_agent();
    let restarted = cluster
        .until::<Pod>("kept", |pod| first(pod).is_some_and(|c| c.restart_count == 1) && pod_condition(pod, "Ready"))
        .await;
    assert_eq!(restarted.metadata.uid, kept.metadata.uid);
    cluster.until_log(&kept, "main", "run\nrun").await;
    let again = cluster.get::<Pod>("once").await.unwrap();
    assert_eq!(
        (phase(&again), again.status.as_ref().unwrap().start_time.clone()),
        ("Succeeded", once.status.as_ref().unwrap().start_time.clone())
    );
    assert_eq!(cluster.log(&once, "main").await, "once");
    cluster.delete("kept", Some(0)).await;
    cluster.until_gone("kept").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_pods_run_and_have_mirrors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("static.yaml");
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: main, image: host, imagePullPolicy: Never, command: [sleep, '1000']}\n";
    std::fs::write(&path, manifest).unwrap();
    // Neither keeps the other file from being a pod.
    std::fs::write(folder.path().join("bytes.yaml"), [0xff, 0xfe, 0]).unwrap();
    std::fs::write(folder.path().join("broken.yaml"), "kind: [").unwrap();
    let statics = folder.path().to_owned();
    let cluster = Cluster::start_with(move |config| config.static_pods = Some(statics)).await;
    let mirror = cluster.until::<Pod>("web-node-1", |pod| pod_condition(pod, "Ready")).await;
    let annotations = mirror.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(mirror.metadata.owner_references.as_ref().unwrap()[0].kind, "Node");
    cluster.delete("web-node-1", Some(0)).await;
    cluster
        .until::<Pod>("web-node-1", |pod| pod.metadata.uid != mirror.metadata.uid && pod_condition(pod, "Ready"))
        .await;
    let pod = |seconds: u32| {
        let container = shell("main", &format!("exec sleep {seconds}"));
        let spec = json!({"terminationGracePeriodSeconds": 2, "containers": [container]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}).to_string()
    };
    let command = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].command.as_ref().unwrap().join(" ");
    let runs =
        |seconds: u32| move |pod: &Pod| command(pod).contains(&seconds.to_string()) && pod_condition(pod, "Ready");
    // A manifest that changes, and one that changes back: the pod of the older one goes first.
    for seconds in [1001, 1002, 1001] {
        std::fs::write(&path, pod(seconds)).unwrap();
        cluster.until::<Pod>("web-node-1", runs(seconds)).await;
    }
    std::fs::remove_dir_all(folder.path()).unwrap();
    cluster.until_gone("web-node-1").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debug_container_joins_a_running_pod() {
    let cluster = Cluster::start().await;
    cluster.pod("app", json!({"containers": [shell("main", "exec sleep 1000")]})).await;
    cluster.until::<Pod>("app", |pod| pod_condition(pod, "Ready")).await;
    let api = rk_api::Api::<Pod>::namespaced(cluster.client.clone(), "default");
    let mut pod = (*api.get("app").await.unwrap()).clone();
    let debug = json!([{"name": "debug", "image": "host", "imagePullPolicy": "Never", "command": ["echo", "debugging"], "targetContainerName": "main"}]);
    pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(debug).unwrap();
    let request = rk_api::Request {
        resource: rk_api::Resource::of::<Pod>(),
        namespace: "default".into(),
        name: "app".into(),
        subresource: "ephemeralcontainers".into(),
        verb: rk_api::Verb::Update(
            with(serde_json::to_value(&pod).unwrap(), json!({"apiVersion": "v1", "kind": "Pod"})),
            rk_api::WriteOptions::default(),
        ),
    };
    cluster.client.request(request).await.unwrap();
    let done = |pod: &Pod| {
        let status = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?.first()?;
        status.state.as_ref()?.terminated.clone()
    };
    let pod = cluster.until::<Pod>("app", |pod| done(pod).is_some()).await;
    assert_eq!(done(&pod).unwrap().exit_code, 0);
    assert!(pod_condition(&pod, "Ready"));
    assert_eq!(cluster.log(&pod, "debug").await, "debugging");
    cluster.delete("app", Some(0)).await;
    cluster.until_gone("app").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_tells_of_itself() {
    let cluster = Cluster::start().await;
    let api = rk_api::Api::<Node>::all(cluster.client.clone());
    let node = api.get("node-1").await.unwrap();
    let labels = node.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/hostname"], "node-1");
    assert_eq!(labels["kubernetes.io/os"], "linux");
    let status = node.status.as_ref().unwrap();
    let address = &status.addresses.as_ref().unwrap()[0];
    assert_eq!(
        (address.type_.as_str(), address.address.as_str()),
        ("InternalIP", cluster.config.address.to_string().as_str())
    );
    assert!(status.allocatable.as_ref().unwrap().contains_key("memory"));
    assert!(status.node_info.as_ref().unwrap().container_runtime_version.starts_with("process://"));
    let leases =
        rk_api::Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(cluster.client.clone(), "kube-node-lease");
    let wait = async {
        while leases.get_opt("node-1").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(cluster::PATIENCE, wait).await.unwrap();
    cluster.end().await;
}
