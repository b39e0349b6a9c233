//! The server in one process, through its client: the verbs, watches, and what guards them.
#![cfg(feature = "server")]

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, Pod},
};
use rk_api::{
    Api, Client, DeleteOptions, ListOptions, Patch, Preconditions, Propagation, Request, Resource, TypedEvent, Verb,
    WatchEvent, WatchOptions, WriteOptions,
    server::{Server, UserInfo},
};
use rk_store::MemoryStore;
use serde_json::{Value, json};

async fn server() -> (Server, Arc<dyn Client>) {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    let client = server.client(UserInfo::loopback());
    for namespace in ["default", "other"] {
        let body = json!({"metadata": {"name": namespace}});
        let _ = send::<Namespace>(&client, "", "", "", Verb::Create(body, WriteOptions::default())).await;
    }
    (server, client)
}

/// Sends a request about one object and reads the answer as a tree.
async fn send<K: rk_api::ResourceType>(
    client: &Arc<dyn Client>,
    namespace: &str,
    name: &str,
    subresource: &str,
    verb: Verb,
) -> Result<Value, rk_api::Error> {
    let request = Request {
        resource: Resource::of::<K>(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        verb,
    };
    client.request(request).await?.value()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"v": value}}, "data": {"k": value}})).unwrap()
}

#[tokio::test]
async fn an_object_lives_through_all_verbs() {
    let (_server, client) = server().await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let made = api.create(&config_map("a", "1")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert!(api.create(&config_map("a", "1")).await.unwrap_err().is_already_exists());
    assert!(Arc::ptr_eq(&made, &api.get("a").await.unwrap()), "one decode for all readers");

    let mut changed = (*made).clone();
    changed.data = Some([("k".to_owned(), "2".to_owned())].into());
    let changed = api.update(&changed).await.unwrap();
    assert!(api.update(&made).await.unwrap_err().is_conflict());
    let same = api.update(&changed).await.unwrap();
    assert_eq!(same.metadata.resource_version, changed.metadata.resource_version, "no change, no write");

    let patched = api.patch("a", Patch::merge(json!({"data": {"k": null, "l": "3"}}))).await.unwrap();
    assert_eq!(patched.data.as_ref().unwrap().iter().next().unwrap(), (&"l".to_owned(), &"3".to_owned()));
    let gone = DeleteOptions {
        preconditions: Preconditions { uid: Some("other".to_owned()), resource_version: None },
        ..DeleteOptions::default()
    };
    assert!(api.delete("a", gone).await.unwrap_err().is_conflict());
    api.delete("a", DeleteOptions::default()).await.unwrap();
    assert!(api.get("a").await.unwrap_err().is_not_found());
    assert!(api.delete("a", DeleteOptions::default()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn lists_are_snapshots_in_pages() {
    let (_server, client) = server().await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    for i in 0..10 {
        api.create(&config_map(&format!("c{i}"), if i % 2 == 0 { "even" } else { "odd" })).await.unwrap();
    }
    let first = api.list(ListOptions { limit: 4, ..ListOptions::default() }).await.unwrap();
    assert_eq!(first.items.len(), 4);
    api.delete("c5", DeleteOptions::default()).await.unwrap();
    api.create(&config_map("c44", "new")).await.unwrap();
    let mut names: Vec<_> = first.items.iter().map(|c| c.metadata.name.clone().unwrap()).collect();
    let mut token = first.continue_token;
    while !token.is_empty() {
        let page = api.list(ListOptions { limit: 4, continue_token: token, ..ListOptions::default() }).await.unwrap();
        assert_eq!(page.resource_version, first.resource_version);
        names.extend(page.items.iter().map(|c| c.metadata.name.clone().unwrap()));
        token = page.continue_token;
    }
    assert_eq!(names, (0..10).map(|i| format!("c{i}")).collect::<Vec<_>>(), "the state of the first page");
    let odd = api.list(ListOptions::labels("v=odd".parse().unwrap())).await.unwrap();
    assert_eq!(odd.items.len(), 4);
    let bad = api.list(ListOptions { continue_token: "x".to_owned(), ..ListOptions::default() }).await.unwrap_err();
    assert_eq!(bad.code(), 400);
}

#[tokio::test]
async fn watches_see_every_change_and_crossings_of_selectors() {
    let (_server, client) = server().await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    api.create(&config_map("a", "1")).await.unwrap();
    let options = WatchOptions { labels: "v=1".parse().unwrap(), ..WatchOptions::default() };
    let mut events = api.watch(options).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(TypedEvent::Added(_)))));
    api.patch("a", Patch::merge(json!({"data": {"x": "y"}}))).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(TypedEvent::Modified(_)))));
    let left = api.patch("a", Patch::merge(json!({"metadata": {"labels": {"v": "2"}}}))).await.unwrap();
    match events.next().await {
        Some(Ok(TypedEvent::Deleted(last))) => {
            assert_eq!(last.metadata.resource_version, left.metadata.resource_version);
            assert_eq!(last.metadata.labels.as_ref().unwrap()["v"], "1");
        }
        other => panic!("{other:?}"),
    }
    api.patch("a", Patch::merge(json!({"metadata": {"labels": {"v": "1"}}}))).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(TypedEvent::Added(_)))));
    api.delete("a", DeleteOptions::default()).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(TypedEvent::Deleted(_)))));
}

#[tokio::test(start_paused = true)]
async fn watches_send_initial_events_bookmarks_and_end() {
    let (_server, client) = server().await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    api.create(&config_map("a", "1")).await.unwrap();
    let options = WatchOptions {
        bookmarks: true,
        send_initial_events: Some(true),
        timeout_seconds: 90,
        ..WatchOptions::default()
    };
    let events = client.watch(&Resource::of::<ConfigMap>(), "", options).await.unwrap();
    let seen: Vec<_> = events.map(Result::unwrap).collect().await;
    assert!(matches!(&seen[0], WatchEvent::Added(object) if object.meta().name == "a"));
    assert!(matches!(&seen[1], WatchEvent::Bookmark { initial_end: true, .. }));
    assert!(matches!(&seen[2], WatchEvent::Bookmark { initial_end: false, .. }));
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_watch_without_initial_events_begins_now() {
    let (_server, client) = server().await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    api.create(&config_map("before", "1")).await.unwrap();
    for version in ["", "0"] {
        let options = WatchOptions {
            resource_version: version.to_owned(),
            send_initial_events: Some(false),
            ..WatchOptions::default()
        };
        let mut events = client.watch(&Resource::of::<ConfigMap>(), "", options).await.unwrap();
        api.create(&config_map(&format!("after{version}"), "1")).await.unwrap();
        let first = events.next().await.unwrap().unwrap();
        let object = first.object().unwrap();
        assert_eq!(object.meta().name, format!("after{version}"), "with version {version:?}");
    }
}

#[tokio::test]
async fn status_and_spec_are_apart_and_generation_counts_the_spec() {
    let (_server, client) = server().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": template}});
    let options = WriteOptions::default;
    let made = send::<Deployment>(&client, "default", "", "", Verb::Create(body, options())).await.unwrap();
    assert_eq!(made["metadata"]["generation"], 1);
    let patch = Patch::merge(json!({"spec": {"replicas": 7}, "status": {"replicas": 2}}));
    let status = send::<Deployment>(&client, "default", "d", "status", Verb::Patch(patch, options())).await.unwrap();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(1), &json!(2)));
    assert_eq!(status["metadata"]["generation"], 1);
    let patch = Patch::merge(json!({"spec": {"replicas": 5}, "status": {"replicas": 9}}));
    let spec = send::<Deployment>(&client, "default", "d", "", Verb::Patch(patch, options())).await.unwrap();
    assert_eq!((&spec["spec"]["replicas"], &spec["status"]["replicas"]), (&json!(5), &json!(2)));
    assert_eq!(spec["metadata"]["generation"], 2);
    let scale = Patch::merge(json!({"spec": {"replicas": 3}}));
    let scale = send::<Deployment>(&client, "default", "d", "scale", Verb::Patch(scale, options())).await.unwrap();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(scale["status"]["selector"], "a=b");
    let read = send::<Deployment>(&client, "default", "d", "scale", Verb::Get).await.unwrap();
    assert_eq!(read["metadata"]["resourceVersion"], scale["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn finalizers_hold_an_object_back() {
    let (_server, client) = server().await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    api.create(&config_map("a", "1")).await.unwrap();
    let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    api.delete("a", foreground).await.unwrap();
    let waiting = api.get("a").await.unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    assert_eq!(waiting.metadata.finalizers.as_deref(), Some(&["foregroundDeletion".to_owned()][..]));
    // What is going gets no new reason to stay.
    let more = json!({"metadata": {"finalizers": ["foregroundDeletion", "example.com/late"]}});
    let refused = api.patch("a", Patch::merge(more)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "ConfigMap \"a\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
         being deleted, found new finalizers []string{\"example.com/late\"}"
    );
    api.patch("a", Patch::merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    assert!(api.get("a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn pods_of_a_job_stay_unless_its_delete_says_otherwise() {
    let (_server, client) = server().await;
    let api = Api::<Job>::namespaced(client.clone(), "default");
    let with = |propagation| DeleteOptions { propagation, ..DeleteOptions::default() };
    for (asked, finalizer) in [
        (None, Some("orphan")),
        (Some(Propagation::Orphan), Some("orphan")),
        (Some(Propagation::Foreground), Some("foregroundDeletion")),
        (Some(Propagation::Background), None),
    ] {
        let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        send::<Job>(&client, "default", "", "", Verb::Create(job, WriteOptions::default())).await.unwrap();
        api.delete("j", with(asked)).await.unwrap();
        let held = api.get_opt("j").await.unwrap().map(|job| job.metadata.finalizers.clone().unwrap_or_default());
        assert_eq!(held, finalizer.map(|finalizer| vec![finalizer.to_owned()]), "{asked:?}");
        if held.is_some() {
            // A later delete that says nothing leaves the first one's choice.
            api.delete("j", with(None)).await.unwrap();
            assert_eq!(api.get("j").await.unwrap().metadata.finalizers, held);
            api.patch("j", Patch::merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let (_server, client) = server().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let options = WriteOptions::default;
    send::<Pod>(&client, "default", "", "", Verb::Create(pod, options())).await.unwrap();
    let mut binding = json!({"metadata": {"labels": {"a b": ""}}, "target": {"kind": "Node", "name": "n1"}});
    let wrong = send::<Pod>(&client, "default", "p", "binding", Verb::Create(binding.clone(), options())).await;
    let wrong = wrong.unwrap_err();
    assert!(wrong.is_invalid() && wrong.to_string().contains("metadata.labels"), "{wrong}");
    binding["metadata"]["labels"] = json!({"a": "b"});
    send::<Pod>(&client, "default", "p", "binding", Verb::Create(binding.clone(), options())).await.unwrap();
    let pod = send::<Pod>(&client, "default", "p", "", Verb::Get).await.unwrap();
    assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["labels"]["a"]), (&json!("n1"), &json!("b")));
    // No manager owns what a binding sets.
    assert_eq!(owners(&pod, "/f:spec/f:nodeName"), Vec::<String>::new());
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    let again = send::<Pod>(&client, "default", "p", "binding", Verb::Create(binding, options())).await.unwrap_err();
    assert!(again.is_conflict());
    let on_node = ListOptions { fields: "spec.nodeName=n1".parse().unwrap(), ..ListOptions::default() };
    assert_eq!(client.list(&Resource::of::<Pod>(), "", on_node).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn names_are_generated() {
    let (_server, client) = server().await;
    let body = json!({"metadata": {"generateName": "a-"}});
    let made =
        send::<ConfigMap>(&client, "default", "", "", Verb::Create(body, WriteOptions::default())).await.unwrap();
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("a-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn many_writers_of_one_object_lose_nothing() {
    let (_server, client) = server().await;
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    api.create(&config_map("a", "1")).await.unwrap();
    let writers = (0..20).map(|i| {
        let api = api.clone();
        tokio::spawn(
            async move { api.patch("a", Patch::merge(json!({"data": {format!("w{i}"): "x"}}))).await.unwrap() },
        )
    });
    futures::future::join_all(writers).await;
    assert_eq!(api.get("a").await.unwrap().data.as_ref().unwrap().len(), 21);
}

/// An apply by a manager.
fn applying(manager: &str, body: Value, force: bool) -> Verb {
    let patch = if force { Patch::apply(body).force() } else { Patch::apply(body) };
    Verb::Patch(patch, WriteOptions::manager(manager))
}

/// The managers of an object: name, operation, subresource and version of each that owns the field at a pointer of `FieldsV1`.
fn owners(object: &Value, field: &str) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let of = entries.iter().filter(|entry| entry["fieldsV1"].pointer(field).is_some());
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    of.map(|e| ["manager", "operation", "subresource", "apiVersion"].map(|key| text(e, key)).join(" ")).collect()
}

#[tokio::test]
async fn scale_and_status_are_applied_by_managers_of_their_own() {
    let (_server, client) = server().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let send = async |subresource: &str, verb| send::<Deployment>(&client, "default", "d", subresource, verb).await;
    send("", applying("ci", body.clone(), false)).await.unwrap();
    let scale = |replicas: i32| {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "default"},
            "spec": {"replicas": replicas}})
    };
    let replicas = "/f:spec/f:replicas";
    let error = send("scale", applying("hpa", scale(3), false)).await.unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"ci\": .spec.replicas");
    let rk_api::Error::Api(status) = &error else { panic!("{error:?}") };
    let causes = status.details.as_ref().unwrap().causes.as_ref().unwrap();
    assert_eq!(
        (causes[0].field.as_deref(), causes[0].message.as_deref()),
        (Some(".spec.replicas"), Some("conflict with \"ci\""))
    );

    let shown = send("scale", applying("hpa", scale(3), true)).await.unwrap();
    assert_eq!((&shown["spec"]["replicas"], shown["metadata"].get("managedFields")), (&json!(3), None));
    let now = send("", Verb::Get).await.unwrap();
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(3), &json!(2)));
    assert_eq!(owners(&now, replicas), ["hpa Apply scale apps/v1"]);
    assert_eq!(owners(&now, "/f:spec/f:template/f:metadata"), ["ci Apply - apps/v1"]);

    // Applying the same again writes nothing; agreeing shares the field; leaving it out gives it up.
    send("scale", applying("hpa", scale(3), false)).await.unwrap();
    assert_eq!(send("", Verb::Get).await.unwrap()["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"]);
    let error = send("", applying("ci", body.clone(), false)).await.unwrap_err();
    let why = "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\": .spec.replicas";
    assert_eq!(error.to_string(), why);
    let mut agreeing = body.clone();
    agreeing["spec"]["replicas"] = json!(3);
    let shared = send("", applying("ci", agreeing, false)).await.unwrap();
    assert_eq!(owners(&shared, replicas).len(), 2);
    let mut without = body;
    without["spec"].as_object_mut().unwrap().remove("replicas");
    let left = send("", applying("ci", without, false)).await.unwrap();
    assert_eq!((owners(&left, replicas).len(), &left["spec"]["replicas"]), (1, &json!(3)));
    let other = send("scale", applying("hpa", json!({"apiVersion": "apps/v1", "kind": "Deployment"}), true)).await;
    assert_eq!(other.unwrap_err().code(), 400);

    let status = |replicas: i32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"paused": true},
            "status": {"replicas": replicas}})
    };
    let told = send("status", applying("controller", status(2), false)).await.unwrap();
    assert_eq!((&told["status"]["replicas"], told["spec"].get("paused")), (&json!(2), None));
    assert_eq!(owners(&told, "/f:status/f:replicas"), ["controller Apply status apps/v1"]);
    assert!(owners(&told, "/f:spec/f:paused").is_empty());
    let error = send("status", applying("other", status(3), false)).await.unwrap_err();
    let why =
        "Apply failed with 1 conflict: conflict with \"controller\" with subresource \"status\": .status.replicas";
    assert_eq!(error.to_string(), why);
    let forced = send("status", applying("other", status(3), true)).await.unwrap();
    assert_eq!(owners(&forced, "/f:status/f:replicas"), ["other Apply status apps/v1"]);
}
