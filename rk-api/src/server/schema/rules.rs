//! The value rules of one node of a custom resource's schema.

use regex::Regex;
use serde_json::{Map, Value};

use super::{Schema, crd};

/// What a value must fulfil besides its shape; absent rules hold.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// The type's name, where one is given.
    pub(super) kind: Option<Box<str>>,
    pub(super) format: Option<Box<str>>,
    pub(super) required: Vec<Box<str>>,
    pub(super) choices: Vec<Value>,
    pub(super) pattern: Option<Regex>,
    /// The bound, and whether it is itself excluded.
    pub(super) minimum: Option<(f64, bool)>,
    pub(super) maximum: Option<(f64, bool)>,
    pub(super) multiple_of: Option<f64>,
    /// Least and most: characters, items, properties.
    pub(super) length: (u64, Option<u64>),
    pub(super) items: (u64, Option<u64>),
    pub(super) properties: (u64, Option<u64>),
    pub(super) unique_items: bool,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Schema>,
}

impl Rules {
    pub(super) fn read(map: &Map<String, Value>, path: &str) -> Result<Self, String> {
        let text = |key: &str| map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(Into::into);
        let flag = |key: &str| map.get(key) == Some(&Value::Bool(true));
        let count = |key: &str| map.get(key).and_then(Value::as_u64);
        let bound =
            |key: &str, exclusive: &str| map.get(key).and_then(Value::as_f64).map(|bound| (bound, flag(exclusive)));
        let schemas = |key: &str| -> Result<Vec<Schema>, String> {
            let list = map.get(key).and_then(Value::as_array).into_iter().flatten().enumerate();
            list.map(|(index, schema)| part(schema, &format!("{path}.{key}[{index}]"))).collect()
        };
        let pattern = text("pattern")
            .map(|pattern: Box<str>| {
                Regex::new(&pattern).map_err(|error| {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default();
                    format!("{path}.pattern: Invalid value: {pattern:?}: must be a valid regular expression, but isn't: {reason}")
                })
            })
            .transpose()?;
        let required = map.get("required").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            kind: text("type"),
            format: text("format"),
            required: required.filter_map(Value::as_str).map(Into::into).collect(),
            choices: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            pattern,
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: map.get("multipleOf").and_then(Value::as_f64).filter(|of| *of > 0.0),
            length: (count("minLength").unwrap_or(0), count("maxLength")),
            items: (count("minItems").unwrap_or(0), count("maxItems")),
            properties: (count("minProperties").unwrap_or(0), count("maxProperties")),
            unique_items: flag("uniqueItems"),
            all_of: schemas("allOf")?,
            any_of: schemas("anyOf")?,
            one_of: schemas("oneOf")?,
            not: map.get("not").map(|schema| part(schema, &format!("{path}.not"))).transpose()?,
        })
    }
}

/// A schema inside a logical junctor: it only judges values, so it need not say their types.
fn part(schema: &Value, path: &str) -> Result<Schema, String> {
    match schema {
        Value::Object(map) if map.contains_key("items") && !map.contains_key("type") => {
            let mut map = map.clone();
            map.insert("type".to_owned(), "array".into());
            let mut schema = crd::node(&Value::Object(map), path)?;
            if let Some(rules) = &mut schema.rules {
                rules.kind = None;
            }
            Ok(schema)
        }
        _ => crd::node(schema, path),
    }
}
