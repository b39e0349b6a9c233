//! What a world looks like, but for what may differ from one run to another.

use std::collections::{BTreeMap, BTreeSet};

use rk_api::{ListOptions, testing::TestControlPlane};
use serde_json::Value;

/// The objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Collection {
    pub api_version: String,
    pub kind: String,
}

/// The objects of these collections, in an order that does not depend on names made up.
pub(super) async fn state(control_plane: &TestControlPlane, collections: &BTreeSet<Collection>) -> Vec<String> {
    let (mut objects, mut made_up) = (Vec::new(), BTreeMap::new());
    for Collection { api_version, kind } in collections {
        let resource = control_plane.server().resource_of(api_version, kind);
        let resource = resource.unwrap_or_else(|| panic!("no {kind} of {api_version} is served"));
        let list = control_plane.client().list(&resource, "", ListOptions::default()).await;
        for object in list.unwrap_or_else(|error| panic!("list {kind}: {error}")).items {
            let mut value = object.value().unwrap_or_else(|error| panic!("{object:?}: {error}"));
            let meta = &value["metadata"];
            if let (Some(name), Some(stem)) = (meta["name"].as_str(), meta["generateName"].as_str()) {
                made_up.insert(name.to_owned(), format!("{stem}..."));
            }
            forget(&mut value, &mut made_up);
            objects.push(value.to_string());
        }
    }
    for object in &mut objects {
        for (name, instead) in &made_up {
            *object = object.replace(name.as_str(), instead);
        }
    }
    objects.sort_unstable();
    objects
}

/// Takes out times, what counts versions, and lists that are empty, which is as if they were not there; and notes uids.
fn forget(value: &mut Value, made_up: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for field in ["managedFields", "resourceVersion", "generation", "observedGeneration"] {
                fields.remove(field);
            }
            if let Some(uid) = fields.get("uid").and_then(Value::as_str) {
                made_up.insert(uid.to_owned(), "a uid".to_owned());
            }
            fields.retain(|_, field| field.as_array().is_none_or(|items| !items.is_empty()));
            fields.values_mut().for_each(|field| forget(field, made_up));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| forget(item, made_up)),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => "a time".clone_into(text),
        _ => {}
    }
}
