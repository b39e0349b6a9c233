//! The rules of metadata: names by kind, labels, annotations, owners, finalizers.

use serde_json::Value;

use super::{
    field::{Errors, Path},
    names,
    value::Peek,
};
use crate::{Resource, server::FieldErrors};

/// The most that all annotations of an object may hold, in bytes of keys and values.
pub(crate) const MAX_ANNOTATIONS: usize = 256 << 10;

/// The broken rules of an object's metadata, its name already generated. `metadata.namespace` must be the one it is stored in.
pub fn validate_meta(object: &Value, resource: &Resource) -> FieldErrors {
    let mut errors = Errors::default();
    let path = Path::Root.child("metadata");
    let meta = object.at("metadata");
    let rule = name_rule(&resource.group, &resource.kind);
    let prefix = meta.text("generateName");
    if !prefix.is_empty() {
        errors.invalid_all(&path.child("generateName"), prefix, rule(&mask_trailing_dash(prefix)));
    }
    let name = meta.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        errors.invalid_all(&path.child("name"), name, rule(name));
    }
    let namespace = meta.text("namespace");
    if !resource.namespaced {
        if !namespace.is_empty() {
            errors.forbidden(&path.child("namespace"), "not allowed on this type");
        }
    } else if namespace.is_empty() {
        errors.required(&path.child("namespace"), "");
    } else {
        errors.invalid_all(&path.child("namespace"), namespace, names::dns_label(namespace));
    }
    errors.non_negative(&path.child("generation"), meta.int("generation"));
    labels(meta, &path.child("labels"), &mut errors);
    annotations(meta, &path.child("annotations"), &mut errors);
    owners(meta, &path.child("ownerReferences"), &mut errors);
    finalizers(meta, &path.child("finalizers"), &mut errors);
    errors.into_inner()
}

/// The broken rules of a change of an object's metadata: what is being deleted gets no new finalizers.
pub fn validate_meta_update(object: &Value, old: &Value) -> FieldErrors {
    let mut errors = Errors::default();
    if !old.text("metadata.deletionTimestamp").is_empty() {
        let known = old.list("metadata.finalizers");
        let names = object.list("metadata.finalizers").iter().filter(|finalizer| !known.contains(finalizer));
        let new: std::collections::BTreeSet<_> = names.filter_map(Value::as_str).collect();
        if !new.is_empty() {
            let shown = new.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
            );
            errors.forbidden(&Path::Root.child("metadata").child("finalizers"), &detail);
        }
    }
    errors.into_inner()
}

/// The rules of the `labels` of `parent`.
pub fn labels(parent: &Value, path: &Path<'_>, errors: &mut Errors) {
    label_map(parent.at("labels"), path, errors);
}

/// The rules of a map of labels.
pub fn label_map(map: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in map.as_object().into_iter().flatten() {
        errors.invalid_all(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        errors.invalid_all(path, value, names::label_value(value));
    }
}

/// The rules of the `annotations` of `parent`.
pub fn annotations(parent: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in parent.entries("annotations") {
        if key.bytes().any(|c| c.is_ascii_uppercase()) {
            errors.invalid_all(path, key, names::qualified_name(&key.to_ascii_lowercase()));
        } else {
            errors.invalid_all(path, key, names::qualified_name(key));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(path, MAX_ANNOTATIONS);
    }
}

fn owners(meta: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut controller = String::new();
    for owner in meta.list("ownerReferences") {
        let version = owner.text("apiVersion").rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            errors.invalid(&path.child("apiVersion"), owner.text("apiVersion"), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                errors.invalid(&path.child(field), "", "must not be empty");
            }
        }
        if owner.text("apiVersion") == "v1" && owner.text("kind") == "Event" {
            errors.invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            if controller.is_empty() {
                controller = this;
            } else {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {controller} and {this}"
                );
                errors.invalid(path, meta.at("ownerReferences"), &detail);
            }
        }
    }
}

fn finalizers(meta: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = meta.list("finalizers");
    for finalizer in list.iter().filter_map(Value::as_str) {
        errors.invalid_all(path, finalizer, names::qualified_name(finalizer));
    }
    let has = |name: &str| list.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(path, meta.at("finalizers"), "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// The syntax of a kind's names.
pub fn name_rule(group: &str, kind: &str) -> fn(&str) -> Vec<String> {
    match (group, kind) {
        ("", "Namespace") | ("apps", "StatefulSet") => names::dns_label,
        ("", "Service") => names::dns1035_label,
        ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", "APIService") => names::path_segment,
        ("batch", "CronJob") => cron_job_name,
        ("networking.k8s.io", "IPAddress") => names::ip_name,
        _ => names::dns_subdomain,
    }
}

/// The Jobs of a CronJob append 11 characters to its name, and must stay within 63.
fn cron_job_name(name: &str) -> Vec<String> {
    let mut errors = names::dns_subdomain(name);
    if name.len() > 52 {
        errors.push("must be no more than 52 characters".to_owned());
    }
    errors
}

/// A prefix may end in a dash, as something will follow it.
fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(head) if !head.is_empty() => format!("{head}a"),
        _ => prefix.to_owned(),
    }
}
