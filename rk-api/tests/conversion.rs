//! Versions of a custom resource that a webhook converts, over real HTTPS.
#![cfg(feature = "serve")]

mod kubectl_cluster;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kubectl_cluster::Cluster;
use rk_api::{
    Client, ListOptions, Patch, PatchKind, Request, Resource, Verb, WatchEvent, WatchOptions, WriteOptions,
    server::{
        Server, UserInfo,
        pki::{Pki, Wanted},
        tls_config,
    },
};
use rk_store::MemoryStore;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An operator's definition with two versions, and where the images of its databases come from in the newer one.
const DATABASES: &str = include_str!("operators/databases.yaml");
const REGISTRY: &str = "registry.example.com/";

/// In v1 a host and a port, in v2 both in one text. Databases name the registry of their image in v1.
fn convert(mut object: Value, to: &str) -> Value {
    let mut spec = object["spec"].take();
    object["spec"] = if object["kind"] == "Database" {
        let image = spec["image"].as_str().unwrap_or_default();
        let plain = image.strip_prefix(REGISTRY).unwrap_or(image);
        spec["image"] = if to.ends_with("/v1") { format!("{REGISTRY}{plain}").into() } else { plain.into() };
        spec
    } else if to.ends_with("/v2") {
        let (host, port) = (spec["host"].as_str().unwrap_or_default(), spec["port"].as_i64().unwrap_or_default());
        json!({"address": format!("{host}:{port}")})
    } else {
        let (host, port) = spec["address"].as_str().unwrap_or_default().split_once(':').unwrap_or_default();
        json!({"host": host, "port": port.parse::<i64>().unwrap_or_default()})
    };
    object["apiVersion"] = to.into();
    object["metadata"]["annotations"]["converted"] = to.into();
    object["metadata"]["resourceVersion"] = "nonsense".into();
    object
}

fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap();
    if objects.iter().any(|object| object["metadata"]["name"] == "broken") {
        return json!({"response": {"uid": request["uid"], "result": {"status": "Failed", "message": "can't"}}});
    }
    let converted: Vec<_> = objects.iter().map(|object| convert(object.clone(), to)).collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}})
}

/// Serves the webhook; its port, and its authority in PEM.
async fn webhook() -> (u16, String) {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(directory.path()).unwrap();
    let identity = pki.identity("hook", &Wanted::server("hook", ["127.0.0.1".to_owned()])).unwrap();
    let tls = tls_config(&identity.certificate, &identity.key, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(tls.config());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    let review: Value = serde_json::from_slice(&body).unwrap();
                    Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(answer(&review).to_string()))))
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, pki.ca().to_owned())
}

fn definition(port: u16, ca: &str) -> Value {
    let version = |name: &str, storage: bool, spec: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": spec}}}}})
    };
    let text = json!({"type": "string"});
    json!({
        "metadata": {"name": "peers.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "peers", "singular": "peer", "kind": "Peer"},
            "versions": [
                version("v1", true, json!({"host": text, "port": {"type": "integer"}})),
                version("v2", false, json!({"address": {"type": "string", "pattern": ":[0-9]+$"}})),
            ],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {
                "url": format!("https://127.0.0.1:{port}/convert"), "caBundle": STANDARD.encode(ca)}}},
        },
    })
}

fn peers(version: &str) -> Resource {
    Resource::new("example.com", version, "Peer", "peers", false)
}

async fn send(client: &Arc<dyn Client>, version: &str, name: &str, verb: Verb) -> Result<Value, rk_api::Error> {
    let request = Request {
        resource: peers(version),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: String::new(),
        verb,
    };
    client.request(request).await?.value()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_and_written_in_every_version() {
    let (port, ca) = webhook().await;
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    server.define(definition(port, &ca)).await.unwrap();
    let client = server.client(UserInfo::loopback());
    let mut events = client.watch(&peers("v2"), "", WatchOptions::default()).await.unwrap();

    let body = json!({"metadata": {"name": "a"}, "spec": {"address": "x:80"}});
    let made = send(&client, "v2", "", Verb::Create(body, WriteOptions::default())).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v2"), &json!({"address": "x:80"})));
    assert_ne!(made["metadata"]["resourceVersion"], "nonsense", "a webhook changes labels and annotations only");
    assert_eq!(made["metadata"]["annotations"]["converted"], "example.com/v2");
    let stored = send(&client, "v1", "a", Verb::Get).await.unwrap();
    assert_eq!(stored["spec"], json!({"host": "x", "port": 80}));

    let patch = Patch::merge(json!({"spec": {"port": 81}}));
    send(&client, "v1", "a", Verb::Patch(patch, WriteOptions::default())).await.unwrap();
    let list = client.list(&peers("v2"), "", ListOptions::default()).await.unwrap();
    assert_eq!(list.items[0].value().unwrap()["spec"], json!({"address": "x:81"}));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let WatchEvent::Added(object) | WatchEvent::Modified(object) = events.next().await.unwrap().unwrap() {
            seen.push(object.value().unwrap()["spec"]["address"].clone());
        }
    }
    assert_eq!(seen, ["x:80", "x:81"]);

    let body = json!({"metadata": {"name": "b"}, "spec": {"address": "nowhere"}});
    let refused = send(&client, "v2", "", Verb::Create(body, WriteOptions::default())).await.unwrap_err();
    assert!(refused.is_invalid(), "judged by the version that was written: {refused}");
    let body = json!({"metadata": {"name": "broken"}, "spec": {"address": "y:1"}});
    let failed = send(&client, "v2", "", Verb::Create(body, WriteOptions::default())).await.unwrap_err();
    let why = "conversion webhook for example.com/v2, Kind=Peer failed: can't";
    assert!(failed.code() == 500 && failed.to_string().contains(why), "{failed}");
}

fn options(manager: &str) -> WriteOptions {
    WriteOptions { field_manager: manager.to_owned(), ..WriteOptions::default() }
}

fn applying(body: Value, manager: &str, force: bool) -> Verb {
    Verb::Patch(Patch { kind: PatchKind::Apply, body, force }, options(manager))
}

/// The fields of a manager below the spec.
fn owned<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let mut entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.find(|entry| entry["manager"] == manager).map_or(&Value::Null, |entry| &entry["fieldsV1"]["f:spec"])
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_owned_under_their_paths_in_every_version() {
    let (port, ca) = webhook().await;
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    server.define(definition(port, &ca)).await.unwrap();
    let client = server.client(UserInfo::loopback());
    let peer = |version: &str, spec: Value| json!({"apiVersion": format!("example.com/{version}"), "kind": "Peer", "metadata": {"name": "a"}, "spec": spec});
    let body = peer("v1", json!({"host": "x", "port": 80}));
    send(&client, "v1", "", Verb::Create(body, options("one"))).await.unwrap();
    let wanted = || peer("v2", json!({"address": "x:90"}));
    let refused = send(&client, "v2", "a", applying(wanted(), "two", false)).await.unwrap_err();
    let conflict = "Apply failed with 1 conflict: conflict with \"one\" using example.com/v1: .spec.port";
    assert_eq!((refused.code(), refused.to_string().as_str()), (409, conflict));
    let forced = send(&client, "v2", "a", applying(wanted(), "two", true)).await.unwrap();
    assert_eq!(owned(&forced, "one"), &json!({".": {}, "f:host": {}}));
    assert_eq!(owned(&forced, "two"), &json!({"f:address": {}}));
    // And the other way round, by an update.
    let patch = Patch::merge(json!({"spec": {"port": 91}}));
    let edited = send(&client, "v1", "a", Verb::Patch(patch, options("edit"))).await.unwrap();
    assert_eq!((owned(&edited, "two"), owned(&edited, "edit")), (&Value::Null, &json!({"f:port": {}})));
}

#[tokio::test]
async fn autoscalers_are_owned_under_their_paths_in_both_versions() {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    let send = async |version: &str, name: &str, verb: Verb| {
        let plural = "horizontalpodautoscalers";
        let resource = Resource::new("autoscaling", version, "HorizontalPodAutoscaler", plural, true);
        let namespace = "default".to_owned();
        let request = Request { resource, namespace, name: name.to_owned(), subresource: String::new(), verb };
        client.request(request).await?.value()
    };
    let scaler = |version: &str, more: Value| {
        let mut spec =
            json!({"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec})
    };
    let cpu = |percent: i64| {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]})
    };
    let old = || scaler("v1", json!({"targetCPUUtilizationPercentage": 70}));
    send("v1", "h", applying(old(), "one", false)).await.unwrap();
    let refused = send("v2", "h", applying(scaler("v2", cpu(60)), "two", false)).await.unwrap_err();
    let conflict = "Apply failed with 1 conflict: conflict with \"one\": .spec.targetCPUUtilizationPercentage";
    assert_eq!((refused.code(), refused.to_string().as_str()), (409, conflict));
    // Who wants the same shares it: it stays until neither of them wants it.
    send("v2", "h", applying(scaler("v2", cpu(70)), "two", false)).await.unwrap();
    let left = send("v1", "h", applying(scaler("v1", json!({})), "one", false)).await.unwrap();
    assert_eq!(left["spec"]["targetCPUUtilizationPercentage"], 70);
    let gone = send("v2", "h", applying(scaler("v2", json!({})), "two", false)).await.unwrap();
    let metric = &gone["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"];
    assert_eq!(metric, 80, "the default is back");
    // What one takes by force the other has no more.
    send("v2", "h", applying(scaler("v2", cpu(60)), "two", false)).await.unwrap();
    let forced = send("v1", "h", applying(old(), "one", true)).await.unwrap();
    assert_eq!(forced["spec"]["targetCPUUtilizationPercentage"], 70);
    assert_eq!(owned(&forced, "two").get("f:metrics"), None);
    assert_eq!(owned(&forced, "one")["f:targetCPUUtilizationPercentage"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_an_operators_versions() {
    let Some(cluster) = Cluster::start().await else { return };
    let (port, ca) = webhook().await;
    let conversion = format!(
        "conversion: {{strategy: Webhook, webhook: {{conversionReviewVersions: [v1], clientConfig: {{url: 'https://127.0.0.1:{port}/', \
         caBundle: {}}}}}}}",
        STANDARD.encode(ca)
    );
    let definition = DATABASES.replace("conversion: {strategy: None}", &conversion);
    assert_ne!(definition, DATABASES);
    cluster.ok("apply --server-side -f -", &definition).await;
    cluster.ok("wait --for=condition=Established crd --all --timeout=30s", "").await;
    let database = |version: &str, name: &str, image: &str| {
        format!(
            "apiVersion: db.example.com/{version}\nkind: Database\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{instances: 3, image: '{image}', storage: {{size: 10Gi}}}}\n"
        )
    };
    let old = database("v1beta1", "old", "db:16");
    let applied = cluster
        .ok("apply --server-side -f -", &[&old, "---\n", &database("v1", "new", "registry.example.com/db:17")].concat())
        .await;
    assert_eq!(applied.matches("serverside-applied").count(), 2, "{applied}");
    // Each is shown in each version, alone and in lists.
    for (version, images) in
        [("v1", "registry.example.com/db:17 registry.example.com/db:16"), ("v1beta1", "db:17 db:16")]
    {
        let list = cluster
            .ok(&format!("get databases.{version}.db.example.com -o jsonpath={{.items[*].spec.image}}"), "")
            .await;
        assert!(list.starts_with(images), "{version}: {list}");
    }
    // Applied again nothing changes; applied with a change, the change is stored in the other version.
    let version = "get databases.v1.db.example.com old -o jsonpath={.metadata.resourceVersion}";
    let before = cluster.ok(version, "").await;
    cluster.ok("apply --server-side -f -", &old).await;
    assert_eq!(cluster.ok(version, "").await, before);
    cluster.ok("apply --server-side -f -", &database("v1beta1", "old", "db:18")).await;
    let image = "get databases.v1.db.example.com old -o jsonpath={.spec.image}";
    assert_eq!(cluster.ok(image, "").await, "registry.example.com/db:18");
    let (applied, conflict) =
        cluster.run("apply --server-side --field-manager=other -f -", &database("v1beta1", "old", "db:19")).await;
    assert!(
        !applied && conflict.contains("conflict with \"kubectl\"") && conflict.contains(".spec.image"),
        "{conflict}"
    );
}
