//! What terms of node selectors must be (Kubernetes' `nodeaffinity.NewNodeSelector`).

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use serde_json::json;

use super::{
    FieldError,
    names::{label_value, qualified_name},
};

/// A term; an empty one matches nothing and is no error.
pub(super) fn term(term: &NodeSelectorTerm, path: &str, errors: &mut Vec<FieldError>) {
    for (index, expression) in term.match_expressions.iter().flatten().enumerate() {
        label(expression, &format!("{path}.matchExpressions[{index}]"), errors);
    }
    for (index, field) in term.match_fields.iter().flatten().enumerate() {
        self::field(field, &format!("{path}.matchFields[{index}]"), errors);
    }
}

fn label(expression: &NodeSelectorRequirement, path: &str, errors: &mut Vec<FieldError>) {
    qualified_name(&expression.key, &format!("{path}.key"), errors);
    let values = expression.values.as_deref().unwrap_or_default();
    let values_path = format!("{path}.values");
    for (index, value) in values.iter().enumerate() {
        label_value(value, &format!("{values_path}[{index}][{}]", expression.key), errors);
    }
    let mut wrong = |detail: &str| errors.push(FieldError::invalid(&values_path, json!(values), detail));
    match expression.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => wrong("for 'in', 'notin' operators, values set can't be empty"),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            wrong("values set must be empty for exists and does not exist");
        }
        "Gt" | "Lt" if values.len() != 1 => wrong("for 'Gt', 'Lt' operators, exactly one value is required"),
        "Gt" | "Lt" if values[0].parse::<i64>().is_err() => {
            errors.push(FieldError::invalid(
                format!("{values_path}[0]"),
                values[0].as_str(),
                "for 'Gt', 'Lt' operators, the value must be an integer",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::not_supported(
            format!("{path}.operator"),
            other,
            &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"],
        )),
    }
}

fn field(field: &NodeSelectorRequirement, path: &str, errors: &mut Vec<FieldError>) {
    if field.key != "metadata.name" {
        errors.push(FieldError::invalid(format!("{path}.key"), field.key.as_str(), "not a valid field selector key"));
    }
    if !matches!(field.operator.as_str(), "In" | "NotIn") {
        errors.push(FieldError::not_supported(format!("{path}.operator"), &field.operator, &["In", "NotIn"]));
    }
    let values = field.values.as_deref().unwrap_or_default();
    if values.len() != 1 {
        errors.push(FieldError::invalid(format!("{path}.values"), json!(values), "must have one element"));
    }
}
