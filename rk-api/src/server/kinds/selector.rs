//! Label selectors inside specs (`matchLabels`, `matchExpressions`): their rules, and whether labels match.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

use super::{
    field::{Errors, Path},
    meta, names,
    value::{self, Peek},
};
use crate::{LabelSelector, SelectorError};

/// Reads a selector of a spec.
///
/// # Errors
/// It is malformed.
pub fn parse(spec: &Value) -> Result<LabelSelector, SelectorError> {
    if spec.is_null() {
        return Ok(LabelSelector::everything());
    }
    let spec = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector::deserialize(spec)
        .map_err(|error| SelectorError(error.to_string()))?;
    LabelSelector::from_spec(&spec)
}

/// Whether a selector of a spec matches a map of labels; a malformed one matches nothing.
pub fn matches(spec: &Value, labels: &Value) -> bool {
    parse(spec).is_ok_and(|selector| selector.matches(&label_map(labels)))
}

/// A map of labels.
pub fn label_map(labels: &Value) -> BTreeMap<String, String> {
    let entries = labels.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Whether a selector has neither labels nor expressions.
pub fn is_empty(spec: &Value) -> bool {
    value::is_empty(spec.at("matchLabels")) && value::is_empty(spec.at("matchExpressions"))
}

/// The rules of a selector.
pub fn validate(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    meta::label_map(spec.at("matchLabels"), &path.child("matchLabels"), errors);
    let list = path.child("matchExpressions");
    for (i, expression) in spec.list("matchExpressions").iter().enumerate() {
        let path = list.index(i);
        let (operator, values) = (expression.text("operator"), expression.list("values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        let key = expression.text("key");
        errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
        let values_path = path.child("values");
        for (i, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            errors.invalid_all(&values_path.index(i), value, names::label_value(value));
        }
    }
}
