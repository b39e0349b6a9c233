use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod() -> std::sync::Arc<Schema> {
    Schema::builtin("", "v1", "Pod").unwrap()
}

fn patched(current: Value, patch: Value) -> Value {
    apply(&patch, &current, &pod()).unwrap()
}

fn spec(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn kubernetes_merges_like_this() {
    for (why, current, patch, expected) in [
        (
            "items merge by key, new ones come first",
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
        ),
        (
            "null removes, also from items",
            json!({"hostNetwork": true, "containers": [{"name": "a", "image": "1", "tty": true}]}),
            json!({"hostNetwork": null, "containers": [{"name": "a", "tty": null}]}),
            json!({"containers": [{"name": "a", "image": "1"}]}),
        ),
        (
            "nulls of new objects go",
            json!({}),
            json!({"securityContext": {"runAsUser": 1, "runAsGroup": null}, "containers": [{"name": "a", "tty": null}]}),
            json!({"securityContext": {"runAsUser": 1}, "containers": [{"name": "a"}]}),
        ),
        (
            "an item is deleted",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "delete", "name": "a"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "a deleted item that is not there is nothing",
            json!({}),
            json!({"containers": [{"$patch": "delete", "name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "a list is replaced",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}]}),
        ),
        (
            "a map is replaced",
            json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
            json!({"securityContext": {"$patch": "replace", "runAsUser": 3}}),
            json!({"securityContext": {"runAsUser": 3}}),
        ),
        (
            "a map is emptied",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "delete"}}),
            json!({"securityContext": {}}),
        ),
        (
            "a list without a strategy is replaced",
            json!({"containers": [{"name": "a", "command": ["x", "y"]}]}),
            json!({"containers": [{"name": "a", "command": ["z"]}]}),
            json!({"containers": [{"name": "a", "command": ["z"]}]}),
        ),
        (
            "retainKeys drops the union's other members",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        (
            "order is set for all items",
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "x"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "1"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "1"}, {"name": "x"}]}),
        ),
        (
            "order alone reorders",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        ),
        (
            "order with a deletion",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"$patch": "delete", "name": "a"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
    ] {
        assert_eq!(patched(spec(current), spec(patch)), spec(expected), "{why}");
    }
}

#[test]
fn lists_of_scalars_merge_as_sets() {
    let current = json!({"metadata": {"finalizers": ["a", "b"]}});
    let add = json!({"metadata": {"finalizers": ["c", "a"]}});
    assert_eq!(patched(current.clone(), add)["metadata"]["finalizers"], json!(["c", "a", "b"]));
    let remove =
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}});
    assert_eq!(patched(current, remove)["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn bad_patches_are_refused() {
    for (patch, code, message) in [
        (json!({"containers": [{"image": "x"}]}), 500, "map: map[image:x] does not contain declared merge key: name"),
        (json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}), 400, BAD_RETAIN_KEYS),
        (json!({"$setElementOrder/containers": 1}), 400, BAD_ORDER),
        (json!({"securityContext": {"$patch": "jump"}}), 500, "unknown patch type: \"jump\" in map: map[$patch:jump]"),
    ] {
        let status = apply(&spec(patch), &spec(json!({"securityContext": {}})), &pod()).unwrap_err();
        assert_eq!((status.code, status.message.as_deref()), (Some(code), Some(message)));
    }
    let patch = json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]});
    assert!(apply(&spec(patch), &spec(json!({})), &pod()).is_err());
}

/// Containers with unique names, some fields each.
fn containers() -> impl Strategy<Value = Vec<Value>> {
    let container = (prop::option::of("[x-z]"), prop::option::of(any::<bool>()));
    prop::collection::btree_map("[a-e]", container, 0..5)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|list| {
            list.into_iter()
                .map(|(name, (image, tty))| {
                    let mut item = json!({"name": name});
                    if let Some(image) = image {
                        item["image"] = image.into();
                    }
                    if let Some(tty) = tty {
                        item["tty"] = tty.into();
                    }
                    item
                })
                .collect()
        })
}

/// The strategic merge patch from one list of containers to another, as kubectl makes it.
fn diff(from: &[Value], to: &[Value]) -> Value {
    let name = |item: &Value| item["name"].clone();
    let find = |list: &[Value], item: &Value| list.iter().find(|other| name(other) == name(item)).cloned();
    let mut changes = Vec::new();
    for new in to {
        let Some(old) = find(from, new) else {
            changes.push(new.clone());
            continue;
        };
        let mut change = json!({"name": name(new)});
        for field in ["image", "tty"] {
            if old.get(field) != new.get(field) {
                change[field] = new[field].clone();
            }
        }
        changes.push(change);
    }
    for old in from.iter().filter(|old| find(to, old).is_none()) {
        changes.push(json!({"$patch": "delete", "name": name(old)}));
    }
    let order: Vec<_> = to.iter().map(|item| json!({"name": name(item)})).collect();
    json!({"$setElementOrder/containers": order, "containers": changes})
}

proptest! {
    #[test]
    fn a_patch_leads_from_one_list_to_the_other(from in containers(), to in containers()) {
        let patch = diff(&from, &to);
        let result = patched(spec(json!({"containers": from})), spec(patch));
        prop_assert_eq!(result, spec(json!({"containers": to})));
    }
}
