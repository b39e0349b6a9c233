//! Workloads of pods that last: what their kinds share.

mod daemon_set;
mod deployment;
mod replica_set;
mod replication_controller;
mod stateful_set;

use serde_json::Value;

use crate::server::Column;

pub use daemon_set::{DAEMON_SET, daemon_set_columns};
pub use deployment::{DEPLOYMENT, deployment_columns};
pub use replica_set::{REPLICA_SET, replica_set_columns};
pub use replication_controller::{REPLICATION_CONTROLLER, replication_controller_columns};
pub use stateful_set::{STATEFUL_SET, stateful_set_columns};

use super::{
    cells::{AGE, NAME, column},
    field::{Errors, Path},
    names, pod,
    rules::Rules,
    selector,
    value::Peek,
};

/// The rules of the selector of a workload of this kind, and of the template that it must select.
fn selector_and_template(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    // ReplicaSets and Deployments share one check, which speaks of both as of the other.
    let words = match kind {
        "ReplicaSet" | "Deployment" => ("deployment", "ReplicaSet"),
        "StatefulSet" => ("statefulset", "StatefulSet"),
        _ => ("daemonset", "DaemonSet"),
    };
    let (wanted, template) = (spec.at("selector"), spec.at("template"));
    let selector_path = path.child("selector");
    // A selector that is absent selects nothing.
    let selected = match wanted {
        Value::Null => Ok(false),
        _ => selector::parse(wanted).map(|parsed| parsed.matches(&selector::label_map(template.at("metadata.labels")))),
    };
    if wanted.is_null() {
        if kind != "DaemonSet" {
            errors.required(&selector_path, "");
        }
    } else {
        selector::validate(wanted, &selector_path, errors);
        if selector::is_empty(wanted) {
            errors.invalid(&selector_path, wanted, &format!("empty selector is invalid for {}", words.0));
        }
    }
    let template_path = path.child("template");
    match selected {
        Err(_) if kind != "DaemonSet" => {
            let detail = if kind == "StatefulSet" { "" } else { "invalid label selector" };
            return errors.invalid(&selector_path, wanted, detail);
        }
        _ => {}
    }
    if selected == Ok(false) {
        errors.invalid(
            &template_path.child("metadata.labels"),
            template.at("metadata.labels"),
            "`selector` does not match template `labels`",
        );
    }
    pod::template::validate_lasting(template, words.1, &template_path, errors);
}

/// The selector of a workload decides which pods are its own, and stays.
fn selector_is_immutable(new: &Value, old: &Value, errors: &mut Errors) {
    errors.immutable(&Path::Root.child("spec.selector"), new.at("spec.selector"), old.at("spec.selector"));
}

/// The rules of ControllerRevisions: the data of one never change.
pub const CONTROLLER_REVISION: Rules = Rules {
    validate: |revision, errors| {
        errors.non_negative(&Path::Root.child("revision"), revision.int("revision"));
        if !revision.has("data") {
            errors.required(&Path::Root.child("data"), "data is mandatory");
        }
    },
    validate_change: |new, old, _, errors| {
        errors.immutable(&Path::Root.child("data"), new.at("data"), old.at("data"));
    },
    ..Rules::NONE
};

/// The columns of ControllerRevisions.
pub fn controller_revision_columns() -> Vec<Column> {
    let controller = |revision: &Value| {
        let owners = revision.list("metadata.ownerReferences").iter();
        let Some(owner) = owners.into_iter().find(|owner| owner.flag("controller")) else { return "<none>".into() };
        let kind = owner.text("kind").to_lowercase();
        match owner.text("apiVersion").split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", owner.text("name")).into(),
            None => format!("{kind}/{}", owner.text("name")).into(),
        }
    };
    vec![
        NAME,
        column("Controller", "string", controller),
        column("Revision", "string", |revision| revision.at("revision").clone()),
        AGE,
    ]
}

/// A count, or a percentage of something.
pub fn int_or_percent(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(text) => errors.invalid_all(path, text, names::percent(text)),
        other => errors.non_negative(path, other.as_i64()),
    }
}

/// The number before `%`.
fn percentage(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// No more than all of them.
pub fn at_most_all(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if percentage(value).is_some_and(|percent| percent > 100) {
        errors.invalid(path, value, "must not be greater than 100%");
    }
}

/// Whether it says none: 0 or 0 %.
fn is_zero(value: &Value) -> bool {
    value.as_i64() == Some(0) || percentage(value) == Some(0)
}
