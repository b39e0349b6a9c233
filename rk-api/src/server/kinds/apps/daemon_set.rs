//! DaemonSets.

use serde_json::Value;

use crate::server::{
    Column, UserInfo,
    kinds::{
        cells::{AGE, NAME, column, container_images, container_names, labels, number, selector, wide},
        field::{Errors, Path},
        pod::{template, warnings},
        rules::Rules,
        value::{Peek, fill, object_mut, set},
    },
};

/// The rules of DaemonSets.
pub const DAEMON_SET: Rules = Rules {
    default,
    create,
    validate,
    validate_change,
    warn: |object, old, warnings| warnings::workload(object, old, "spec.template", warnings),
    has_status: true,
    pod_spec: "spec.template.spec",
    ..Rules::NONE
};

/// The columns of DaemonSets.
pub fn daemon_set_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Desired", "integer", |d| number(d, "status.desiredNumberScheduled").into()),
        column("Current", "integer", |d| number(d, "status.currentNumberScheduled").into()),
        column("Ready", "integer", |d| number(d, "status.numberReady").into()),
        column("Up-to-date", "integer", |d| number(d, "status.updatedNumberScheduled").into()),
        column("Available", "integer", |d| number(d, "status.numberAvailable").into()),
        column("Node Selector", "string", |d| labels(d.at("spec.template.spec.nodeSelector"))),
        AGE,
        wide("Containers", "string", |d| container_names(d.at("spec.template.spec"))),
        wide("Images", "string", |d| container_images(d.at("spec.template.spec"))),
        wide("Selector", "string", |d| selector(d.at("spec.selector"))),
    ]
}

fn default(daemon_set: &mut Value) {
    template::default(daemon_set, "spec.template");
    let Some(spec) = object_mut(daemon_set, "spec") else { return };
    fill(spec, "revisionHistoryLimit", 10);
    let Some(strategy) = object_mut(spec, "updateStrategy") else { return };
    fill(strategy, "type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate"
        && let Some(rolling) = object_mut(strategy, "rollingUpdate")
    {
        fill(rolling, "maxUnavailable", 1);
        fill(rolling, "maxSurge", 0);
    }
}

fn create(daemon_set: &mut Value, _: &UserInfo) {
    if let Some(status) = object_mut(daemon_set, "status") {
        for field in ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"] {
            set(status, field, 0);
        }
    }
}

fn validate(daemon_set: &Value, errors: &mut Errors) {
    let (spec, path) = (daemon_set.at("spec"), Path::Root.child("spec"));
    super::selector_and_template(spec, "DaemonSet", &path, errors);
    errors.non_negative(&path.child("minReadySeconds"), spec.int("minReadySeconds"));
    errors.non_negative(&path.child("revisionHistoryLimit"), spec.int("revisionHistoryLimit"));
    let (strategy, path) = (spec.at("updateStrategy"), path.child("updateStrategy"));
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => rolling(strategy.at("rollingUpdate"), &path.child("rollingUpdate"), errors),
        other => errors.not_supported(&path.child("type"), other, &["RollingUpdate", "OnDelete"]),
    }
}

fn rolling(rolling: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        super::int_or_percent(value, &path.child(field), errors);
        super::at_most_all(value, &path.child(field), errors);
    }
    match (super::is_zero(unavailable), super::is_zero(surge)) {
        (true, true) => {
            errors.invalid(&path.child("maxUnavailable"), unavailable, "cannot be 0 when maxSurge is 0");
        }
        (false, false) => {
            errors.invalid(&path.child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero")
        }
        _ => {}
    }
}

fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    if subresource.is_empty() {
        super::selector_is_immutable(new, old, errors);
    }
}
