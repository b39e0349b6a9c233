//! Events: of the core group, and as `events.k8s.io` shows the same objects.

use serde_json::Value;

use super::{
    cells::{NAME, age, column, wide},
    field::{Errors, Path},
    names,
    rules::Rules,
    value::Peek,
};
use crate::server::Column;

/// The rules of Events.
pub const EVENT: Rules = Rules { validate, ..Rules::NONE };

/// The fields of core Events that a field selector may name.
pub const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// The fields of Events of `events.k8s.io` that a field selector may name.
pub const NEW_SELECTABLE: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// The columns of Events.
pub fn columns() -> Vec<Column> {
    vec![
        column("Last Seen", "string", |event| last_seen(event).into()),
        column("Type", "string", |event| event.text("type").into()),
        column("Reason", "string", |event| event.text("reason").into()),
        column("Object", "string", |event| object(event).into()),
        wide("Subobject", "string", |event| regarding(event).text("fieldPath").into()),
        wide("Source", "string", |event| source(event).into()),
        column("Message", "string", |event| message(event).trim().into()),
        wide("First Seen", "string", |event| age(first_time(event)).into()),
        wide("Count", "string", |event| count(event).into()),
        Column { priority: 1, ..NAME },
    ]
}

/// The first of these fields that is there: the two groups name them differently.
fn either<'a>(event: &'a Value, fields: [&str; 2]) -> &'a Value {
    let first = event.at(fields[0]);
    if first.is_null() { event.at(fields[1]) } else { first }
}

fn regarding(event: &Value) -> &Value {
    either(event, ["involvedObject", "regarding"])
}

fn message(event: &Value) -> &str {
    either(event, ["message", "note"]).as_str().unwrap_or_default()
}

fn object(event: &Value) -> String {
    let object = regarding(event);
    let kind = object.text("kind").to_lowercase();
    if object.text("name").is_empty() { kind } else { format!("{kind}/{}", object.text("name")) }
}

fn first_time(event: &Value) -> &str {
    match either(event, ["firstTimestamp", "deprecatedFirstTimestamp"]).as_str() {
        Some(time) if !time.is_empty() => time,
        _ => event.text("eventTime"),
    }
}

fn last_seen(event: &Value) -> String {
    let last = either(event, ["lastTimestamp", "deprecatedLastTimestamp"]).as_str().unwrap_or_default();
    let series = event.text("series.lastObservedTime");
    let time = [series, last, first_time(event)].into_iter().find(|time| !time.is_empty());
    age(time.unwrap_or_default())
}

fn count(event: &Value) -> i64 {
    let plain = either(event, ["count", "deprecatedCount"]).as_i64().unwrap_or(0);
    event.int("series.count").unwrap_or(plain.max(1))
}

fn source(event: &Value) -> String {
    let source = either(event, ["source", "deprecatedSource"]);
    let reporter = either(event, ["reportingComponent", "reportingController"]).as_str().unwrap_or_default();
    let component = if source.text("component").is_empty() { reporter } else { source.text("component") };
    let host = if source.text("host").is_empty() { event.text("reportingInstance") } else { source.text("host") };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

/// Objects of the cluster have their Events in `default`, or, by newer clients, in `kube-system`.
fn validate(event: &Value, errors: &mut Errors) {
    let namespace = event.text("metadata.namespace");
    let new_group = event.has("regarding");
    let field = if new_group { "regarding" } else { "involvedObject" };
    let about = regarding(event).text("namespace");
    let path = Path::Root.child(field);
    let matches = if about.is_empty() { matches!(namespace, "default" | "kube-system") } else { about == namespace };
    if !matches {
        errors.invalid(&path.child("namespace"), about, "does not match event.namespace");
    }
    if !namespace.is_empty() {
        errors.invalid_all(&Path::Root.child("metadata.namespace"), namespace, names::dns_label(namespace));
    }
    if event.text("apiVersion") == "events.k8s.io/v1" {
        strict(event, errors);
    }
}

/// The stricter rules of `events.k8s.io`.
fn strict(event: &Value, errors: &mut Errors) {
    let root = Path::Root;
    if event.text("eventTime").is_empty() {
        errors.required(&root.child("eventTime"), "");
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&root.child("type"), "", &format!("has invalid value: {kind}"));
    }
    let controller = event.text("reportingController");
    if controller.is_empty() {
        errors.required(&root.child("reportingController"), "");
    } else {
        errors.invalid_all(&root.child("reportingController"), controller, names::qualified_name(controller));
    }
    for (field, limit) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let value = event.text(field);
        if value.is_empty() {
            errors.required(&root.child(field), "");
        } else if value.len() > limit {
            errors.invalid(&root.child(field), value, &format!("can have at most {limit} characters"));
        }
    }
    if event.text("note").len() > 1024 {
        errors.invalid(&root.child("message"), event.text("note"), "can have at most 1024 characters");
    }
}
