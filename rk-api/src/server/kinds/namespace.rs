//! Namespaces: they live until every finalizer of their spec is gone.

use serde_json::{Value, json};

use super::{
    cells::{between, column},
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, object_mut, set},
};
use crate::server::{Column, UserInfo};

/// The rules of Namespaces.
pub const RULES: Rules = Rules { default, create, update, validate, validate_change, has_status: true, ..Rules::NONE };

/// The columns of Namespaces.
pub fn columns() -> Vec<Column> {
    between([column("Status", "string", |namespace| namespace.text("status.phase").into())], [])
}

/// Every namespace carries its name as a label, so that selectors can name it.
fn default(namespace: &mut Value) {
    let name = namespace.text("metadata.name").to_owned();
    if !name.is_empty()
        && let Some(labels) = object_mut(namespace, "metadata.labels")
    {
        set(labels, "kubernetes.io/metadata.name", name);
    }
}

fn create(namespace: &mut Value, _: &UserInfo) {
    set(namespace, "status", json!({"phase": "Active"}));
    let Some(spec) = object_mut(namespace, "spec") else { return };
    if !spec.list("finalizers").iter().any(|finalizer| finalizer == "kubernetes") {
        let mut finalizers = spec.list("finalizers").to_vec();
        finalizers.push("kubernetes".into());
        set(spec, "finalizers", finalizers);
    }
}

/// The finalizers of the spec change only through `finalize`.
fn update(new: &mut Value, old: &Value, subresource: &str) {
    if subresource != "finalize" {
        set(new, "spec", old.at("spec").clone());
    }
}

fn validate(namespace: &Value, errors: &mut Errors) {
    let list = Path::Root.child("spec.finalizers");
    for finalizer in namespace.list("spec.finalizers").iter().filter_map(Value::as_str) {
        errors.invalid_all(&list, finalizer, names::qualified_name(finalizer));
        if !finalizer.contains('/') && finalizer != "kubernetes" {
            errors.invalid(&list, finalizer, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

fn validate_change(new: &Value, _old: &Value, subresource: &str, errors: &mut Errors) {
    if subresource == "status" {
        let path = Path::Root.child("status.Phase");
        let (phase, ending) = (new.text("status.phase"), new.has("metadata.deletionTimestamp"));
        if !ending && phase != "Active" {
            errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
        } else if ending && phase != "Terminating" {
            errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
    }
}
