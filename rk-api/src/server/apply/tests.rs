use futures::FutureExt;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::*;

const NOW: &str = "2024-01-01T00:00:00Z";
const LATER: &str = "2024-01-01T00:01:00Z";

fn manager(name: &str) -> Manager<'_> {
    Manager { name, subresource: "", api_version: "apps/v1", now: NOW, force: false }
}

fn deployment() -> Arc<Schema> {
    Schema::builtin("apps", "v1", "Deployment").unwrap()
}

/// A kind with one version.
pub(super) struct One;

#[async_trait::async_trait]
impl Versions for One {
    fn has(&self, _: &str) -> bool {
        false
    }

    fn schema(&self, _: &str) -> Option<Arc<Schema>> {
        None
    }

    async fn convert(&self, _: Value, to: &str) -> Result<Value, Error> {
        Err(Error::Transport(format!("there is no version {to}")))
    }
}

/// Nobody is asked where there is one version only.
pub(super) fn done<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().unwrap()
}

fn apply(live: Option<&Value>, applied: &Value, manager: Manager<'_>) -> Result<Value, Status> {
    done(server_side_apply(live, applied, &manager, Some(&deployment()), &One)).map_err(|error| match error {
        Error::Api(status) => *status,
        other => panic!("{other}"),
    })
}

fn update(old: Option<&Value>, mut new: Value, manager: Manager<'_>) -> Value {
    deployment().apply_defaults(&mut new);
    done(track_update(old, &mut new, &manager, Some(&deployment()), &One));
    new
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    &entries.iter().find(|entry| entry["manager"] == manager).unwrap()["fieldsV1"]
}

fn wanted(replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

#[test]
fn an_update_owns_what_kubernetes_says_it_owns() {
    let created = update(None, wanted(1, "a"), manager("kubectl-create"));
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}}},
                    },
                },
            },
        }])
    );
}

#[test]
fn an_update_takes_what_it_changes_and_nothing_else() {
    let created = update(None, wanted(1, "a"), manager("one"));
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = json!(2);
    let scaled = update(Some(&created), scaled, Manager { now: LATER, ..manager("two") });
    assert_eq!(fields(&scaled, "two"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&scaled, "one")["f:spec"].get("f:replicas"), None);
    let same = update(Some(&scaled), scaled.clone(), Manager { now: "2025-01-01T00:00:00Z", ..manager("one") });
    assert_eq!(same, scaled);
    let mut forgotten = scaled.clone();
    forgotten["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(update(Some(&scaled), forgotten, manager("one")), scaled);
}

#[test]
fn a_status_belongs_to_its_subresource() {
    let created = update(None, wanted(1, "a"), manager("one"));
    let mut ready = created.clone();
    ready["status"] = json!({"readyReplicas": 1});
    let status = Manager { subresource: "status", ..manager("controller") };
    let ready = update(Some(&created), ready, status);
    assert_eq!(fields(&ready, "controller"), &json!({"f:status": {"f:readyReplicas": {}}}));
    assert_eq!(ready["metadata"]["managedFields"][0]["subresource"], "status");
}

#[test]
fn managed_fields_can_be_handed_over_and_reset() {
    let created = update(None, wanted(1, "a"), manager("one"));
    let mut handed = created.clone();
    handed["metadata"]["managedFields"][0]["manager"] = json!("other");
    assert_eq!(update(Some(&created), handed.clone(), manager("one")), handed);
    let mut reset = created.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(update(Some(&created), reset, manager("one"))["metadata"].get("managedFields"), None);
    let mut broken = created.clone();
    broken["metadata"]["managedFields"][0]["operation"] = json!("Jump");
    assert_eq!(update(Some(&created), broken, manager("one")), created);
}

#[test]
fn the_oldest_updaters_become_one() {
    let mut object = update(None, wanted(0, "a"), manager("m0"));
    for number in 1..15 {
        let mut new = object.clone();
        new["metadata"]["labels"][format!("l{number}")] = json!("x");
        let (name, now) = (format!("m{number}"), format!("2024-01-02T00:00:{number:02}Z"));
        object = update(Some(&object), new, Manager { now: &now, ..manager(&name) });
    }
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 10);
    assert_eq!(fields(&object, "ancient-changes")["f:metadata"]["f:labels"]["f:l5"], json!({}));
}

#[test]
fn an_apply_owns_what_it_names() {
    let applied = apply(None, &wanted(1, "a"), manager("one")).unwrap();
    assert_eq!(applied["spec"], wanted(1, "a")["spec"]);
    assert_eq!(
        applied["metadata"]["managedFields"][0]["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}},
                },
            },
        })
    );
    let again = apply(Some(&applied), &wanted(1, "a"), Manager { now: LATER, ..manager("one") }).unwrap();
    assert_eq!(again, applied);
}

#[test]
fn conflicts_name_the_manager_and_the_field() {
    let created = update(None, wanted(1, "a"), manager("kubectl-client-side-apply"));
    let status = apply(Some(&created), &wanted(2, "a"), manager("two")).unwrap_err();
    assert_eq!((status.code, status.reason.as_deref()), (Some(409), Some("Conflict")));
    assert_eq!(
        status.message.as_deref(),
        Some(
            r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#
        )
    );
    let cause = &status.details.unwrap().causes.unwrap()[0];
    assert_eq!(cause.reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!(cause.field.as_deref(), Some(".spec.replicas"));
    assert_eq!(cause.message.as_deref(), Some(r#"conflict with "kubectl-client-side-apply" using apps/v1"#));

    let status = apply(Some(&created), &wanted(2, "b"), manager("two")).unwrap_err();
    assert_eq!(
        status.message.unwrap(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image"
    );
    let forced = apply(Some(&created), &wanted(2, "a"), Manager { force: true, ..manager("two") }).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(fields(&forced, "kubectl-client-side-apply")["f:spec"].get("f:replicas"), None);
    assert_eq!(fields(&forced, "two")["f:spec"]["f:replicas"], json!({}));
}

#[test]
fn what_is_applied_no_more_goes_unless_others_own_it() {
    let mut first = wanted(1, "a");
    first["metadata"]["labels"]["x"] = json!("1");
    first["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]);
    let live = apply(None, &first, manager("one")).unwrap();
    let live = apply(
        Some(&live),
        &json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1},
        }),
        manager("two"),
    )
    .unwrap();
    let mut second = first.clone();
    second["metadata"]["labels"].as_object_mut().unwrap().remove("x");
    second["spec"].as_object_mut().unwrap().remove("replicas");
    second["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "B", "value": "1"}]);
    let live = apply(Some(&live), &second, manager("one")).unwrap();
    assert_eq!(live["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(live["spec"]["replicas"], 1);
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["env"], json!([{"name": "B", "value": "1"}]));
    assert_eq!(fields(&live, "one")["f:spec"].get("f:replicas"), None);
}

#[test]
fn what_was_there_before_the_first_apply_is_owned() {
    let live = wanted(1, "a");
    let status = apply(Some(&live), &wanted(2, "a"), manager("one")).unwrap_err();
    assert!(status.message.unwrap().contains(r#"conflict with "before-first-apply" using apps/v1"#));
}

#[test]
fn what_does_not_fit_the_schema_is_refused() {
    for (path, value, why) in [
        ("/spec/foo", json!(1), ".spec.foo: field not declared in schema"),
        ("/spec/replicas", json!("x"), ".spec.replicas: expected numeric (int or float), got \"x\""),
        (
            "/spec/template/spec/containers/0/foo",
            json!(1),
            r#".spec.template.spec.containers[name="c"].foo: field not declared in schema"#,
        ),
        (
            "/spec/template/spec/containers",
            json!([{"name": "c"}, {"name": "c"}]),
            r#".spec.template.spec.containers: duplicate entries for key [name="c"]"#,
        ),
    ] {
        let mut applied = wanted(1, "a");
        let (parent, field) = path.rsplit_once('/').unwrap();
        applied.pointer_mut(parent).unwrap()[field] = value;
        let message = apply(None, &applied, manager("one")).unwrap_err().message.unwrap();
        assert_eq!(message, format!("failed to create typed patch object (/web; apps/v1, Kind=Deployment): {why}"));
    }
    let mut applied = wanted(1, "a");
    applied["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(apply(None, &applied, manager("one")).unwrap_err().code, Some(400));
}

#[test]
fn without_a_schema_maps_merge_and_lists_are_one() {
    let object = |spec: Value| json!({"apiVersion": "e.com/v1", "kind": "E", "metadata": {"name": "a"}, "spec": spec});
    let apply = |live: Option<&Value>, spec: Value, name: &str| {
        done(server_side_apply(live, &object(spec), &manager(name), None, &One))
    };
    let one = apply(None, json!({"a": 1, "list": [1, 2]}), "one").unwrap();
    let two = apply(Some(&one), json!({"b": 2}), "two").unwrap();
    assert_eq!(two["spec"], json!({"a": 1, "b": 2, "list": [1, 2]}));
    let refused = apply(Some(&two), json!({"list": [3]}), "two").unwrap_err();
    assert!(refused.to_string().ends_with(".spec.list"));
}

/// One manager's wish: which of four labels it sets, and to what.
type Wish = BTreeMap<String, String>;

fn wishes() -> impl Strategy<Value = Vec<(u8, Wish, bool)>> {
    let wish = prop::collection::btree_map("[a-d]", "[x-y]", 0..4);
    prop::collection::vec((0..3_u8, wish, any::<bool>()), 1..12)
}

proptest! {
    /// Labels under random applies against a model: a value and a set of owners per label.
    #[test]
    fn ownership_follows_the_model(wishes in wishes()) {
        let mut model: BTreeMap<String, (String, BTreeSet<u8>)> = BTreeMap::new();
        let mut live: Option<Value> = None;
        for (who, wish, force) in wishes {
            let name = format!("m{who}");
            let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": wish}});
            let result = apply(live.as_ref(), &applied, Manager { force, ..manager(&name) });
            let conflict = wish.iter().any(|(label, value)| {
                model.get(label).is_some_and(|(old, owners)| old != value && owners.iter().any(|owner| *owner != who))
            });
            prop_assert_eq!(result.is_err(), conflict && !force);
            let Ok(object) = result else { continue };
            for (label, value) in &wish {
                let entry = model.entry(label.clone()).or_default();
                if entry.0 != *value {
                    *entry = (value.clone(), BTreeSet::new());
                }
                entry.1.insert(who);
            }
            model.retain(|label, (_, owners)| {
                if !wish.contains_key(label) {
                    owners.remove(&who);
                }
                !owners.is_empty()
            });
            let labels: BTreeMap<_, _> = model.iter().map(|(label, (value, _))| (label.clone(), json!(value))).collect();
            let found = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
            prop_assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), labels);
            for owner in 0..3 {
                let name = format!("m{owner}");
                let owned: BTreeSet<_> = model.iter().filter(|(_, (_, owners))| owners.contains(&owner)).map(|(label, _)| format!("f:{label}")).collect();
                let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
                let entry = entries.iter().find(|entry| entry["manager"] == *name);
                let recorded = entry.and_then(|entry| entry["fieldsV1"]["f:metadata"]["f:labels"].as_object()).cloned().unwrap_or_default();
                prop_assert_eq!(recorded.keys().filter(|key| *key != ".").cloned().collect::<BTreeSet<_>>(), owned);
            }
            live = Some(object);
        }
    }

    /// After an update the sets together are exactly what was tracked, each path with one owner.
    #[test]
    fn updates_leave_each_field_one_owner(updates in prop::collection::vec((0..3_u8, prop::collection::btree_map("[a-d]", "[x-y]", 0..4)), 1..10)) {
        let mut live: Option<Value> = None;
        for (who, labels) in updates {
            let new = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": labels}, "spec": {"replicas": 1}});
            let new = update(live.as_ref(), new, manager(&format!("m{who}")));
            let mut owned = Vec::new();
            for entry in new["metadata"]["managedFields"].as_array().unwrap() {
                let labels = entry["fieldsV1"]["f:metadata"]["f:labels"].as_object().cloned().unwrap_or_default();
                owned.extend(labels.keys().filter(|key| *key != ".").map(|key| key[2..].to_owned()));
            }
            owned.sort();
            prop_assert_eq!(owned, labels.keys().cloned().collect::<Vec<_>>());
            live = Some(new);
        }
    }
}

/// Trees that look like workloads here and there.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c1]{0,3}".prop_map(Value::from),
    ];
    let key = "(apiVersion|kind|metadata|labels|managedFields|finalizers|spec|template|containers|name|ports|containerPort|env|selector|strategy|volumes|status|conditions|[$]patch|[$]retainKeys|[$]setElementOrder/containers|items|type|properties|required)";
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Nothing that comes from outside makes any of this panic.
    #[test]
    fn arbitrary_trees_never_panic(live in tree(), new in tree()) {
        use crate::{PatchKind, server::{patch, schema::Schema}};

        let builtin = deployment();
        let custom = Schema::from_crd(&new).or_else(|_| Schema::from_crd(&live)).ok();
        for schema in [Some(&builtin), custom.as_ref(), None].map(|schema| schema.map(|schema| &**schema)) {
            for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
                if let Ok(patched) = patch::apply(kind, &new, &live, schema) {
                    let _ = patch::check(kind, &new, patched, schema, "Strict");
                }
            }
            let _ = done(server_side_apply(Some(&live), &new, &manager("one"), schema, &One));
            let _ = done(server_side_apply(None, &new, &manager("one"), schema, &One));
            let mut tracked = new.clone();
            done(track_update(Some(&live), &mut tracked, &manager("one"), schema, &One));
            if let Some(schema) = schema {
                schema.apply_defaults(&mut tracked);
                schema.normalize(&mut tracked);
                schema.validate(&tracked, None);
            }
        }
    }
}
