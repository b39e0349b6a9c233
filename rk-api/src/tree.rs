//! Reading JSON trees in which anything may be missing.

use serde_json::Value;

/// The items of a list that may be missing or null.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text that may be missing; empty then.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
