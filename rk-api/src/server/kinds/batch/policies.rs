//! The rules of a Job's policies: what follows from the end of its pods.

use std::collections::HashSet;

use serde_json::Value;

use crate::server::kinds::{
    field::{Errors, Path},
    value::Peek,
};

/// When the pods of a Job are replaced.
pub fn replacement(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (policy, path) = (spec.text("podReplacementPolicy"), path.child("podReplacementPolicy"));
    let allowed: &[&str] = if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    errors.one_of(&path, policy, allowed);
}

/// What follows from how pods fail.
pub fn failure(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("rules");
    let rules = spec.list("podFailurePolicy.rules");
    if rules.len() > 20 {
        errors.too_many(&list, rules.len(), 20);
    }
    let names: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|kind| spec.at("template.spec").list(kind))
        .map(|container| container.text("name"))
        .collect();
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        errors.required_one_of(
            &path.child("action"),
            rule.text("action"),
            &["Count", "FailIndex", "FailJob", "Ignore"],
        );
        if rule.text("action") == "FailIndex" && !spec.has("backoffLimitPerIndex") {
            errors.invalid(&path.child("action"), "FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        let (codes, conditions) = (rule.at("onExitCodes"), rule.list("onPodConditions"));
        match (codes.is_null(), conditions.is_empty()) {
            (true, true) => {
                errors.invalid(&path, rule, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (false, false) => {
                errors.invalid(&path, rule, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            _ => {}
        }
        if !codes.is_null() {
            exit_codes(codes, &names, &path.child("onExitCodes"), errors);
        }
    }
}

fn exit_codes(codes: &Value, names: &HashSet<&str>, path: &Path<'_>, errors: &mut Errors) {
    let operator = codes.text("operator");
    errors.required_one_of(&path.child("operator"), operator, &["In", "NotIn"]);
    let name = codes.text("containerName");
    if !name.is_empty() && !names.contains(name) {
        errors.invalid(
            &path.child("containerName"),
            name,
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let (values, list) = (codes.list("values"), path.child("values"));
    if values.is_empty() {
        errors.invalid(&list, codes.at("values"), "at least one value is required");
    } else if values.len() > 255 {
        errors.too_many(&list, values.len(), 255);
    }
    let numbers: Vec<i64> = values.iter().filter_map(Value::as_i64).collect();
    for (i, value) in numbers.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.invalid(&list.index(i), value, "must not be 0 for the In operator");
        }
        if numbers[..i].contains(value) {
            errors.duplicate(&list.index(i), value);
        }
    }
    if !numbers.is_sorted() {
        errors.invalid(&list, codes.at("values"), "must be ordered");
    }
}

/// When a Job is done before all its indexes are.
pub fn success(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let policy = spec.at("successPolicy");
    if policy.is_null() {
        return;
    }
    if spec.text("completionMode") != "Indexed" {
        errors.invalid(path, policy, "requires indexed completion mode");
        return;
    }
    let list = path.child("rules");
    let rules = policy.list("rules");
    if rules.is_empty() {
        errors.required(&list, "at least one rules must be specified when the successPolicy is specified");
    } else if rules.len() > 20 {
        errors.too_many(&list, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        if !rule.has("succeededCount") && !rule.has("succeededIndexes") {
            errors.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        errors.positive(&path.child("succeededCount"), rule.int("succeededCount"));
    }
}
