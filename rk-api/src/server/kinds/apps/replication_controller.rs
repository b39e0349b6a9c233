//! ReplicationControllers: ReplicaSets as they were first, whose selector is a plain map of labels.

use serde_json::{Value, json};

use crate::server::{
    Column, UserInfo,
    kinds::{
        cells::{AGE, NAME, column, container_images, container_names, labels, number, wide},
        field::{Errors, Path},
        pod::{template, warnings},
        rules::Rules,
        selector,
        value::{Peek, fill, is_empty, object_mut, set},
    },
};

/// The rules of ReplicationControllers.
pub const REPLICATION_CONTROLLER: Rules = Rules {
    default,
    create,
    validate,
    validate_change,
    warn: |object, old, warnings| warnings::named_workload(object, old, "spec.template", warnings),
    has_status: true,
    orphans: true,
    pod_spec: "spec.template.spec",
    ..Rules::NONE
};

/// The columns of ReplicationControllers.
pub fn replication_controller_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Desired", "integer", |rc| number(rc, "spec.replicas").into()),
        column("Current", "integer", |rc| number(rc, "status.replicas").into()),
        column("Ready", "integer", |rc| number(rc, "status.readyReplicas").into()),
        AGE,
        wide("Containers", "string", |rc| container_names(rc.at("spec.template.spec"))),
        wide("Images", "string", |rc| container_images(rc.at("spec.template.spec"))),
        wide("Selector", "string", |rc| labels(rc.at("spec.selector"))),
    ]
}

fn default(controller: &mut Value) {
    template::default(controller, "spec.template");
    let template_labels = controller.at("spec.template.metadata.labels").clone();
    if let Some(spec) = object_mut(controller, "spec") {
        fill(spec, "replicas", 1);
        if is_empty(spec.at("selector")) && !is_empty(&template_labels) {
            set(spec, "selector", template_labels.clone());
        }
    }
    if is_empty(controller.at("metadata.labels"))
        && !is_empty(&template_labels)
        && let Some(metadata) = object_mut(controller, "metadata")
    {
        set(metadata, "labels", template_labels);
    }
}

fn create(controller: &mut Value, _: &UserInfo) {
    set(controller, "status", json!({"replicas": 0}));
}

fn validate(controller: &Value, errors: &mut Errors) {
    let (spec, path) = (controller.at("spec"), Path::Root.child("spec"));
    errors.non_negative(&path.child("minReadySeconds"), spec.int("minReadySeconds"));
    errors.non_negative(&path.child("replicas"), spec.int("replicas"));
    let wanted = spec.at("selector");
    if is_empty(wanted) {
        errors.required(&path.child("selector"), "");
    }
    let template_path = path.child("template");
    if !spec.has("template") {
        errors.required(&template_path, "");
        return;
    }
    let labels = spec.at("template.metadata.labels");
    if !is_empty(wanted) && !selector::matches(&json!({"matchLabels": wanted}), labels) {
        errors.invalid(&template_path.child("metadata.labels"), labels, "`selector` does not match template `labels`");
    }
    template::validate_lasting(spec.at("template"), "ReplicationController", &template_path, errors);
}

fn validate_change(new: &Value, _old: &Value, subresource: &str, errors: &mut Errors) {
    if subresource == "status" {
        super::replica_set::replica_counts(new.at("status"), errors);
    }
}
