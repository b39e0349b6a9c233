//! `components.schemas`: the definitions that the paths need, with their descriptions.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use serde_json::{Map, Value, json, value::RawValue};

use super::Entry;
use crate::{
    Resource,
    server::schema::{definition_name, gunzip, load_definitions},
};

const DESCRIPTIONS: &[u8] = include_bytes!("../../../data/descriptions.json.gz");
const KINDS: &str = "x-kubernetes-group-version-kind";
/// How a document refers to a definition.
pub(super) const REFERENCE: &str = "#/components/schemas/";

/// The names of the built-in definitions by kind.
pub(super) struct Names(HashMap<(String, String, String), String>);

impl Names {
    pub(super) fn read() -> Self {
        let mut names = HashMap::new();
        for (name, schema) in load_definitions() {
            for kind in schema[KINDS].as_array().into_iter().flatten() {
                let text = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
                names.insert((text("group"), text("version"), text("kind")), name.clone());
            }
        }
        Self(names)
    }

    /// The definition of a built-in kind.
    pub(super) fn builtin(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        self.0.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).map(String::as_str)
    }

    /// The definition of a row's kind, or of its list: `com.example.stable.v1.CronTab` for a custom resource.
    pub(super) fn of<'a>(&'a self, resource: &Resource, suffix: &str) -> Cow<'a, str> {
        let Resource { group, version, kind, .. } = resource;
        let kind = format!("{kind}{suffix}");
        if let Some(name) = self.builtin(group, version, &kind) {
            return name.into();
        }
        let reversed: Vec<_> = group.rsplit('.').filter(|part| !part.is_empty()).collect();
        let mut parts = reversed;
        parts.extend([&**version, &kind]);
        parts.join(".").into()
    }
}

/// The definitions that the paths refer to, and those that these refer to.
pub(super) fn of<'a>(paths: &Map<String, Value>, entries: impl IntoIterator<Item = &'a Entry>) -> Map<String, Value> {
    let mut all = load_definitions();
    let names = Names::read();
    for entry in entries {
        for (name, schema) in custom(entry, &names) {
            all.entry(name).or_insert(schema);
        }
    }
    let mut wanted = Vec::new();
    paths.values().for_each(|path| references(path, &mut wanted));
    let mut found = Map::new();
    while let Some(name) = wanted.pop() {
        if let Some(schema) = all.remove(&name) {
            references(&schema, &mut wanted);
            found.insert(name, schema);
        }
    }
    describe(&mut found);
    found
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner.as_str() {
                    Some(reference) if key == "$ref" => found.push(definition_name(reference).to_owned()),
                    _ => references(inner, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

/// Puts the descriptions back that the table of schemas does without.
fn describe(schemas: &mut Map<String, Value>) {
    let text = gunzip(DESCRIPTIONS);
    let all: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(&text).expect("the tables built in are JSON objects");
    for (name, schema) in schemas {
        let Some(raw) = all.get(name.as_str()) else { continue };
        let (own, fields): (String, HashMap<String, String>) =
            serde_json::from_str(raw.get()).expect("the table of descriptions has one form");
        if !own.is_empty() {
            schema["description"] = own.into();
        }
        for (field, description) in fields {
            schema["properties"][field]["description"] = description.into();
        }
    }
}

/// The definitions that a row brings itself: its kind and its list, where they are not built in.
fn custom(entry: &Entry, names: &Names) -> Vec<(String, Value)> {
    let resource = &entry.resource;
    let Resource { group, version, kind, .. } = resource;
    if names.builtin(group, version, kind).is_some() {
        return Vec::new();
    }
    let name = names.of(resource, "").into_owned();
    let own = json!([{"group": group, "version": version, "kind": kind}]);
    let mut schema = match &entry.schema {
        Some(schema) if schema.is_object() => schema.clone(),
        _ => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    head(&mut schema, "ObjectMeta");
    schema[KINDS] = own;
    let mut list = json!({
        "type": "object",
        "description": format!("{kind}List is a list of {kind}"),
        "required": ["items"],
        "properties": {"items": {
            "type": "array",
            "description": format!("List of {}.", resource.plural),
            "items": {"$ref": format!("{REFERENCE}{name}")},
        }},
        KINDS: [{"group": group, "version": version, "kind": format!("{kind}List")}],
    });
    head(&mut list, "ListMeta");
    vec![(name, schema), (names.of(resource, "List").into_owned(), list)]
}

/// Adds the fields that every object has.
fn head(schema: &mut Value, metadata: &str) {
    let conventions = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = json!({});
    }
    properties["apiVersion"] = json!({
        "type": "string",
        "description": format!("APIVersion defines the versioned schema of this representation of an object. More info: {conventions}#resources"),
    });
    properties["kind"] = json!({
        "type": "string",
        "description": format!("Kind is a string value representing the REST resource this object represents. More info: {conventions}#types-kinds"),
    });
    properties["metadata"] = json!({
        "allOf": [{"$ref": format!("{REFERENCE}io.k8s.apimachinery.pkg.apis.meta.v1.{metadata}")}],
        "description": format!("Standard object's metadata. More info: {conventions}#metadata"),
    });
}
