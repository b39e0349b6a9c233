//! Custom resources: defined, served, printed and deleted while the server runs.
#![cfg(feature = "server")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use rk_api::{
    Client, DeleteOptions, ListOptions, Patch, Request, Resource, Verb, WatchEvent, WatchOptions, WriteOptions,
    server::{Attributes, Authorizer, Decision, Server, UserInfo, plugins::OwnerReferencesPermissionEnforcement},
};
use rk_store::{MemoryStore, Store};
use serde_json::{Value, json};

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crons.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "crons", "singular": "cron", "kind": "Cron", "shortNames": ["cr"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["every"], "properties": {
                        "every": {"type": "string", "pattern": "^[0-9]+s$"},
                        "replicas": {"type": "integer", "default": 1, "minimum": 0}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Every", "type": "string", "jsonPath": ".spec.every"}],
                "selectableFields": [{"jsonPath": ".spec.every"}],
            }, {
                "name": "v1beta1", "served": true, "storage": false,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

fn request(version: &str, name: &str, subresource: &str, verb: Verb) -> Request {
    Request {
        resource: Resource::new("example.com", version, "Cron", "crons", true),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        verb,
    }
}

async fn defined() -> (Arc<dyn Store>, Server, Arc<dyn Client>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let server = Server::builder(Arc::clone(&store)).build().await.unwrap();
    server.define(definition()).await.unwrap();
    let client = server.client(UserInfo::loopback());
    (store, server, client)
}

async fn create(client: &Arc<dyn Client>, name: &str) -> Value {
    let body = json!({"metadata": {"name": name}, "spec": {"every": "5s", "junk": 1}, "status": {"replicas": 9}});
    let verb = Verb::Create(body, WriteOptions::default());
    client.request(request("v1", "", "", verb)).await.unwrap().value().unwrap()
}

#[tokio::test]
async fn a_defined_resource_is_served_like_a_built_in_one() {
    let (_store, _server, client) = defined().await;
    let made = create(&client, "a").await;
    assert_eq!(made["spec"], json!({"every": "5s", "replicas": 1}), "defaulted and pruned");
    assert!(made.get("status").is_none(), "a client does not make the status");
    let body = json!({"metadata": {"name": "b"}, "spec": {"every": "often", "replicas": -1}});
    let refused = client.request(request("v1", "", "", Verb::Create(body, WriteOptions::default()))).await.unwrap_err();
    assert!(refused.is_invalid() && refused.to_string().contains("spec.every"), "{refused}");

    let patch = Patch::merge(json!({"spec": {"replicas": 4}}));
    let scale = client.request(request("v1", "a", "scale", Verb::Patch(patch, WriteOptions::default()))).await.unwrap();
    assert_eq!(scale.value().unwrap()["spec"]["replicas"], 4);
    let other = client.request(request("v1beta1", "a", "", Verb::Get)).await.unwrap();
    assert_eq!(
        (other.api_version(), other.value().unwrap()["spec"]["replicas"].as_i64()),
        ("example.com/v1beta1", Some(4))
    );
    assert_eq!(other.value().unwrap()["metadata"]["generation"], 2);
}

#[tokio::test]
async fn fields_that_a_definition_names_select() {
    let (_store, _server, client) = defined().await;
    create(&client, "a").await;
    let set = |every: &str| Verb::Patch(Patch::merge(json!({"spec": {"every": every}})), WriteOptions::default());
    create(&client, "b").await;
    client.request(request("v1", "b", "", set("9s"))).await.unwrap();
    let crons = Resource::new("example.com", "v1", "Cron", "crons", true);
    let fields = |text: &str| ListOptions { fields: text.parse().unwrap(), ..ListOptions::default() };
    let list = client.list(&crons, "default", fields("spec.every=9s")).await.unwrap();
    assert_eq!(list.items.iter().map(|object| object.meta().name.as_str()).collect::<Vec<_>>(), ["b"]);

    let options = WatchOptions {
        fields: "spec.every=9s".parse().unwrap(),
        resource_version: list.resource_version,
        ..WatchOptions::default()
    };
    let mut events = client.watch(&crons, "default", options).await.unwrap();
    client.request(request("v1", "a", "", set("9s"))).await.unwrap();
    client.request(request("v1", "b", "", set("1s"))).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(object))) if object.meta().name == "a"));
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Deleted(object))) if object.meta().name == "b"));

    let refused = client.list(&crons, "default", fields("spec.replicas=1")).await.unwrap_err();
    assert_eq!((refused.code(), refused.to_string().contains("field label not supported: spec.replicas")), (400, true));
}

#[tokio::test]
async fn clients_are_warned_of_finalizers_without_a_domain() {
    let (_store, server, _client) = defined().await;
    let body = json!({"apiVersion": "example.com/v1", "kind": "Cron", "spec": {"every": "5s"},
        "metadata": {"name": "a", "finalizers": ["mine", "example.com/mine", "foregroundDeletion"]}});
    let request = http::Request::post("/apis/example.com/v1/namespaces/default/crons")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .unwrap();
    let response = server.service_as(UserInfo::loopback()).handle(request).await;
    let warnings: Vec<_> = response.headers().get_all("warning").iter().map(|text| text.to_str().unwrap()).collect();
    assert_eq!(response.status(), 201);
    let why = r#"299 - "metadata.finalizers: \"mine\": prefer a domain-qualified finalizer name including a path (/)"#;
    assert!(warnings.len() == 1 && warnings[0].starts_with(why), "{warnings:?}");
}

#[tokio::test]
async fn definitions_survive_a_restart_and_show_their_columns() {
    let (store, server, client) = defined().await;
    create(&client, "a").await;
    drop((server, client));
    let server = Server::builder(store).build().await.unwrap();
    let request = http::Request::get("/apis/example.com/v1/namespaces/default/crons")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Full::<bytes::Bytes>::default())
        .unwrap();
    let response = server.service_as(UserInfo::loopback()).handle(request).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let table: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "5s"]));
    assert_eq!(table["columnDefinitions"][1]["name"], "Every");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_definition_takes_its_objects_along() {
    let (_store, _server, client) = defined().await;
    create(&client, "a").await;
    let definitions =
        Resource::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false);
    let delete = |verb| Request {
        resource: definitions.clone(),
        namespace: String::new(),
        name: "crons.example.com".to_owned(),
        subresource: String::new(),
        verb,
    };
    client.request(delete(Verb::Delete(DeleteOptions::default()))).await.unwrap();
    while client.request(delete(Verb::Get)).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let crons = Resource::new("example.com", "v1", "Cron", "crons", true);
    while let Ok(list) = client.list(&crons, "", ListOptions::default()).await {
        assert!(list.items.is_empty());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn names_that_are_taken_are_refused() {
    let (_store, server, _client) = defined().await;
    let mut other = definition();
    other["metadata"]["name"] = "jobs2.example.com".into();
    other["spec"]["names"] = json!({"plural": "jobs2", "singular": "job2", "kind": "Cron"});
    let refused = server.define(other).await.unwrap_err();
    assert!(refused.to_string().contains("\"Cron\" is already in use"), "{refused}");
}

#[tokio::test]
async fn what_was_stored_before_a_schema_changed_is_read_in_its_new_shape() {
    let (store, server, client) = defined().await;
    let old = create(&client, "a").await;
    create(&client, "c").await;
    let mut newer = definition();
    let properties = &mut newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    properties["zone"] = json!({"type": "string", "default": "here"});
    properties.as_object_mut().unwrap().remove("replicas");
    newer["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    server.define(newer).await.unwrap();
    // A definition is served in its own time.
    let get = async |client: &Arc<dyn Client>, version: &str, name: &str| {
        client.request(request(version, name, "", Verb::Get)).await.unwrap()
    };
    while get(&client, "v1", "a").await.value().unwrap()["spec"] == old["spec"] {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let wanted = json!({"every": "5s", "zone": "here"});
    let crons = Resource::new("example.com", "v1", "Cron", "crons", true);
    let fresh = create(&client, "b").await;
    assert_eq!(fresh["spec"], wanted);
    for reads_twice in 0..2 {
        let read = get(&client, "v1", "a").await;
        assert_eq!(read.value().unwrap()["spec"], wanted, "{reads_twice}");
        assert_eq!(read.meta().resource_version, old["metadata"]["resourceVersion"], "nothing is written");
    }
    let list = client.list(&crons, "", ListOptions::default()).await.unwrap();
    assert!(list.items.iter().all(|item| item.value().unwrap()["spec"] == wanted));
    assert!(Arc::ptr_eq(&list.items[0], &get(&client, "v1", "a").await), "it is shaped once");
    let options = rk_api::WatchOptions { resource_version: "0".to_owned(), ..rk_api::WatchOptions::default() };
    let mut events = client.watch(&crons, "", options).await.unwrap();
    let first = futures::StreamExt::next(&mut events).await.unwrap().unwrap();
    assert_eq!(first.object().unwrap().value().unwrap()["spec"], wanted);
    // One that goes looks as it did before.
    client.request(request("v1", "c", "", Verb::Delete(DeleteOptions::default()))).await.unwrap();
    let gone = loop {
        if let rk_api::WatchEvent::Deleted(gone) = futures::StreamExt::next(&mut events).await.unwrap().unwrap() {
            break gone;
        }
    };
    assert_eq!(gone.value().unwrap()["spec"], wanted);
    // The other version has no such schema.
    assert_eq!(get(&client, "v1beta1", "a").await.value().unwrap()["spec"], old["spec"]);

    drop((server, client, events));
    let server = Server::builder(store).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    assert_eq!(get(&client, "v1", "a").await.value().unwrap()["spec"], wanted, "also after a restart");
    let patch = Patch::merge(json!({"spec": {"every": "6s"}}));
    let changed = client.request(request("v1", "a", "", Verb::Patch(patch, WriteOptions::default()))).await.unwrap();
    assert_eq!(changed.value().unwrap()["spec"], json!({"every": "6s", "zone": "here"}));
}

#[tokio::test]
async fn a_definition_in_a_group_of_kubernetes_own_needs_an_approval() {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    let mut own = definition();
    own["metadata"]["name"] = "crons.batch.k8s.io".into();
    own["spec"]["group"] = "batch.k8s.io".into();
    let refused = server.define(own.clone()).await.unwrap_err();
    let wanted = "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation";
    assert!(refused.is_invalid() && refused.to_string().contains(wanted), "{refused}");

    // What was not approved is served as well, if it says so.
    own["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a trial"});
    server.define(own).await.unwrap();
    let definitions =
        Resource::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false);
    let send = async |verb| {
        let (namespace, subresource) = (String::new(), String::new());
        let name = "crons.batch.k8s.io".to_owned();
        let request = Request { resource: definitions.clone(), namespace, name, subresource, verb };
        client.request(request).await.map(|object| object.value().unwrap())
    };
    let condition = async || {
        let mut found = send(Verb::Get).await.unwrap();
        let conditions = found["status"]["conditions"].as_array_mut().unwrap();
        let of_it = conditions.iter_mut().find(|one| one["type"] == "KubernetesAPIApprovalPolicyConformant").unwrap();
        ["status", "reason", "message"].map(|field| of_it[field].as_str().unwrap().to_owned())
    };
    assert_eq!(condition().await, ["False", "UnapprovedAnnotation", "not approved: \"unapproved, a trial\""]);

    let annotate = |text: Value| {
        let patch = Patch::merge(json!({"metadata": {"annotations": {"api-approved.kubernetes.io": text}}}));
        send(Verb::Patch(patch, WriteOptions::default()))
    };
    assert!(annotate(Value::Null).await.unwrap_err().is_invalid());
    annotate("https://example.com/1".into()).await.unwrap();
    let wanted = ["True", "ApprovedAnnotation", "approved in https://example.com/1"];
    // The status follows in its own time.
    while condition().await != wanted {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Lets everybody do everything but what concerns one cron, and notes what was asked.
#[derive(Default)]
struct NotTheirs(Mutex<Vec<String>>);

#[async_trait]
impl Authorizer for NotTheirs {
    async fn authorize(&self, asked: &Attributes) -> Decision {
        let Attributes { verb, group, version, resource, subresource, namespace, name, .. } = asked;
        self.0.lock().unwrap().push(format!("{verb} {group}/{version} {resource}/{subresource} {namespace}/{name}"));
        if resource == "crons" && name == "theirs" {
            Decision::NoOpinion("theirs".into())
        } else {
            Decision::Allow(String::new())
        }
    }
}

#[tokio::test]
async fn a_custom_resource_is_an_owner_that_may_block() {
    let asked = Arc::new(NotTheirs::default());
    let guard = Arc::new(OwnerReferencesPermissionEnforcement::new(Arc::clone(&asked) as Arc<dyn Authorizer>));
    let server = Server::builder(Arc::new(MemoryStore::new())).admission(guard).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    let own = async |kind: &str, name: &str| {
        let owner =
            json!({"apiVersion": "example.com/v1", "kind": kind, "name": name, "uid": "u", "blockOwnerDeletion": true});
        let body = json!({"metadata": {"generateName": "a-", "ownerReferences": [owner]}});
        let verb = Verb::Create(body, WriteOptions::default());
        let made = Request { resource: Resource::of::<ConfigMap>(), verb, ..request("", "", "", Verb::Get) };
        client.request(made).await.map_err(|refused| refused.to_string())
    };
    let unknown = "cannot find RESTMapping for APIVersion example.com/v1 Kind Cron: no matches for kind \"Cron\" in version \
                   \"example.com/v1\"";
    let refused = own("Cron", "mine").await.unwrap_err();
    assert!(
        refused.contains("is forbidden: cannot set blockOwnerDeletion in this case because ")
            && refused.ends_with(unknown),
        "{refused}"
    );

    server.define(definition()).await.unwrap();
    own("Cron", "mine").await.unwrap();
    assert_eq!(*asked.0.lock().unwrap(), ["update example.com/v1 crons/finalizers default/mine"]);
    let refused = own("Cron", "theirs").await.unwrap_err();
    assert!(refused.ends_with("you can't set finalizers on: theirs, <nil>"), "{refused}");
    own("Crown", "mine").await.unwrap_err();
}
