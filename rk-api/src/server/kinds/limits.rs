//! LimitRanges and ResourceQuotas.

use serde_json::Value;

use super::{
    cells::{AGE, CREATED_AT, NAME, column},
    field::{Errors, Path},
    names, pod,
    rules::Rules,
    value::{Peek, each_mut, fill, is_empty, object_mut, remove, same},
};
use crate::{Quantity, server::Column};

/// The rules of LimitRanges.
pub const LIMIT_RANGE: Rules = Rules { default: default_range, validate: validate_range, ..Rules::NONE };

/// The rules of ResourceQuotas.
pub const QUOTA: Rules =
    Rules { validate: validate_quota, validate_change: change_quota, has_status: true, ..Rules::NONE };

/// The columns of LimitRanges.
pub fn limit_range_columns() -> Vec<Column> {
    vec![NAME, CREATED_AT]
}

/// The columns of ResourceQuotas.
pub fn quota_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Request", "string", |quota| used(quota, false)),
        column("Limit", "string", |quota| used(quota, true)),
        AGE,
    ]
}

/// `pods: 1/10, ...` of the limits, or of all else.
fn used(quota: &Value, limits: bool) -> Value {
    let hard = quota.at("status.hard").as_object().into_iter().flatten();
    let mut all: Vec<_> = hard.filter(|(name, _)| name.starts_with("limits") == limits).collect();
    all.sort_by_key(|(name, _)| name.as_str());
    let one = |(name, hard): (&String, &Value)| {
        let used = quota.at("status.used").get(name).and_then(Value::as_str).unwrap_or("0");
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    };
    all.into_iter().map(one).collect::<Vec<_>>().join(", ").into()
}

/// A container's default limit is the most it may have, its default request the default limit, or else the least.
fn default_range(range: &mut Value) {
    let Some(spec) = object_mut(range, "spec") else { return };
    each_mut(spec, "limits", |item| {
        if item.text("type") != "Container" {
            return;
        }
        for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let values = item.at(source).as_object().cloned().unwrap_or_default();
            if let Some(target) = object_mut(item, target) {
                for (name, value) in values {
                    fill(target, &name, value);
                }
            }
            if is_empty(item.at(target)) {
                remove(item, target);
            }
        }
    });
}

fn validate_range(range: &Value, errors: &mut Errors) {
    let list = Path::Root.child("spec.limits");
    let items = range.list("spec.limits");
    for (i, item) in items.iter().enumerate() {
        let path = list.index(i);
        let kind = item.text("type");
        errors.invalid_all(&path.child("type"), kind, names::qualified_name(kind));
        if items[..i].iter().any(|other| other.text("type") == kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        limit(item, &path, errors);
    }
}

fn limit(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    let fields = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut resources: Vec<&String> = Vec::new();
    for field in fields {
        let list = path.child(field);
        for (name, value) in item.entries(field) {
            errors.invalid_all(&list.key(name), name, names::qualified_name(name));
            pod::quantity(value, &list.key(name), errors);
            if !resources.contains(&name) {
                resources.push(name);
            }
        }
        if item.text("type") == "Pod" && matches!(field, "default" | "defaultRequest") && !is_empty(item.at(field)) {
            errors.forbidden(&list, "may not be specified when `type` is 'Pod'");
        }
    }
    for name in resources {
        let get = |field: &str| item.at(field).get(name)?.as_str()?.parse::<Quantity>().ok();
        let pairs = [
            ("min", "min", "max", "max"),
            ("defaultRequest", "min", "defaultRequest", "default request"),
            ("defaultRequest", "defaultRequest", "max", "max"),
            ("defaultRequest", "defaultRequest", "default", "default"),
            ("default", "min", "default", "default"),
            ("default", "default", "max", "max"),
        ];
        for (at, low, high, high_words) in pairs {
            if let (Some(small), Some(big)) = (get(low), get(high))
                && small > big
            {
                let low_words = if low == "defaultRequest" { "default request" } else { low };
                let list = path.child(at);
                let detail = format!("{low_words} value {small} is greater than {high_words} value {big}");
                errors.invalid(&list.key(name), &get(at).unwrap_or(small).to_string(), &detail);
            }
        }
        if let Some(ratio) = get("maxLimitRequestRatio")
            && ratio < Quantity::from_value(1)
        {
            let list = path.child("maxLimitRequestRatio");
            errors.invalid(&list.key(name), &ratio.to_string(), &format!("ratio {ratio} is less than 1"));
        }
    }
}

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn validate_quota(quota: &Value, errors: &mut Errors) {
    let (spec, path) = (quota.at("spec"), Path::Root.child("spec"));
    let hard = path.child("hard");
    for (name, value) in spec.entries("hard") {
        let path = hard.key(name);
        errors.invalid_all(&path, name, names::qualified_name(name));
        let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
        let amounts = matches!(bare, "cpu" | "memory" | "storage" | "ephemeral-storage")
            || bare.starts_with("hugepages-")
            || name.ends_with(".storageclass.storage.k8s.io/requests.storage");
        let countable = matches!(
            name.as_str(),
            "pods"
                | "services"
                | "replicationcontrollers"
                | "resourcequotas"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        );
        if !name.contains('/') && !amounts && !countable {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        if let Some(quantity) = pod::quantity(value, &path, errors)
            && !amounts
            && !quantity.is_integer()
        {
            errors.invalid(&path, &quantity.to_string(), "must be an integer");
        }
    }
    let scopes: Vec<&str> = spec.list("scopes").iter().filter_map(Value::as_str).collect();
    let list = path.child("scopes");
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(&list, spec.at("scopes"), "unsupported scope");
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            errors.invalid(&list, spec.at("scopes"), "conflicting scopes");
        }
    }
    let list = path.child("scopeSelector.matchExpressions");
    for (i, expression) in spec.list("scopeSelector.matchExpressions").iter().enumerate() {
        let path = list.index(i);
        if !SCOPES.contains(&expression.text("scopeName")) {
            errors.invalid(&path.child("scopeName"), expression.text("scopeName"), "unsupported scope");
        }
        let values = expression.list("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &path.child("values"),
                expression.at("values"),
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
}

fn change_quota(new: &Value, old: &Value, _: &str, errors: &mut Errors) {
    let sorted = |quota: &Value| {
        let mut scopes: Vec<String> = quota.list("spec.scopes").iter().map(Value::to_string).collect();
        scopes.sort();
        scopes
    };
    if sorted(new) != sorted(old) || !same(new.at("spec.scopeSelector"), old.at("spec.scopeSelector")) {
        errors.invalid(&Path::Root.child("spec.scopes"), new.at("spec.scopes"), "field is immutable");
    }
}
