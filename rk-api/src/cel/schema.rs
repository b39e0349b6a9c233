//! The types of custom resources in expressions, from their schemas
//! (<https://kubernetes.io/docs/reference/using-api/cel/#type-system-integration>), and how large their values may be.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    estimate::Bounds,
    types::{Field, ListOf, ObjectType, Type},
};
use crate::server::schema::list_type;

/// The largest request, in bytes (apiserver's `DefaultMaxRequestSizeBytes`).
const REQUEST: u64 = 3 * 1024 * 1024;

/// A type with what is known of the size of its values.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) kind: Type,
    pub(crate) bounds: Bounds,
    /// The least bytes of a value in JSON.
    pub(crate) least: u64,
}

impl Typed {
    fn of(kind: Type, most: u64, least: u64) -> Self {
        Self { kind, bounds: Bounds::sized(most), least }
    }

    /// How often a value may be in an object at most.
    pub(crate) fn most_often(&self) -> u64 {
        REQUEST / (self.least + 1)
    }
}

/// The type of a schema's values; `None` where expressions can't see them. `root` is whether they are whole objects with
/// `apiVersion`, `kind` and `metadata`.
pub(crate) fn typed(schema: &Value, root: bool, name: &str) -> Option<Typed> {
    let count = |field: &str| schema[field].as_u64();
    if schema["x-kubernetes-int-or-string"] == true {
        return Some(Typed::of(Type::Dyn, count("maxLength").unwrap_or(REQUEST - 2), 1));
    }
    let text = |kind: Type, most: u64, least: u64| Some(Typed::of(kind, count("maxLength").unwrap_or(most), least));
    match schema["type"].as_str().unwrap_or_default() {
        "boolean" => Some(Typed::of(Type::Bool, 1, 4)),
        "integer" => Some(Typed::of(Type::Int, 1, 1)),
        "number" => Some(Typed::of(Type::Double, 1, 1)),
        "string" => match schema["format"].as_str().unwrap_or_default() {
            "byte" => text(Type::Bytes, REQUEST - 2, 2),
            "date" => text(Type::Timestamp, 1, 12),
            "date-time" | "datetime" => text(Type::Timestamp, 1, 22),
            "duration" => text(Type::Duration, 1, 4),
            _ => {
                let longest =
                    schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::len).max();
                text(Type::String, longest.map_or(REQUEST - 2, |longest| longest as u64), 2)
            }
        },
        "array" => {
            let items = part(&schema["items"], &format!("{name}.@idx"))?;
            let most = count("maxItems").unwrap_or((REQUEST - 2) / (items.least + 1));
            let kind = Type::List(Arc::new(ListOf { items: items.kind, kind: list_type(schema) }));
            Some(Typed { kind, bounds: Bounds::of_items(most, items.bounds), least: 2 })
        }
        "object" if schema["additionalProperties"].is_object() => {
            let values = part(&schema["additionalProperties"], &format!("{name}.@elem"))?;
            let most = count("maxProperties").unwrap_or((REQUEST - 2) / (values.least + 6));
            let kind = Type::map(Type::String, values.kind);
            Some(Typed { kind, bounds: Bounds::of_items(most, values.bounds), least: 2 })
        }
        "object" => Some(object(schema, root, name)),
        _ => None,
    }
}

fn part(schema: &Value, name: &str) -> Option<Typed> {
    typed(schema, schema["x-kubernetes-embedded-resource"] == true, name)
}

fn object(schema: &Value, root: bool, name: &str) -> Typed {
    let (mut fields, mut bounds, mut least) = (BTreeMap::new(), BTreeMap::new(), 2);
    let mut add = |json: &str, typed: Typed| {
        if let Some(escaped) = escape(json) {
            bounds.insert(escaped.as_str().into(), typed.bounds);
            fields.insert(escaped.into(), Field { json: json.into(), kind: typed.kind });
        }
    };
    let required = |json: &str| schema["required"].as_array().is_some_and(|list| list.iter().any(|name| name == json));
    for (json, property) in schema["properties"].as_object().into_iter().flatten() {
        if root && matches!(json.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(typed) = part(property, &format!("{name}.{json}")) {
            if required(json) && property.get("default").is_none() {
                least += json.len() as u64 + typed.least + 4;
            }
            add(json, typed);
        }
    }
    if root {
        let text = || Typed::of(Type::String, REQUEST - 2, 2);
        let names =
            ["name", "generateName"].map(|name| (Box::from(name), Field { json: name.into(), kind: Type::String }));
        let meta = ObjectType { name: format!("{name}.metadata"), fields: names.into_iter().collect() };
        let sizes = ["name", "generateName"].map(|name| (Box::from(name), text().bounds));
        add("apiVersion", text());
        add("kind", text());
        let bounds = Bounds::of_fields(sizes.into_iter().collect());
        add("metadata", Typed { kind: Type::Object(Arc::new(meta)), bounds, least: 2 });
    }
    let kind = Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields }));
    Typed { kind, bounds: Bounds::of_fields(bounds), least }
}

/// Words that no identifier of CEL may be.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a field in expressions (<https://kubernetes.io/docs/reference/using-api/cel/#escaping>); `None` if it has
/// none.
pub(crate) fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut chars = name.chars();
    let first = |c: char| c.is_ascii_alphabetic() || "_.-/".contains(c);
    if !chars.next().is_some_and(first) || !chars.all(|c| first(c) || c.is_ascii_digit()) {
        return None;
    }
    let escaped = name.replace("__", "__underscores__");
    Some(escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_escaped_as_the_documentation_says() {
        for (name, escaped) in [
            ("namespace", Some("__namespace__")),
            ("x-prop", Some("x__dash__prop")),
            ("redact__d", Some("redact__underscores__d")),
            ("string", Some("string")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("1a", None),
            ("a b", None),
        ] {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
        }
    }

    #[test]
    fn schemas_have_types() {
        let schema = json!({"type": "object", "properties": {
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true},
            "when": {"type": "string", "format": "date-time"},
            "list": {"type": "array", "items": {"type": "number"}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        }});
        let Some(Typed { kind: Type::Object(object), .. }) = typed(&schema, true, "self") else { panic!("an object") };
        let shown = object.fields.iter().map(|(name, field)| format!("{name}: {}", field.kind)).collect::<Vec<_>>();
        assert_eq!(
            shown,
            [
                "apiVersion: string",
                "kind: string",
                "list: list(double)",
                "map: map(string, int)",
                "metadata: self.metadata",
                "port: dyn",
                "when: google.protobuf.Timestamp",
            ]
        );
    }
}
