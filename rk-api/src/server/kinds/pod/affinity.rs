//! The rules of affinity, tolerations and topology spread.

use serde_json::Value;

use crate::server::kinds::{
    field::{Errors, Path},
    names, selector,
    value::Peek,
};

/// The rules of `spec.affinity`; nothing is said of an absent one.
pub fn validate(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    let node = affinity.at("nodeAffinity");
    let node_path = path.child("nodeAffinity");
    let required = node.at("requiredDuringSchedulingIgnoredDuringExecution");
    if !required.is_null() {
        let path = node_path.child("requiredDuringSchedulingIgnoredDuringExecution");
        node_selector(required, &path, errors);
    }
    let list = node_path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, term) in node.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
        let path = list.index(i);
        weight(term, &path, errors);
        node_term(term.at("preference"), &path.child("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (pods, path) = (affinity.at(kind), path.child(kind));
        let list = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in pods.list("requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            pod_term(term, &list.index(i), errors);
        }
        let list = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in pods.list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            let path = list.index(i);
            weight(term, &path, errors);
            pod_term(term.at("podAffinityTerm"), &path.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let weight = term.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), &weight, "must be in the range 1-100");
    }
}

/// The rules of a node selector: terms, one of which must hold.
pub fn node_selector(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let terms = spec.list("nodeSelectorTerms");
    let list = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&list, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(term, &list.index(i), errors);
    }
}

fn node_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["matchExpressions", "matchFields"] {
        let list = path.child(field);
        for (i, requirement) in term.list(field).iter().enumerate() {
            let path = list.index(i);
            let (key, values) = (requirement.text("key"), requirement.list("values"));
            match requirement.text("operator") {
                "In" | "NotIn" if values.is_empty() => {
                    errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
                "Gt" | "Lt" if values.len() != 1 => errors
                    .required(&path.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"),
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
            }
            if field == "matchFields" {
                if key != "metadata.name" {
                    errors.invalid(&path.child("key"), key, "not a valid field selector key");
                }
            } else {
                errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
            }
        }
    }
}

fn pod_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    selector::validate(term.at("labelSelector"), &path.child("labelSelector"), errors);
    selector::validate(term.at("namespaceSelector"), &path.child("namespaceSelector"), errors);
    for namespace in term.list("namespaces").iter().filter_map(Value::as_str) {
        errors.invalid_all(&path.child("namespace"), namespace, names::dns_label(namespace));
    }
    topology_key(term, path, errors);
}

fn topology_key(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let key = term.text("topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    } else {
        errors.invalid_all(&path.child("topologyKey"), key, names::qualified_name(key));
    }
}

/// The rules of tolerations.
pub fn tolerations(tolerations: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, value) = (toleration.text("key"), toleration.text("value"));
        let (operator, effect) = (toleration.text("operator"), toleration.text("effect"));
        if !key.is_empty() {
            errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "" | "Equal" => errors.invalid_all(&path.child("operator"), value, names::label_value(value)),
            "Exists" if !value.is_empty() => {
                errors.invalid(&path.child("operator"), toleration, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        taint_effect(effect, &path.child("effect"), errors);
    }
}

/// The effect of a taint; nothing is said of an empty one.
pub fn taint_effect(effect: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.one_of(path, effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
}

/// The rules of topology spread constraints.
pub fn spread(constraints: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        errors.positive(&path.child("maxSkew"), Some(constraint.int("maxSkew").unwrap_or(0)));
        topology_key(constraint, &path, errors);
        let action = constraint.text("whenUnsatisfiable");
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let pair = |other: &Value| {
            (other.text("topologyKey") == constraint.text("topologyKey")) && other.text("whenUnsatisfiable") == action
        };
        if constraints[i + 1..].iter().any(pair) {
            let key = format!("{{{}, {action}}}", constraint.text("topologyKey"));
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), &key);
        }
        errors.positive(&path.child("minDomains"), constraint.int("minDomains"));
        if let Some(domains) = constraint.int("minDomains")
            && action != "DoNotSchedule"
        {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.invalid(&path.child("minDomains"), &domains, &detail);
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.one_of(&path.child(field), constraint.text(field), &["Honor", "Ignore"]);
        }
        selector::validate(constraint.at("labelSelector"), &path.child("labelSelector"), errors);
        label_keys(constraint, &path.child("matchLabelKeys"), errors);
    }
}

fn label_keys(constraint: &Value, path: &Path<'_>, errors: &mut Errors) {
    let keys = constraint.list("matchLabelKeys");
    if !keys.is_empty() && !constraint.has("labelSelector") {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        let taken = constraint.at("labelSelector.matchLabels").get(key).is_some()
            || constraint.list("labelSelector.matchExpressions").iter().any(|expression| expression.text("key") == key);
        if taken {
            errors.invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
        errors.invalid_all(&path.index(i), key, names::qualified_name(key));
    }
}

/// The rules of the taints of a node.
pub fn taints(taints: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let (key, value, effect) = (taint.text("key"), taint.text("value"), taint.text("effect"));
        errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
        errors.invalid_all(&path.child("value"), value, names::label_value(value));
        errors.required_one_of(&path.child("effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if taints[..i].iter().any(|other| other.text("key") == key && other.text("effect") == effect) {
            errors.duplicate(&path, taint);
        }
    }
}
