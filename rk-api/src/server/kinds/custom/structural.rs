//! What a schema of a custom resource must be: structural, so that what is stored can be pruned and defaulted
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>,
//! apiextensions' `schema/validation.go` and `validation.go`).

use regex::Regex;
use serde_json::Value;

use super::super::{
    field::{Errors, Path},
    value::Peek,
};
use crate::server::schema::Schema;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// The logical junctors, which judge values and say nothing of their structure.
const JUNCTORS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Judges the root schema of a version.
pub(super) fn root(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    match schema.text("type") {
        "object" => {}
        "" => errors.required(&path.child("type"), "must not be empty at the root"),
        other => errors.invalid(&path.child("type"), other, "must be object at the root"),
    }
    if schema.flag("nullable") {
        errors.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    metadata(schema, path, errors);
    node(schema, path, errors);
}

/// A flag or text that is one key, dots and all.
fn value<'v>(schema: &'v Value, key: &str) -> &'v Value {
    schema.get(key).unwrap_or(&Value::Null)
}

fn is(schema: &Value, key: &str) -> bool {
    value(schema, key) == true
}

/// Whether the schema says what values are there.
fn typed(schema: &Value) -> bool {
    !schema.text("type").is_empty() || is(schema, INT_OR_STRING) || is(schema, PRESERVE)
}

fn node(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = schema.text("type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &TYPES);
    }
    if is(schema, INT_OR_STRING) && !kind.is_empty() {
        errors.invalid(&path.child("type"), kind, "must be empty if x-kubernetes-int-or-string is true");
    }
    if value(schema, PRESERVE) == false {
        errors.invalid(&path.child(PRESERVE), &false, "must be true or undefined");
    }
    if is(schema, PRESERVE) && !matches!(kind, "" | "object") {
        errors.invalid(&path.child("type"), kind, "must be object if x-kubernetes-preserve-unknown-fields is true");
    }
    if is(schema, EMBEDDED) {
        embedded(schema, kind, path, errors);
    }
    forbidden(schema, path, errors);
    fields(schema, path, errors);
    list(schema, kind, path, errors);
    if let Some(map) = schema.get(MAP_TYPE).and_then(Value::as_str) {
        errors.one_of(&path.child(MAP_TYPE), map, &["atomic", "granular"]);
        if kind != "object" {
            errors.invalid(&path.child("type"), kind, "must be object if x-kubernetes-map-type is specified");
        }
    }
    values(schema, path, errors);
    for junctor in JUNCTORS {
        let list = path.child(junctor);
        for (i, part) in schema.list(junctor).iter().enumerate() {
            judging(part, (schema, path), &list.index(i), errors);
        }
    }
    if schema.has("not") {
        judging(schema.at("not"), (schema, path), &path.child("not"), errors);
    }
}

fn embedded(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "object" => {}
        "" => errors.required(&path.child("type"), "must be object if x-kubernetes-embedded-resource is true"),
        other => errors.invalid(&path.child("type"), other, "must be object if x-kubernetes-embedded-resource is true"),
    }
    if !is(schema, PRESERVE) && schema.entries("properties").next().is_none() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&path.child("properties"), why);
    }
    metadata(schema, path, errors);
}

/// Of the metadata of whole objects only names may be restricted.
fn metadata(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metadata = schema.at("properties.metadata");
    if metadata.is_null() {
        return;
    }
    let properties = path.child("properties");
    let path = properties.key("metadata");
    if metadata.text("type") != "object" {
        errors.invalid(&path.child("type"), metadata.text("type"), "must be object");
    }
    let properties = path.child("properties");
    for (name, property) in metadata.entries("properties") {
        if !matches!(name.as_str(), "name" | "generateName") {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.forbidden(&properties, why);
        } else if property.has("default") {
            errors.forbidden(&properties.key(name).child("default"), "must not be set in metadata");
        }
    }
}

fn forbidden(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if schema.flag("uniqueItems") {
        errors.forbidden(
            &path.child("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    for field in ["definitions", "dependencies", "patternProperties", "additionalItems", "id", "$schema"] {
        if schema.get(field).is_some_and(|value| !value.is_null()) {
            errors.forbidden(&path.child(field), &format!("{field} is not supported"));
        }
    }
    if schema.get("$ref").is_some() {
        errors.forbidden(&path.child("$ref"), "$ref is not supported");
    }
}

fn fields(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let properties = path.child("properties");
    for (name, child) in schema.entries("properties") {
        let path = properties.key(name);
        if !typed(child) {
            errors.required(&path.child("type"), "must not be empty for specified object fields");
        }
        node(child, &path, errors);
    }
    let others = path.child("additionalProperties");
    match schema.at("additionalProperties") {
        Value::Bool(false) => errors.forbidden(&others, "additionalProperties cannot be set to false"),
        additional @ Value::Object(_) => {
            if !typed(additional) {
                errors.required(&others.child("type"), "must not be empty for specified object fields");
            }
            node(additional, &others, errors);
        }
        _ => {}
    }
    if schema.has("additionalProperties") && schema.entries("properties").next().is_some() {
        errors.forbidden(&others, "additionalProperties and properties are mutual exclusive");
    }
}

fn list(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let (items, items_path) = (schema.at("items"), path.child("items"));
    match items {
        Value::Null if kind == "array" => errors.required(&items_path, "must be specified"),
        Value::Array(_) => errors.forbidden(&items_path, "items must be a schema object and not an array"),
        Value::Object(_) => {
            if !typed(items) {
                errors.required(&items_path.child("type"), "must not be empty for specified array items");
            }
            node(items, &items_path, errors);
        }
        _ => {}
    }
    let keys: Vec<&str> = value(schema, LIST_KEYS).as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let list_type = value(schema, LIST_TYPE).as_str().unwrap_or_default();
    errors.one_of(&path.child(LIST_TYPE), list_type, &["atomic", "map", "set"]);
    if !list_type.is_empty() && kind != "array" {
        errors.invalid(&path.child("type"), kind, "must be array if x-kubernetes-list-type is specified");
    }
    if !keys.is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        if list_type.is_empty() {
            errors.required(&path.child(LIST_TYPE), why);
        } else {
            errors.invalid(&path.child(LIST_TYPE), list_type, why);
        }
    }
    match list_type {
        "map" => map_keys(schema, &keys, path, errors),
        "set" => {
            if items.flag("nullable") {
                errors
                    .forbidden(&items_path.child("nullable"), "cannot be nullable when x-kubernetes-list-type is set");
            }
            let atomic = value(items, LIST_TYPE) == "atomic" || value(items, MAP_TYPE) == "atomic";
            if matches!(items.text("type"), "object" | "array") && !atomic {
                let field = if items.text("type") == "object" { MAP_TYPE } else { LIST_TYPE };
                let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
                errors.required(&items_path.child(field), why);
            }
        }
        _ => {}
    }
}

fn map_keys(schema: &Value, keys: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if keys.is_empty() {
        errors.required(&path.child(LIST_KEYS), "must not be empty if x-kubernetes-list-type is map");
    }
    let (items, items_path) = (schema.at("items"), path.child("items"));
    if items.text("type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&items_path.child("type"), items.text("type"), why);
        return;
    }
    let properties = items_path.child("properties");
    for (i, key) in keys.iter().enumerate() {
        if keys[..i].contains(key) {
            errors.duplicate(&path.child(LIST_KEYS).index(i), *key);
        }
        let property = items.at("properties").get(*key).unwrap_or(&Value::Null);
        if property.is_null() {
            let why = "entries must all be names of item properties";
            errors.invalid(&path.child(LIST_KEYS), value(schema, LIST_KEYS), why);
            continue;
        }
        let property_path = properties.key(key);
        if matches!(property.text("type"), "object" | "array") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&property_path.child("type"), property.text("type"), why);
        }
        let required = items.list("required").iter().any(|name| name == key);
        if !required && property.get("default").is_none() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&property_path.child("default"), why);
        }
    }
}

/// Patterns compile, and defaults are values of the schema.
fn values(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let pattern = schema.text("pattern");
    if let Err(error) = Regex::new(pattern) {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim();
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.child("pattern"), pattern, &why);
    }
    let Some(default) = schema.get("default").filter(|default| !(default.is_null() && schema.flag("nullable"))) else {
        return;
    };
    errors.extend(Schema::judge_default(schema, default, &path.child("default").to_string()));
}

/// What a part of a junctor says nothing of.
const STRUCTURE: [&str; 12] = [
    "type",
    "additionalProperties",
    "default",
    "title",
    "description",
    "nullable",
    PRESERVE,
    EMBEDDED,
    INT_OR_STRING,
    LIST_TYPE,
    LIST_KEYS,
    MAP_TYPE,
];

/// A part of a junctor: it may restrict values, and name fields that the schema around it, at its own path, has.
fn judging(part: &Value, (outside, home): (&Value, &Path<'_>), path: &Path<'_>, errors: &mut Errors) {
    let int_or_string = is(outside, INT_OR_STRING);
    for field in STRUCTURE {
        let set = part.get(field).is_some_and(|value| !value.is_null() && *value != false);
        // What an int-or-string is, in words of OpenAPI.
        if set && !(field == "type" && int_or_string) {
            errors.forbidden(&path.child(field), "must be empty to be structural");
        }
    }
    forbidden(part, path, errors);
    values(part, path, errors);
    let properties = path.child("properties");
    for (name, child) in part.entries("properties") {
        let path = properties.key(name);
        let known = outside.at("properties").get(name);
        let fields = home.child("properties");
        match (known, outside.at("additionalProperties")) {
            (Some(known), _) => judging(child, (known, &fields.key(name)), &path, errors),
            (None, others @ Value::Object(_)) => {
                judging(child, (others, &home.child("additionalProperties")), &path, errors);
            }
            (None, _) if is(outside, PRESERVE) => {}
            (None, _) => errors.required(&fields.key(name), &format!("because it is defined in {path}")),
        }
    }
    if part.at("items").is_object() && outside.at("items").is_object() {
        judging(part.at("items"), (outside.at("items"), &home.child("items")), &path.child("items"), errors);
    }
    for junctor in JUNCTORS {
        let list = path.child(junctor);
        for (i, inner) in part.list(junctor).iter().enumerate() {
            judging(inner, (outside, home), &list.index(i), errors);
        }
    }
    if part.has("not") {
        judging(part.at("not"), (outside, home), &path.child("not"), errors);
    }
}
