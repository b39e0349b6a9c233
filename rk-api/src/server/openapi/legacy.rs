//! The older form, Swagger 2.0, made from the newer.

use serde_json::{Map, Value, json};

use super::schemas::REFERENCE;

/// One document of everything.
pub(super) fn document(mut paths: Map<String, Value>, mut schemas: Map<String, Value>) -> Value {
    for item in paths.values_mut().filter_map(Value::as_object_mut) {
        for (method, operation) in item {
            if method == "parameters" {
                operation.as_array_mut().into_iter().flatten().for_each(flatten_parameter);
            } else {
                old_operation(operation);
            }
        }
    }
    schemas.values_mut().for_each(old_schema);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "definitions": schemas,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// A parameter has its type beside its name.
fn flatten_parameter(parameter: &mut Value) {
    if let Some(Value::Object(schema)) = parameter.as_object_mut().and_then(|parameter| parameter.remove("schema")) {
        for (key, value) in schema {
            parameter[key] = value;
        }
    }
}

/// A body is a parameter, and an answer has one schema and its media types beside it.
fn old_operation(operation: &mut Value) {
    let Some(map) = operation.as_object_mut() else { return };
    let mut parameters = match map.remove("parameters") {
        Some(Value::Array(parameters)) => parameters,
        _ => Vec::new(),
    };
    parameters.iter_mut().for_each(flatten_parameter);
    if let Some(body) = map.remove("requestBody") {
        let content = body["content"].as_object();
        let media_types: Vec<_> = content.into_iter().flat_map(Map::keys).cloned().collect();
        if let Some(schema) = content.and_then(|content| content.values().next()).map(|media| media["schema"].clone()) {
            let mut parameter = json!({"name": "body", "in": "body", "required": true, "schema": schema});
            old_schema(&mut parameter["schema"]);
            parameters.push(parameter);
        }
        map.insert("consumes".to_owned(), json!(media_types));
    }
    if !parameters.is_empty() {
        map.insert("parameters".to_owned(), Value::Array(parameters));
    }
    for answer in map.get_mut("responses").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        let content = answer.as_object_mut().and_then(|answer| answer.remove("content"));
        let schema = content.and_then(|content| Some(content.as_object()?.values().next()?["schema"].clone()));
        if let Some(mut schema) = schema {
            old_schema(&mut schema);
            answer["schema"] = schema;
        }
    }
    map.insert("produces".to_owned(), json!(["application/json", "application/yaml"]));
    map.insert("schemes".to_owned(), json!(["https"]));
}

/// References point elsewhere and stand alone; alternatives and nullability can't be said.
fn old_schema(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(reference) = map.get("allOf").and_then(|all| all[0].get("$ref")).cloned() {
        map.remove("allOf");
        map.insert("$ref".to_owned(), reference);
    }
    if let Some(Value::String(reference)) = map.get_mut("$ref") {
        *reference = reference.replace(REFERENCE, "#/definitions/");
        map.remove("default");
    }
    if map.contains_key("oneOf") && !map.contains_key("type") {
        map.insert("type".to_owned(), "string".into());
    }
    for key in ["oneOf", "anyOf", "allOf", "not", "nullable"] {
        map.remove(key);
    }
    for inner in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        old_schema(inner);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            old_schema(inner);
        }
    }
}
