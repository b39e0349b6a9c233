//! Deployments.

use serde_json::{Value, json};

use crate::server::{
    Column,
    kinds::{
        cells::{AGE, NAME, column, container_images, container_names, number, selector, wide},
        field::{Errors, Path},
        pod::{template, warnings},
        rules::Rules,
        value::{Peek, at_mut, fill, object_mut},
    },
};

/// The rules of Deployments.
pub const DEPLOYMENT: Rules = Rules {
    default,
    validate,
    validate_change,
    warn: |object, old, warnings| warnings::named_workload(object, old, "spec.template", warnings),
    has_status: true,
    pod_spec: "spec.template.spec",
    ..Rules::NONE
};

/// The columns of Deployments.
pub fn deployment_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Ready", "string", |d| {
            format!("{}/{}", number(d, "status.readyReplicas"), number(d, "spec.replicas")).into()
        }),
        column("Up-to-date", "string", |d| number(d, "status.updatedReplicas").into()),
        column("Available", "string", |d| number(d, "status.availableReplicas").into()),
        AGE,
        wide("Containers", "string", |d| container_names(d.at("spec.template.spec"))),
        wide("Images", "string", |d| container_images(d.at("spec.template.spec"))),
        wide("Selector", "string", |d| selector(d.at("spec.selector"))),
    ]
}

fn default(deployment: &mut Value) {
    template::default(deployment, "spec.template");
    let Some(spec) = object_mut(deployment, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    let Some(strategy) = object_mut(spec, "strategy") else { return };
    fill(strategy, "type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        if let Some(rolling) = at_mut(strategy, "rollingUpdate") {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
}

fn validate(deployment: &Value, errors: &mut Errors) {
    let (spec, path) = (deployment.at("spec"), Path::Root.child("spec"));
    errors.non_negative(&path.child("replicas"), spec.int("replicas"));
    super::selector_and_template(spec, "Deployment", &path, errors);
    strategy(spec.at("strategy"), &path.child("strategy"), errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.non_negative(&path.child(field), spec.int(field));
    }
    if let Some(deadline) = spec.int("progressDeadlineSeconds")
        && deadline <= spec.int("minReadySeconds").unwrap_or(0)
    {
        errors.invalid(&path.child("progressDeadlineSeconds"), &deadline, "must be greater than minReadySeconds");
    }
}

fn strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (rolling, rolling_path) = (strategy.at("rollingUpdate"), path.child("rollingUpdate"));
    match strategy.text("type") {
        "Recreate" => {
            if !rolling.is_null() {
                errors.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            super::int_or_percent(unavailable, &rolling_path.child("maxUnavailable"), errors);
            super::int_or_percent(surge, &rolling_path.child("maxSurge"), errors);
            if super::is_zero(unavailable) && super::is_zero(surge) {
                errors.invalid(&rolling_path.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0");
            }
            super::at_most_all(unavailable, &rolling_path.child("maxUnavailable"), errors);
        }
        other => errors.not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    if subresource.is_empty() {
        super::selector_is_immutable(new, old, errors);
    }
}
