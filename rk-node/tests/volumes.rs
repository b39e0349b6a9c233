//! Volumes and environment, as containers see them.

mod cluster;

use cluster::{Cluster, phase, shell, with};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn config_and_secrets_reach_the_container_and_stay_current() {
    let cluster = Cluster::start().await;
    cluster.create::<ConfigMap>(json!({"metadata": {"name": "conf"}, "data": {"a": "1", "b": "2"}})).await;
    cluster.create::<Secret>(json!({"metadata": {"name": "sec"}, "stringData": {"k": "hidden"}})).await;
    let script = "echo env $A $LABEL; cat /etc/conf/a /etc/conf/sub/b /etc/info/cpu /etc/sec/k; stat -Lc %a /etc/sec/k; \
        touch /etc/conf/x 2>/dev/null && echo writable; echo; while [ \"$(cat /etc/conf/a)\" = 1 ]; do sleep 0.05; done; echo now $(cat /etc/conf/a) $(cat /single)";
    let container = with(
        shell("main", script),
        json!({
            "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
            "resources": {"limits": {"cpu": "250m"}},
            "volumeMounts": [
                {"name": "conf", "mountPath": "/etc/conf", "readOnly": true},
                {"name": "sec", "mountPath": "/etc/sec"},
                {"name": "info", "mountPath": "/etc/info"},
                {"name": "conf", "mountPath": "/single", "subPath": "a"},
            ],
        }),
    );
    let volumes = json!([
        {"name": "conf", "configMap": {"name": "conf", "items": [{"key": "a", "path": "a"}, {"key": "b", "path": "sub/b"}]}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "info", "downwardAPI": {"items": [{"path": "cpu", "resourceFieldRef":
            {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}}]}},
    ]);
    let spec = json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes});
    let pod = cluster.pod("reader", spec).await;
    cluster.until::<Pod>("reader", |pod| phase(pod) == "Running").await;
    cluster.until_log(&pod, "main", "400").await;
    cluster.patch::<ConfigMap>("conf", json!({"data": {"a": "new"}})).await;
    cluster.until::<Pod>("reader", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(cluster.log(&pod, "main").await, "env 1 reader\n12250hidden400\n\nnow new 1");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_what_it_needs() {
    let cluster = Cluster::start().await;
    let container = with(
        shell("main", "cat /conf/k; echo $K"),
        json!({
            "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
            "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "later", "key": "k"}}}],
        }),
    );
    let volumes = json!([{"name": "conf", "configMap": {"name": "later"}}]);
    let spec = json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes});
    let pod = cluster.pod("waiter", spec).await;
    let message = cluster.until_event("waiter", "FailedMount").await;
    assert_eq!(message, "MountVolume.SetUp failed for volume \"conf\" : configmap \"later\" not found");
    cluster.create::<ConfigMap>(json!({"metadata": {"name": "later"}, "data": {"k": "v\n"}})).await;
    let reason = |pod: &Pod| {
        let status = &pod.status.as_ref()?.container_statuses.as_ref()?[0];
        status.state.as_ref()?.waiting.as_ref()?.reason.clone()
    };
    cluster.until::<Pod>("waiter", |pod| reason(pod).as_deref() == Some("CreateContainerConfigError")).await;
    cluster.create::<Secret>(json!({"metadata": {"name": "later"}, "stringData": {"k": "s"}})).await;
    cluster.until::<Pod>("waiter", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(cluster.log(&pod, "main").await, "v\ns");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_private_to_the_container() {
    let cluster = Cluster::start().await;
    let mounts = json!({"volumeMounts": [{"name": "e", "mountPath": "/no-such-root/dir"}, {"name": "e", "mountPath": "/run/no-such/dir", "subPath": "s/t"}]});
    let script = "echo x > /no-such-root/dir/f; echo y > /run/no-such/dir/g; ls /usr/bin/env; cat /no-such-root/dir/s/t/g; hostname; pwd";
    let spec = json!({"restartPolicy": "Never", "containers": [with(shell("main", script), mounts)], "volumes": [{"name": "e", "emptyDir": {}}]});
    let pod = cluster.pod("private", spec).await;
    cluster.until::<Pod>("private", |pod| phase(pod) == "Succeeded").await;
    let log = cluster.log(&pod, "main").await;
    assert!(log.starts_with("/usr/bin/env\ny\nprivate\n"), "{log}");
    assert!(!std::path::Path::new("/no-such-root").exists() && !std::path::Path::new("/run/no-such").exists());
    cluster.delete("private", Some(0)).await;
    cluster.until_gone("private").await;
    let folder = cluster.config.data_dir.join("pods").join(pod.metadata.uid.as_deref().unwrap());
    let removed = async {
        while folder.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(cluster::PATIENCE, removed).await.expect("the pod's folder goes with it");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_path_is_the_hosts() {
    let cluster = Cluster::start().await;
    let host = cluster.folder().join("shared");
    let volumes = json!([{"name": "h", "hostPath": {"path": host, "type": "DirectoryOrCreate"}}]);
    let container =
        with(shell("main", "echo here > /data/f"), json!({"volumeMounts": [{"name": "h", "mountPath": "/data"}]}));
    cluster.pod("host", json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes})).await;
    cluster.until::<Pod>("host", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(std::fs::read_to_string(host.join("f")).unwrap(), "here\n");
    let volumes = json!([{"name": "h", "hostPath": {"path": host.join("f"), "type": "Directory"}}]);
    cluster.pod("wrong", json!({"containers": [shell("main", "true")], "volumes": volumes})).await;
    let message = cluster.until_event("wrong", "FailedMount").await;
    assert!(message.contains("is not a directory"), "{message}");
    cluster.delete("wrong", Some(0)).await;
    cluster.until_gone("wrong").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_token_is_projected() {
    let cluster = Cluster::start().await;
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let volumes = json!([{"name": "kube-api-access-x", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}}]);
    let container = with(
        shell("main", &format!("cd {path}; cat ca.crt namespace; test $(wc -c < token) -gt 100 && echo -token")),
        json!({"volumeMounts": [{"name": "kube-api-access-x", "mountPath": path, "readOnly": true}]}),
    );
    let spec =
        json!({"restartPolicy": "Never", "serviceAccountName": "robot", "containers": [container], "volumes": volumes});
    let pod = cluster.pod("robot", spec).await;
    cluster.until::<Pod>("robot", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(cluster.log(&pod, "main").await, "CAdefault-token");
    assert!(!std::path::Path::new(path).exists());
    cluster.end().await;
}
