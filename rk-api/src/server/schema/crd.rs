//! Schemas of custom resources: structural schemas of `apiextensions.k8s.io/v1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Schema, Shape, builtin, rules::Rules};

/// Reads the root schema of a version: an object, to which `apiVersion`, `kind` and `metadata` are added.
pub(super) fn schema(root: &Value) -> Result<Schema, String> {
    let mut schema = node(root, "openAPIV3Schema")?;
    if !matches!(schema.shape, Shape::Object { .. }) {
        return Err("openAPIV3Schema.type: Invalid value: must be object at the root".to_owned());
    }
    add_object_fields(&mut schema);
    schema.source = Some(root.to_string().into());
    Ok(schema)
}

/// What every object has.
fn add_object_fields(schema: &mut Schema) {
    if let Shape::Object { fields, .. } = &mut schema.shape {
        let text = || Schema { shape: Shape::String, rules: Some(Box::default()), ..Schema::default() };
        fields.entry("apiVersion".into()).or_insert_with(text);
        fields.entry("kind".into()).or_insert_with(text);
        fields.insert("metadata".into(), builtin::object_meta());
    }
}

/// Reads one node; `path` says where it is, for errors.
pub(super) fn node(schema: &Value, path: &str) -> Result<Schema, String> {
    let Value::Object(map) = schema else {
        return Err(format!("{path}: expected an object"));
    };
    if map.contains_key("$ref") {
        return Err(format!("{path}.$ref: Forbidden: $ref is not supported"));
    }
    let flag = |key: &str| map.get(key) == Some(&Value::Bool(true));
    let shape = shape(map, path)?;
    let mut schema = Schema {
        shape,
        default: map.get("default").cloned(),
        list_type: builtin::list_type(schema),
        atomic: map.get("x-kubernetes-map-type").is_some_and(|kind| kind == "atomic"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        nullable: flag("nullable"),
        rules: Some(Box::new(Rules::read(map, path)?)),
        ..Schema::default()
    };
    if schema.embedded {
        add_object_fields(&mut schema);
    }
    Ok(schema)
}

fn shape(map: &Map<String, Value>, path: &str) -> Result<Shape, String> {
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return Ok(Shape::IntOrString);
    }
    let kind = match map.get("type") {
        None => "",
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(format!("{path}.type: must be a string")),
    };
    match kind {
        "object" => object(map, path),
        "" if map.contains_key("properties") => object(map, path),
        "" => Ok(Shape::Any),
        "array" => {
            let items = map.get("items").ok_or_else(|| format!("{path}.items: Required value: must be specified"))?;
            Ok(Shape::List(Box::new(node(items, &format!("{path}.items"))?)))
        }
        "boolean" => Ok(Shape::Bool),
        "integer" => Ok(Shape::Integer { wide: true }),
        "number" => Ok(Shape::Number),
        "string" => Ok(Shape::String),
        other => Err(format!("{path}.type: Unsupported value: {other:?}")),
    }
}

fn object(map: &Map<String, Value>, path: &str) -> Result<Shape, String> {
    let mut fields = BTreeMap::new();
    if let Some(properties) = map.get("properties") {
        let properties = properties.as_object().ok_or_else(|| format!("{path}.properties: must be an object"))?;
        for (name, field) in properties {
            fields.insert(name.as_str().into(), node(field, &format!("{path}.properties[{name}]"))?);
        }
    }
    let others = match map.get("additionalProperties") {
        None | Some(Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(Box::new(Schema {
            preserve_unknown: true,
            nullable: true,
            rules: Some(Box::default()),
            ..Schema::default()
        })),
        Some(others) => Some(Box::new(node(others, &format!("{path}.additionalProperties"))?)),
    };
    if others.is_some() && !fields.is_empty() {
        return Err(format!(
            "{path}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
        ));
    }
    Ok(Shape::Object { fields, others })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_that_are_not_structural_are_refused() {
        for (schema, error) in [
            (json!([]), "openAPIV3Schema: expected an object"),
            (json!({"type": "string"}), "openAPIV3Schema.type: Invalid value: must be object at the root"),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                "openAPIV3Schema.properties[a].items: Required value: must be specified",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "thing"}}}),
                r#"openAPIV3Schema.properties[a].type: Unsupported value: "thing""#,
            ),
            (
                json!({"type": "object", "properties": {"a": {"$ref": "#/b"}}}),
                "openAPIV3Schema.properties[a].$ref: Forbidden: $ref is not supported",
            ),
        ] {
            assert_eq!(Schema::from_crd(&schema).unwrap_err(), error, "{schema}");
        }
        let pattern = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}});
        assert!(Schema::from_crd(&pattern).unwrap_err().starts_with("openAPIV3Schema.properties[a].pattern"));
    }
}
