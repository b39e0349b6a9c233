//! ReplicaSets.

use serde_json::Value;

use crate::server::{
    Column, UserInfo,
    kinds::{
        cells::{AGE, NAME, column, container_images, container_names, number, selector, wide},
        field::{Errors, Path},
        pod::{template, warnings},
        rules::Rules,
        value::{Peek, fill, object_mut, set},
    },
};

/// The rules of ReplicaSets.
pub const REPLICA_SET: Rules = Rules {
    default,
    create,
    validate,
    validate_change,
    warn: |object, old, warnings| warnings::named_workload(object, old, "spec.template", warnings),
    has_status: true,
    pod_spec: "spec.template.spec",
    ..Rules::NONE
};

/// The columns of ReplicaSets.
pub fn replica_set_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Desired", "integer", |rs| number(rs, "spec.replicas").into()),
        column("Current", "integer", |rs| number(rs, "status.replicas").into()),
        column("Ready", "integer", |rs| number(rs, "status.readyReplicas").into()),
        AGE,
        wide("Containers", "string", |rs| container_names(rs.at("spec.template.spec"))),
        wide("Images", "string", |rs| container_images(rs.at("spec.template.spec"))),
        wide("Selector", "string", |rs| selector(rs.at("spec.selector"))),
    ]
}

fn default(set: &mut Value) {
    template::default(set, "spec.template");
    if let Some(spec) = object_mut(set, "spec") {
        fill(spec, "replicas", 1);
    }
}

fn create(replica_set: &mut Value, _: &UserInfo) {
    if let Some(status) = object_mut(replica_set, "status") {
        set(status, "replicas", 0);
    }
}

fn validate(set: &Value, errors: &mut Errors) {
    let (spec, path) = (set.at("spec"), Path::Root.child("spec"));
    errors.non_negative(&path.child("replicas"), spec.int("replicas"));
    errors.non_negative(&path.child("minReadySeconds"), spec.int("minReadySeconds"));
    super::selector_and_template(spec, "ReplicaSet", &path, errors);
}

fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    match subresource {
        "" => super::selector_is_immutable(new, old, errors),
        "status" => replica_counts(new.at("status"), errors),
        _ => {}
    }
}

/// Each count of a status is part of the one before it.
pub fn replica_counts(status: &Value, errors: &mut Errors) {
    let path = Path::Root.child("status");
    let count = |field: &str| number(status, field);
    for field in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"] {
        errors.non_negative(&path.child(field), status.int(field));
    }
    for (part, whole, what) in [
        ("fullyLabeledReplicas", "replicas", "cannot be greater than status.replicas"),
        ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
    ] {
        if count(part) > count(whole) {
            errors.invalid(&path.child(part), &count(part), what);
        }
    }
}
