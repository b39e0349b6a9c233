//! Unmodified kube-rs against a running `mini-cluster`: a `Controller`, informers, exec, logs, port-forward, apply.
#![allow(missing_docs)]

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::MiniCluster;
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config, CustomResource, CustomResourceExt, ResourceExt,
    api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        reflector,
        wait::{await_condition, conditions},
        watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn client(cluster: &MiniCluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn start() -> (tempfile::TempDir, MiniCluster) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = MiniCluster::start(&dir.path().join("data"), &["--agents", "1"]);
    (dir, cluster)
}

/// A greeting that is to be kept in a ConfigMap.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[kube(
    group = "example.com",
    version = "v1",
    kind = "Greeting",
    namespaced,
    status = "GreetingStatus",
    shortname = "gr"
)]
struct GreetingSpec {
    text: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct GreetingStatus {
    kept: bool,
}

async fn reconcile(greeting: Arc<Greeting>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = greeting.namespace().unwrap();
    let copy = ConfigMap {
        metadata: ObjectMeta {
            name: Some(greeting.name_any()),
            owner_references: Some(vec![kube::Resource::controller_owner_ref(&*greeting, &()).unwrap()]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("text".to_owned(), greeting.spec.text.clone())])),
        ..ConfigMap::default()
    };
    let configmaps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    let apply = PatchParams::apply("greeter").force();
    configmaps.patch(&greeting.name_any(), &apply, &Patch::Apply(&copy)).await?;
    let greetings: Api<Greeting> = Api::namespaced((*client).clone(), &namespace);
    let status = serde_json::json!({"status": {"kept": true}});
    greetings.patch_status(&greeting.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(Action::await_change())
}

async fn until<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    let wait = async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("within a minute")
}

#[tokio::test]
async fn an_unmodified_controller_reconciles() {
    let (_dir, cluster) = start();
    let client = client(&cluster).await;
    let crds = Api::all(client.clone());
    crds.create(&PostParams::default(), &Greeting::crd()).await.unwrap();
    let established = await_condition(crds, "greetings.example.com", conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(30), established).await.unwrap().unwrap();

    let greetings: Api<Greeting> = Api::default_namespaced(client.clone());
    let configmaps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let controller = Controller::new(greetings.clone(), watcher::Config::default())
        .owns(configmaps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client.clone()))
        .for_each(|_| futures::future::ready(()));
    let controller = tokio::spawn(controller);

    let mut hello = Greeting::new("hello", GreetingSpec { text: "hello".into() });
    hello = greetings.create(&PostParams::default(), &hello).await.unwrap();
    let text = async |wanted: &str| {
        until(async || {
            let copy = configmaps.get_opt("hello").await.unwrap()?;
            (copy.data?.get("text")? == wanted).then_some(())
        })
        .await;
    };
    text("hello").await;
    until(async || greetings.get_status("hello").await.unwrap().status.filter(|status| status.kept)).await;
    // A change of the object, and one of what it owns, are both put right.
    greetings
        .patch("hello", &PatchParams::default(), &Patch::Merge(serde_json::json!({"spec": {"text": "bye"}})))
        .await
        .unwrap();
    text("bye").await;
    configmaps
        .patch("hello", &PatchParams::default(), &Patch::Merge(serde_json::json!({"data": {"text": "meddled"}})))
        .await
        .unwrap();
    text("bye").await;
    // A stale update conflicts; a deletion takes what is owned along.
    let stale = greetings.replace("hello", &PostParams::default(), &hello).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(status) if status.code == 409), "{stale}");
    greetings.delete("hello", &DeleteParams::background()).await.unwrap();
    until(async || configmaps.get_opt("hello").await.unwrap().is_none().then_some(())).await;
    controller.abort();
}

#[tokio::test]
async fn informers_pages_exec_logs_and_port_forward() {
    let (_dir, cluster) = start();
    let client = client(&cluster).await;
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    for i in 0..25 {
        let secret = Secret {
            metadata: ObjectMeta { name: Some(format!("s{i:02}")), ..ObjectMeta::default() },
            ..Secret::default()
        };
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }
    // Informers by both strategies of the initial list: paged, and streamed.
    for config in [watcher::Config::default().page_size(10), watcher::Config::default().streaming_lists()] {
        let (reader, writer) = reflector::store();
        let stream = watcher(secrets.clone(), config).default_backoff().reflect(writer).applied_objects();
        let follow = tokio::spawn(stream.for_each(|_| futures::future::ready(())));
        tokio::time::timeout(Duration::from_secs(30), reader.wait_until_ready()).await.unwrap().unwrap();
        assert_eq!(reader.state().iter().filter(|secret| secret.name_any().starts_with('s')).count(), 25);
        follow.abort();
    }
    let page = secrets.list(&ListParams::default().limit(7)).await.unwrap();
    assert_eq!(page.items.len(), 7);
    assert!(page.metadata.continue_.is_some());

    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [
            {"name": "c", "image": "host", "command": ["sh", "-c", "echo up; exec sleep 600"]},
            {"name": "web", "image": "host", "command": [env!("CARGO_BIN_EXE_mini-cluster"), "--hello", "5000"], "env": [
                {"name": "POD_NAME", "value": "p"},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ]},
        ]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = await_condition(pods.clone(), "p", conditions::is_pod_running());
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    let of_c = LogParams { container: Some("c".into()), ..LogParams::default() };
    until(async || (pods.logs("p", &of_c).await.ok()? == "up\n").then_some(())).await;
    let params = AttachParams::default().container("c").stdin(true).stderr(false);
    let mut attached = pods.exec("p", ["cat"], &params).await.unwrap();
    let (mut stdin, mut stdout) = (attached.stdin().unwrap(), attached.stdout().unwrap());
    stdin.write_all(b"ping\n").await.unwrap();
    let mut answer = [0; 5];
    tokio::time::timeout(Duration::from_secs(20), stdout.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"ping\n");
    drop(stdin);
    // The program may not listen yet.
    let hello = until(async || {
        let mut forward = pods.portforward("p", &[5000]).await.ok()?;
        let mut stream = forward.take_stream(5000)?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        (!answer.is_empty()).then_some(answer)
    });
    assert!(hello.await.ends_with("hello from p\n"));
    pods.delete("p", &DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() }).await.unwrap();
    until(async || pods.get_opt("p").await.unwrap().is_none().then_some(())).await;
    secrets.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    until(async || secrets.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())).await;
}
