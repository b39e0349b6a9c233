//! Workloads of pods that last: what their kinds share.

mod deployment;
mod replica_set;

use serde_json::Value;

pub use deployment::{DEPLOYMENT, deployment_columns};
pub use replica_set::{REPLICA_SET, replica_set_columns};

use super::{
    field::{Errors, Path},
    names, pod, selector,
    value::Peek,
};

/// The rules of a workload's selector and of the template that it must select. `what` names the kind in the words for an empty selector.
fn selector_and_template(spec: &Value, what: &str, path: &Path<'_>, errors: &mut Errors) {
    let (wanted, template) = (spec.at("selector"), spec.at("template"));
    let selector_path = path.child("selector");
    if wanted.is_null() {
        errors.required(&selector_path, "");
    } else {
        selector::validate(wanted, &selector_path, errors);
        if selector::is_empty(wanted) {
            errors.invalid(&selector_path, wanted, &format!("empty selector is invalid for {what}"));
        }
    }
    let template_path = path.child("template");
    if !wanted.is_null() && !selector::is_empty(wanted) && !selector::matches(wanted, template.at("metadata.labels")) {
        errors.invalid(
            &template_path.child("metadata.labels"),
            template.at("metadata.labels"),
            "`selector` does not match template `labels`",
        );
    }
    pod::template::validate_lasting(template, &template_path, errors);
}

/// The selector of a workload decides which pods are its own, and stays.
fn selector_is_immutable(new: &Value, old: &Value, errors: &mut Errors) {
    errors.immutable(&Path::Root.child("spec.selector"), new.at("spec.selector"), old.at("spec.selector"));
}

/// A count, or a percentage of something.
fn int_or_percent(value: &Value, path: &Path<'_>, errors: &mut Errors) {
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
fn at_most_all(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if percentage(value).is_some_and(|percent| percent > 100) {
        errors.invalid(path, value, "must not be greater than 100%");
    }
}

/// Whether it says none: 0 or 0 %.
fn is_zero(value: &Value) -> bool {
    value.as_i64() == Some(0) || percentage(value) == Some(0)
}
