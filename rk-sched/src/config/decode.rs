//! From JSON to a type, strictly: a value of a wrong type and unknown fields are told by their paths.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::FieldError;

/// Decodes what is at `path`. Every unknown field is told; of values of wrong types the first.
pub(super) fn decode<T: DeserializeOwned + Serialize>(
    value: &Value,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    let value = without_nulls(value);
    let decoded: T = match serde_path_to_error::deserialize(&value) {
        Ok(decoded) => decoded,
        Err(error) => {
            let at = error.path().to_string();
            errors.push(FieldError::new(join(path, if at == "." { "" } else { &at }), error.inner().to_string()));
            return None;
        }
    };
    match serde_json::to_value(&decoded) {
        Ok(known) => unknown_fields(&value, &known, path, errors),
        Err(error) => errors.push(FieldError::new(path, error.to_string())),
    }
    Some(decoded)
}

/// A path below another.
fn join(path: &str, below: &str) -> String {
    let dot = if path.is_empty() || below.is_empty() { "" } else { "." };
    format!("{path}{dot}{below}")
}

/// The value without fields that are null, which mean the same as absent ones.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Tells the fields that decoding has dropped.
fn unknown_fields(given: &Value, known: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = join(path, name);
                match known.get(name) {
                    Some(known) => unknown_fields(value, known, &path, errors),
                    None => errors.push(FieldError::new(path, "unknown field")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown_fields(given, known, &format!("{path}[{index}]"), errors);
            }
        }
        // Which serde takes for the fields of a type, in their order.
        (Value::Array(_), Value::Object(_)) => {
            errors.push(FieldError::new(path, "invalid type: sequence, expected a map"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeAffinity;
    use serde_json::json;

    use super::*;

    fn errors_of(value: Value) -> Vec<String> {
        let mut errors = Vec::new();
        let _: Option<NodeAffinity> = decode(&value, "a[1].args", &mut errors);
        errors.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn unknown_fields_are_told_by_their_paths() {
        let value = json!({
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": null},
                {"matchExpressions": [{"key": "a", "operator": "In", "value": "b"}], "matchLabels": {}},
            ]},
            "preferred": [],
        });
        let required = "a[1].args.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[1]";
        assert_eq!(
            errors_of(value),
            [
                "a[1].args.preferred: unknown field".to_owned(),
                format!("{required}.matchExpressions[0].value: unknown field"),
                format!("{required}.matchLabels: unknown field"),
            ]
        );
    }

    #[test]
    fn wrong_types_are_told_by_their_paths() {
        let value = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": "high"}]});
        let told = errors_of(value);
        assert_eq!(told.len(), 1);
        let at = "a[1].args.preferredDuringSchedulingIgnoredDuringExecution[0].weight: invalid type: string \"high\"";
        assert!(told[0].starts_with(at), "{told:?}");
        assert!(
            errors_of(json!(5))[0].starts_with("a[1].args: invalid type: integer `5`"),
            "{:?}",
            errors_of(json!(5))
        );
    }
}
