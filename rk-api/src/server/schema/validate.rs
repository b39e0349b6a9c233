//! Validation of custom resources by their schema, in the words of apiextensions.

use serde_json::{Map, Value};

use super::{ListType, Schema, Shape, formats, parse::Path, rules::Rules};
use crate::server::{FieldError, FieldErrors};

/// The broken rules of an object. What was broken in `old` already and did not change may stay (KEP-4008).
pub(super) fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> FieldErrors {
    let mut errors = Vec::new();
    node(schema, object, old, &Path::Root, &mut errors);
    errors
}

/// Whether an object is too wrong for its rules in CEL to be evaluated.
pub(super) fn blocks_rules(error: &FieldError) -> bool {
    matches!(error.reason, "FieldValueRequired" | "FieldValueTooLong" | "FieldValueTooMany" | "FieldValueTypeInvalid")
}

/// What is said of them then.
pub(super) fn rules_not_checked() -> FieldError {
    let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    error("FieldValueInvalid", &Path::Root, format!("Invalid value: \"null\": {why}"))
}

fn error(reason: &'static str, path: &Path<'_>, message: String) -> FieldError {
    let field = path.to_string();
    FieldError { reason, field: if field.is_empty() { "<nil>".to_owned() } else { field }, message }
}

/// A broken rule as go-openapi words it: the path, `in body`, and the rule.
fn invalid(path: &Path<'_>, value: &Value, rule: &str) -> FieldError {
    error("FieldValueInvalid", path, format!("Invalid value: {value}: {path} in body {rule}"))
}

fn wrong_type(path: &Path<'_>, shown: &Value, wanted: &str) -> FieldError {
    let message = format!("Invalid value: {shown}: {path} in body must be of type {wanted}: {shown}");
    error("FieldValueTypeInvalid", path, message)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(rules) = &schema.rules else { return };
    if value.is_null() && schema.nullable || old == Some(value) {
        return;
    }
    let found = type_name(value);
    let wanted = match (&schema.shape, rules.kind.as_deref()) {
        (Shape::IntOrString, _) => (!matches!(found, "integer" | "string")).then_some("integer,string"),
        (_, Some("number")) => (!matches!(found, "integer" | "number")).then_some("number"),
        (_, Some(kind)) => (found != kind).then_some(kind),
        (_, None) => None,
    };
    if let Some(wanted) = wanted {
        errors.push(wrong_type(path, &found.into(), wanted));
        return;
    }
    match value {
        Value::String(text) => string(rules, text, value, path, errors),
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                bounds(rules, number, value, path, errors);
            }
        }
        Value::Array(list) => array(schema, rules, (list, value), old.and_then(Value::as_array), path, errors),
        Value::Object(map) => object(schema, rules, (map, value), old.and_then(Value::as_object), path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    if !rules.choices.is_empty() && !rules.choices.contains(value) {
        let quoted = rules.choices.iter().map(|choice| match choice {
            Value::String(text) => format!("{text:?}"),
            other => format!("{:?}", other.to_string()),
        });
        let supported = quoted.collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {value}: supported values: {supported}");
        errors.push(error("FieldValueNotSupported", path, message));
    }
    junctors(rules, value, path, errors);
}

fn string(rules: &Rules, text: &str, value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let length = text.chars().count() as u64;
    if let Some(most) = rules.length.1
        && length > most
    {
        errors.push(error("FieldValueTooLong", path, format!("Too long: may not be more than {most} bytes")));
    }
    if length < rules.length.0 {
        errors.push(invalid(path, value, &format!("should be at least {} chars long", rules.length.0)));
    }
    if let Some(pattern) = &rules.pattern
        && !pattern.is_match(text)
    {
        errors.push(invalid(path, value, &format!("should match '{pattern}'")));
    }
    if let Some(format) = &rules.format
        && !formats::holds(format, text)
    {
        errors.push(wrong_type(path, value, format));
    }
}

fn bounds(rules: &Rules, number: f64, value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match rules.minimum {
        Some((least, true)) if number <= least => {
            errors.push(invalid(path, value, &format!("should be greater than {least}")));
        }
        Some((least, false)) if number < least => {
            errors.push(invalid(path, value, &format!("should be greater than or equal to {least}")));
        }
        _ => {}
    }
    match rules.maximum {
        Some((most, true)) if number >= most => {
            errors.push(invalid(path, value, &format!("should be less than {most}")));
        }
        Some((most, false)) if number > most => {
            errors.push(invalid(path, value, &format!("should be less than or equal to {most}")));
        }
        _ => {}
    }
    if let Some(of) = rules.multiple_of
        && ((number / of).round() * of - number).abs() > f64::EPSILON * number.abs().max(1.0)
    {
        errors.push(invalid(path, value, &format!("should be a multiple of {of}")));
    }
    let outside = match rules.format.as_deref() {
        Some("int32") => number < f64::from(i32::MIN) || number > f64::from(i32::MAX),
        Some("int64") => number < i64::MIN as f64 || number > i64::MAX as f64,
        _ => false,
    };
    if outside {
        errors.push(invalid(path, value, &format!("must be a valid {}", rules.format.as_deref().unwrap_or_default())));
    }
}

fn too_many(path: &Path<'_>, found: usize, most: u64) -> FieldError {
    let items = if most == 1 { "item" } else { "items" };
    error("FieldValueTooMany", path, format!("Too many: {found}: must have at most {most} {items}"))
}

fn array(
    schema: &Schema,
    rules: &Rules,
    (list, value): (&[Value], &Value),
    old: Option<&Vec<Value>>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let count = list.len() as u64;
    if let Some(most) = rules.items.1
        && count > most
    {
        errors.push(too_many(path, list.len(), most));
    }
    if count < rules.items.0 {
        errors.push(invalid(path, value, &format!("should have at least {} items", rules.items.0)));
    }
    if rules.unique_items && list.iter().enumerate().any(|(index, item)| list[..index].contains(item)) {
        errors.push(invalid(path, value, "shouldn't contain duplicates"));
    }
    duplicates(schema, list, path, errors);
    if let Shape::List(items) = &schema.shape {
        for ((index, item), old) in list.iter().enumerate().zip(schema.list_type.counterparts(list, old)) {
            node(items, item, old, &Path::Item(path, index), errors);
        }
    }
}

/// Items of sets and maps are unique.
fn duplicates(schema: &Schema, list: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    let identity = |item: &Value| match &schema.list_type {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map(keys) => {
            let keys = keys.iter().filter_map(|key| {
                let default = || schema.items().and_then(|items| items.field(key)?.default.as_ref());
                item.get(&**key).or_else(default).map(|value| (key.to_string(), value.clone()))
            });
            Some(Value::Object(keys.collect()))
        }
    };
    let mut seen = std::collections::HashSet::new();
    for (index, item) in list.iter().enumerate() {
        if let Some(identity) = identity(item) {
            let text = identity.to_string();
            let message = format!("Duplicate value: {text}");
            if !seen.insert(text) {
                errors.push(error("FieldValueDuplicate", &Path::Item(path, index), message));
            }
        }
    }
}

fn object(
    schema: &Schema,
    rules: &Rules,
    (map, value): (&Map<String, Value>, &Value),
    old: Option<&Map<String, Value>>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let count = map.len() as u64;
    if let Some(most) = rules.properties.1
        && count > most
    {
        errors.push(too_many(path, map.len(), most));
    }
    if count < rules.properties.0 {
        errors.push(invalid(path, value, &format!("should have at least {} properties", rules.properties.0)));
    }
    for name in &rules.required {
        if !map.contains_key(&**name) {
            errors.push(error("FieldValueRequired", &Path::Field(path, name), "Required value".to_owned()));
        }
    }
    if schema.embedded {
        for name in ["apiVersion", "kind"] {
            if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                let message = "Required value: must not be empty".to_owned();
                errors.push(error("FieldValueRequired", &Path::Field(path, name), message));
            }
        }
    }
    for (name, inner) in map {
        if let Some(field) = schema.field(name) {
            node(field, inner, old.and_then(|old| old.get(name)), &Path::Field(path, name), errors);
        }
    }
}

fn junctors(rules: &Rules, value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let holds = |schema: &Schema| {
        let mut errors = Vec::new();
        node(schema, value, None, path, &mut errors);
        errors.is_empty()
    };
    let name = path.to_string();
    let mut broken = |rule: String| {
        errors.push(error("FieldValueInvalid", path, format!("Invalid value: {value}: {name:?} {rule}")));
    };
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(holds) {
        broken("must validate at least one schema (anyOf)".to_owned());
    }
    if !rules.one_of.is_empty() {
        let valid = rules.one_of.iter().filter(|schema| holds(schema)).count();
        if valid != 1 {
            let found = if valid == 0 { "none valid".to_owned() } else { format!("{valid} valid alternatives") };
            broken(format!("must validate one and only one schema (oneOf). Found {found}"));
        }
    }
    if rules.not.as_ref().is_some_and(holds) {
        broken("must not validate the schema (not)".to_owned());
    }
    if !rules.all_of.iter().all(holds) {
        broken("must validate all the schemas (allOf)".to_owned());
        for schema in &rules.all_of {
            node(schema, value, None, path, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(schema: Value, spec: Value) -> Vec<String> {
        let schema = Schema::from_crd(&json!({"type": "object", "properties": {"spec": schema}})).unwrap();
        let object = json!({"apiVersion": "e.com/v1", "kind": "E", "metadata": {"name": "a"}, "spec": spec});
        schema.validate(&object, None).iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn broken_rules_are_worded_as_kubernetes_does() {
        for (schema, spec, message) in [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "integer"}),
                json!(1.5),
                r#"spec: Invalid value: "number": spec in body must be of type integer: "number""#,
            ),
            (
                json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
                json!({}),
                "spec.a: Required value",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                r#"spec: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (
                json!({"type": "string", "pattern": "^a$"}),
                json!("c"),
                r#"spec: Invalid value: "c": spec in body should match '^a$'"#,
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "integer", "maximum": 1}),
                json!(2),
                "spec: Invalid value: 2: spec in body should be less than or equal to 1",
            ),
            (
                json!({"type": "number", "maximum": 1, "exclusiveMaximum": true}),
                json!(1),
                "spec: Invalid value: 1: spec in body should be less than 1",
            ),
            (
                json!({"type": "integer", "multipleOf": 3}),
                json!(4),
                "spec: Invalid value: 4: spec in body should be a multiple of 3",
            ),
            (json!({"type": "string", "maxLength": 2}), json!("abc"), "spec: Too long: may not be more than 2 bytes"),
            (
                json!({"type": "string", "minLength": 2}),
                json!("a"),
                r#"spec: Invalid value: "a": spec in body should be at least 2 chars long"#,
            ),
            (
                json!({"type": "array", "items": {"type": "integer"}, "maxItems": 1}),
                json!([1, 2]),
                "spec: Too many: 2: must have at most 1 item",
            ),
            (
                json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}),
                json!([]),
                "spec: Invalid value: []: spec in body should have at least 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
                json!(["a", "a"]),
                r#"spec[1]: Duplicate value: "a""#,
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                       "items": {"type": "object", "properties": {"name": {"type": "string"}}}}),
                json!([{"name": "a"}, {"name": "a"}]),
                r#"spec[1]: Duplicate value: {"name":"a"}"#,
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                r#"spec: Invalid value: "x": spec in body must be of type date-time: "x""#,
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                       "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({}),
                r#"spec: Invalid value: {}: "spec" must validate one and only one schema (oneOf). Found none valid"#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"a": 1}),
                r#"spec.a: Invalid value: "integer": spec.a in body must be of type string: "integer""#,
            ),
        ] {
            assert_eq!(messages(schema.clone(), spec), [message], "{schema}");
        }
    }

    #[test]
    fn what_holds_is_silent() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "nullable": true},
            "n": {"type": "number"},
            "i": {"type": "integer"},
            "p": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"x-kubernetes-preserve-unknown-fields": true},
        }});
        assert!(messages(schema, json!({"a": null, "n": 1, "i": 1.0, "p": "50%", "free": [1, {}]})).is_empty());
    }
}
