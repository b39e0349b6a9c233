//! The verbs: what they do, what they answer, how they fail.

use serde_json::json;

use super::{Suite, body, config_maps, own};
use crate::{DeleteOptions, ListOptions, Patch, Preconditions, Verb, WriteOptions};

pub(super) async fn all(suite: &Suite) {
    for check in 0..4 {
        suite.clear().await;
        match check {
            0 => objects_are_complete(suite).await,
            1 => writes_are_guarded(suite).await,
            2 => patches_change_parts(suite).await,
            _ => lists_are_snapshots(suite).await,
        }
    }
}

async fn objects_are_complete(suite: &Suite) {
    let made = suite.create("a", "1").await;
    for object in [made.clone(), suite.request("a", Verb::Get).await.expect("get")] {
        assert_eq!((object.api_version(), object.kind()), ("v1", "ConfigMap"));
        let meta = object.meta();
        assert_eq!((meta.name.as_str(), meta.namespace.as_str()), ("a", suite.namespace.as_str()));
        assert!(!meta.uid.is_empty() && meta.creation_timestamp.is_some() && object.revision() > 0);
    }
    let list = suite.client.list(&config_maps(), &suite.namespace, own()).await.expect("list");
    assert_eq!(list.items.len(), 1);
    let listed = &list.items[0];
    assert_eq!((listed.api_version(), listed.kind()), ("v1", "ConfigMap"), "objects in lists are complete");
    assert_eq!(listed.meta(), made.meta());
    assert!(list.resource_version.parse::<u64>().is_ok_and(|version| version >= made.revision()));
}

async fn writes_are_guarded(suite: &Suite) {
    let options = WriteOptions::default;
    let first = suite.create("a", "1").await;
    let again = suite.request("", Verb::Create(body("a", "2"), options())).await.expect_err("the name is taken");
    assert!(again.is_already_exists(), "{again}");
    let missing = suite.request("nope", Verb::Get).await.expect_err("there is none");
    assert!(missing.is_not_found(), "{missing}");

    let mut changed = first.value().expect("JSON");
    changed["data"]["value"] = "2".into();
    let second = suite.request("a", Verb::Update(changed.clone(), options())).await.expect("update");
    assert_ne!(second.meta().resource_version, first.meta().resource_version);
    let stale = suite.request("a", Verb::Update(changed, options())).await.expect_err("that version is gone");
    assert!(stale.is_conflict(), "{stale}");

    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    suite.request("", Verb::Create(body("dry", "1"), dry)).await.expect("a dry run succeeds");
    let dry = suite.request("dry", Verb::Get).await.expect_err("a dry run stores nothing");
    assert!(dry.is_not_found(), "{dry}");

    let wrong = body("Not_A_Name", "1");
    let wrong = suite.request("", Verb::Create(wrong, options())).await.expect_err("no valid name");
    assert!(wrong.is_invalid(), "{wrong}");

    let other = Preconditions { uid: Some("other".to_owned()), resource_version: None };
    let guarded = DeleteOptions { preconditions: other, ..DeleteOptions::default() };
    let refused = suite.request("a", Verb::Delete(guarded)).await.expect_err("another uid");
    assert!(refused.is_conflict(), "{refused}");
    suite.request("a", Verb::Delete(DeleteOptions::default())).await.expect("delete");
    let gone = suite.request("a", Verb::Delete(DeleteOptions::default())).await.expect_err("it is gone");
    assert!(gone.is_not_found(), "{gone}");
    let new = suite.create("a", "3").await;
    assert_ne!(new.meta().uid, first.meta().uid, "a new object of the same name is another");
}

async fn patches_change_parts(suite: &Suite) {
    suite.create("a", "1").await;
    let options = WriteOptions::default;
    let merge = Patch::merge(json!({"data": {"x": "y", "value": null}}));
    let merged = suite.request("a", Verb::Patch(merge, options())).await.expect("merge patch");
    assert_eq!(merged.value().expect("JSON")["data"], json!({"x": "y"}));
    let operations =
        json!([{"op": "test", "path": "/data/x", "value": "y"}, {"op": "add", "path": "/data/z", "value": "w"}]);
    let patched = suite.request("a", Verb::Patch(Patch::json(operations), options())).await.expect("JSON patch");
    assert_eq!(patched.value().expect("JSON")["data"], json!({"x": "y", "z": "w"}));
    let strategic = Patch::strategic(json!({"metadata": {"labels": {"more": "1"}}}));
    let patched = suite.request("a", Verb::Patch(strategic, options())).await.expect("strategic merge patch");
    assert_eq!(patched.meta().labels["more"], "1");

    let applied = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "labels": {super::LABEL: "1"}}, "data": {"k": value}});
    let apply = |value: &str| Patch::apply(applied(value));
    let one = || WriteOptions::manager("one");
    suite.request("b", Verb::Patch(apply("1"), one())).await.expect("an apply makes what is missing");
    suite.request("b", Verb::Patch(apply("2"), one())).await.expect("a manager changes its own fields");
    let taken = suite.request("b", Verb::Patch(apply("3"), WriteOptions::manager("two"))).await;
    assert!(taken.expect_err("the field is another's").is_conflict());
    let forced = suite.request("b", Verb::Patch(apply("3").force(), WriteOptions::manager("two"))).await;
    assert_eq!(forced.expect("a forced apply wins").value().expect("JSON")["data"]["k"], "3");
}

async fn lists_are_snapshots(suite: &Suite) {
    for i in 0..7 {
        suite.create(&format!("c{i}"), if i % 2 == 0 { "even" } else { "odd" }).await;
    }
    let (client, namespace) = (&suite.client, suite.namespace.as_str());
    let mut page = client.list(&config_maps(), namespace, ListOptions { limit: 3, ..own() }).await.expect("list");
    assert_eq!(page.items.len(), 3);
    let version = page.resource_version.clone();
    suite.request("c6", Verb::Delete(DeleteOptions::default())).await.expect("delete");
    suite.create("c33", "new").await;
    let mut names: Vec<String> = Vec::new();
    loop {
        names.extend(page.items.iter().map(|object| object.meta().name.clone()));
        if page.continue_token.is_empty() {
            break;
        }
        let next = ListOptions { limit: 3, continue_token: page.continue_token, ..own() };
        page = client.list(&config_maps(), namespace, next).await.expect("the next page");
        assert_eq!(page.resource_version, version, "all pages are of one version");
    }
    assert_eq!(names, (0..7).map(|i| format!("c{i}")).collect::<Vec<_>>(), "the state of the first page, in order");
    let odd = ListOptions::labels(format!("{}=odd", super::LABEL).parse().expect("a selector"));
    assert_eq!(client.list(&config_maps(), namespace, odd).await.expect("list").items.len(), 3);
    let named = ListOptions { fields: "metadata.name=c1".parse().expect("a selector"), ..ListOptions::default() };
    assert_eq!(client.list(&config_maps(), namespace, named).await.expect("list").items.len(), 1);
    let bad = ListOptions { continue_token: "%".to_owned(), ..ListOptions::default() };
    assert_eq!(client.list(&config_maps(), namespace, bad).await.expect_err("no token").code(), 400);
}
