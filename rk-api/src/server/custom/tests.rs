//! What a change of a definition makes anew.

use std::sync::Arc;

use rk_store::MemoryStore;
use serde_json::{Value, json};

use super::{super::Server, Core};
use crate::Object;

fn definition() -> Value {
    let rule = json!([{"rule": "self.size > 0"}]);
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"size": {"type": "integer"}}, "x-kubernetes-validations": rule}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [version("v1", true), version("v2", false)]}})
}

/// Shows a changed definition to the server.
fn show(core: &Arc<Core>, change: impl Fn(&mut Value)) {
    let collection = core.cache.collection("apiextensions.k8s.io/customresourcedefinitions");
    let stored = collection.select("", &crate::LabelSelector::everything());
    let mut value = stored[0].value().unwrap();
    change(&mut value);
    core.define(&Object::from_value(&value).unwrap(), true);
}

#[tokio::test]
async fn only_what_changed_of_a_definition_is_made_anew() {
    let server = Server::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    server.define(definition()).await.unwrap();
    let core = &server.core;
    let row = |version: &str| Arc::clone(core.catalog.load().get("example.com", version, "things").unwrap());
    let schema = |version: &str| row(version).schema.clone().unwrap();
    let (catalog, old, schemas) = (core.catalog.load_full(), row("v1"), [schema("v1"), schema("v2")]);

    show(core, |definition| {
        definition["status"]["conditions"][0]["message"] = "changed".into();
        definition["metadata"]["annotations"] = json!({"note": "changed"});
    });
    assert!(Arc::ptr_eq(&catalog, &core.catalog.load()), "neither rows nor documents are made anew");

    show(core, |definition| {
        definition["metadata"]["generation"] = 2.into();
        definition["spec"]["names"]["shortNames"] = json!(["th"]);
        let spec = &mut definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        spec["properties"]["color"] = json!({"type": "string"});
    });
    assert!(!Arc::ptr_eq(&old, &row("v1")));
    assert_eq!(row("v1").row.short_names, ["th"]);
    assert!(Arc::ptr_eq(&schemas[0], &schema("v1")), "with its compiled rules");
    assert!(!Arc::ptr_eq(&schemas[1], &schema("v2")));

    // Made anew under the same name, it may say the same and yet is another one.
    show(core, |definition| {
        definition["metadata"]["generation"] = 2.into();
        definition["metadata"]["uid"] = "another".into();
    });
    assert!(row("v1").row.short_names.is_empty());

    show(core, |definition| definition["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    assert!(!row("v1").allows("", "create"));
}
