//! HorizontalPodAutoscalers, in the forms of `autoscaling/v1` and `v2`.

use serde_json::{Value, json};

use super::{
    apps,
    cells::{AGE, NAME, column, number, or_none},
    field::{Errors, Path},
    names, pod,
    rules::Rules,
    value::{Peek, at_mut, fill, is_empty, object_mut, set},
};
use crate::server::Column;

/// The rules of HorizontalPodAutoscalers.
pub const AUTOSCALER: Rules = Rules {
    default,
    create: |hpa, _| set(hpa, "status", json!({"desiredReplicas": 0})),
    validate,
    has_status: true,
    ..Rules::NONE
};

/// The columns of HorizontalPodAutoscalers.
pub fn autoscaler_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Reference", "string", |hpa| {
            format!("{}/{}", hpa.text("spec.scaleTargetRef.kind"), hpa.text("spec.scaleTargetRef.name")).into()
        }),
        column("Targets", "string", targets),
        column("MinPods", "string", |hpa| match hpa.int("spec.minReplicas") {
            Some(count) => count.to_string().into(),
            None => "<unset>".into(),
        }),
        column("MaxPods", "integer", |hpa| number(hpa, "spec.maxReplicas").into()),
        column("Replicas", "integer", |hpa| number(hpa, "status.currentReplicas").into()),
        AGE,
    ]
}

/// The columns of the Scale of an object.
pub fn scale_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Desired", "integer", |scale| number(scale, "spec.replicas").into()),
        column("Available", "integer", |scale| number(scale, "status.replicas").into()),
        AGE,
    ]
}

/// How many metrics are shown before the list is cut.
const SHOWN: usize = 2;

fn targets(hpa: &Value) -> Value {
    if let Some(target) = hpa.int("spec.targetCPUUtilizationPercentage") {
        let current = hpa.int("status.currentCPUUtilizationPercentage");
        let current = current.map_or("<unknown>".to_owned(), |percent| format!("{percent}%"));
        return format!("cpu: {current}/{target}%").into();
    }
    let (metrics, current) = (hpa.list("spec.metrics"), hpa.list("status.currentMetrics"));
    let all: Vec<String> = metrics
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(i, spec)| metric(spec, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    if metrics.len() > SHOWN {
        return format!("{} + {} more...", all.join(", "), metrics.len() - SHOWN).into();
    }
    or_none(&all.join(", "))
}

fn metric(spec: &Value, status: &Value) -> String {
    let source = match spec.text("type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, now) = (spec.at(source).at("target"), status.at(source).at("current"));
    let name = spec.at(source).text("name");
    let text = |value: &Value, field: &str| match value.text(field) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    let value = if target.has("averageUtilization") {
        let current = now.int("averageUtilization").map_or("<unknown>".to_owned(), |percent| format!("{percent}%"));
        format!("{current}/{}%", number(target, "averageUtilization"))
    } else if target.has("averageValue") {
        let average = if matches!(source, "object" | "external") { " (avg)" } else { "" };
        format!("{}/{}{average}", text(now, "averageValue"), target.text("averageValue"))
    } else {
        format!("{}/{}", text(now, "value"), target.text("value"))
    };
    if name.is_empty() { value } else { format!("{name}: {value}") }
}

fn default(hpa: &mut Value) {
    let first_version = hpa.text("apiVersion") == "autoscaling/v1";
    let Some(spec) = object_mut(hpa, "spec") else { return };
    fill(spec, "minReplicas", 1);
    if first_version {
        return;
    }
    if spec.list("metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    if let Some(behavior) = at_mut(spec, "behavior") {
        if let Some(up) = object_mut(behavior, "scaleUp") {
            fill(up, "stabilizationWindowSeconds", 0);
            fill(up, "selectPolicy", "Max");
            if is_empty(up.at("policies")) {
                let policies = [("Pods", 4), ("Percent", 100)];
                set(
                    up,
                    "policies",
                    policies.map(|(kind, value)| json!({"type": kind, "value": value, "periodSeconds": 15})).to_vec(),
                );
            }
        }
        if let Some(down) = object_mut(behavior, "scaleDown") {
            fill(down, "selectPolicy", "Max");
            if is_empty(down.at("policies")) {
                set(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
            }
        }
    }
}

fn validate(hpa: &Value, errors: &mut Errors) {
    let (spec, path) = (hpa.at("spec"), Path::Root.child("spec"));
    let (least, most) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        errors.invalid(&path.child("minReplicas"), &least, "must be greater than or equal to 1");
    }
    if most < 1 {
        errors.invalid(&path.child("maxReplicas"), &most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        errors.invalid(&path.child("maxReplicas"), &most, "must be greater than or equal to `minReplicas`");
    }
    let target = path.child("scaleTargetRef");
    for field in ["kind", "name"] {
        let value = spec.at("scaleTargetRef").text(field);
        if value.is_empty() {
            errors.required(&target.child(field), "");
        } else {
            errors.invalid_all(&target.child(field), value, names::path_segment(value));
        }
    }
    if let Some(percent) = spec.int("targetCPUUtilizationPercentage").filter(|percent| *percent < 1) {
        errors.invalid(&path.child("targetCPUUtilizationPercentage"), &percent, "must be greater than 0");
    }
    let list = path.child("metrics");
    for (i, one) in spec.list("metrics").iter().enumerate() {
        metric_spec(one, &list.index(i), errors);
    }
    let behavior = path.child("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        if spec.at("behavior").has(direction) {
            scaling_rules(spec.at("behavior").at(direction), &behavior.child(direction), errors);
        }
    }
}

fn metric_spec(metric: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = metric.text("type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
        return;
    }
    let (source, needs) = match kind {
        "Resource" => ("resource", &["name"][..]),
        "ContainerResource" => ("containerResource", &["name", "container"][..]),
        "Pods" => ("pods", &["metric.name"][..]),
        "Object" => ("object", &["metric.name", "describedObject.kind", "describedObject.name"][..]),
        "External" => ("external", &["metric.name"][..]),
        other => {
            let kinds = ["ContainerResource", "External", "Object", "Pods", "Resource"];
            errors.not_supported(&path.child("type"), other, &kinds);
            return;
        }
    };
    let (value, path) = (metric.at(source), path.child(source));
    if value.is_null() {
        errors.required(&path, &format!("must populate information for the given metric source when type is {kind}"));
        return;
    }
    for field in needs {
        if value.text(field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let (target, path) = (value.at("target"), path.child("target"));
    errors.required_one_of(&path.child("type"), target.text("type"), &["AverageValue", "Utilization", "Value"]);
    if let Some(percent) = target.int("averageUtilization").filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), &percent, "must be greater than 0");
    }
    for field in ["value", "averageValue"] {
        if target.has(field)
            && let Some(quantity) = pod::quantity(target.at(field), &path.child(field), errors)
            && quantity.is_zero()
        {
            errors.invalid(&path.child(field), &quantity.to_string(), "must be positive");
        }
    }
    if !["averageUtilization", "averageValue", "value"].iter().any(|field| target.has(field)) {
        let detail = match source {
            "resource" | "containerResource" => "must set either a target raw value or a target utilization",
            "pods" => "must specify a positive target averageValue",
            _ => "must set either a target value for metric or a per-pod target",
        };
        errors.required(&path, detail);
    }
}

fn scaling_rules(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(seconds) = rules.int("stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.invalid(&path, &seconds, "must be greater than or equal to zero");
        } else if seconds > 3600 {
            errors.invalid(&path, &seconds, "must be less than or equal to 3600");
        }
    }
    errors.one_of(&path.child("selectPolicy"), rules.text("selectPolicy"), &["Disabled", "Max", "Min"]);
    let list = path.child("policies");
    if rules.list("policies").is_empty() {
        errors.required(&list, "must specify at least one Policy");
    }
    for (i, policy) in rules.list("policies").iter().enumerate() {
        let path = list.index(i);
        errors.required_one_of(&path.child("type"), policy.text("type"), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            if number(policy, field) <= 0 {
                errors.invalid(&path.child(field), &number(policy, field), "must be greater than zero");
            }
        }
        if number(policy, "periodSeconds") > 1800 {
            errors.invalid(
                &path.child("periodSeconds"),
                &number(policy, "periodSeconds"),
                "must be less than or equal to 1800",
            );
        }
    }
    if rules.has("tolerance") {
        pod::quantity(rules.at("tolerance"), &path.child("tolerance"), errors);
    }
}

/// The rules of PodDisruptionBudgets.
pub const DISRUPTION_BUDGET: Rules = Rules {
    create: |budget, _| {
        let none = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        set(budget, "status", none);
    },
    validate: validate_budget,
    has_status: true,
    ..Rules::NONE
};

/// The columns of PodDisruptionBudgets.
pub fn disruption_budget_columns() -> Vec<Column> {
    fn amount(value: &Value) -> Value {
        match value {
            Value::Null => "N/A".into(),
            Value::String(text) => text.as_str().into(),
            other => other.to_string().into(),
        }
    }
    vec![
        NAME,
        column("Min Available", "string", |budget| amount(budget.at("spec.minAvailable"))),
        column("Max Unavailable", "string", |budget| amount(budget.at("spec.maxUnavailable"))),
        column("Allowed Disruptions", "integer", |budget| number(budget, "status.disruptionsAllowed").into()),
        AGE,
    ]
}

fn validate_budget(budget: &Value, errors: &mut Errors) {
    let (spec, path) = (budget.at("spec"), Path::Root.child("spec"));
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        errors.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if spec.has(field) {
            apps::int_or_percent(spec.at(field), &path.child(field), errors);
            apps::at_most_all(spec.at(field), &path.child(field), errors);
        }
    }
    super::selector::validate(spec.at("selector"), &path.child("selector"), errors);
    errors.one_of(
        &path.child("unhealthyPodEvictionPolicy"),
        spec.text("unhealthyPodEvictionPolicy"),
        &["AlwaysAllow", "IfHealthyBudget"],
    );
}
