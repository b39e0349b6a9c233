//! The older form as protobuf, the only form of it that kubectl asks for: the messages `openapi.v2` of gnostic
//! (<https://github.com/google/gnostic/blob/main/openapiv2/OpenAPIv2.proto>). Each table has the numbers of a message's
//! fields by the names that the document gives them.

use serde_json::Value;

/// How a field is written.
enum Kind {
    Text,
    Texts,
    Flag,
    Double,
    Integer,
    /// Any value, as YAML.
    Any,
    Anys,
    One(fn(&Value) -> Vec<u8>),
    Many(fn(&Value) -> Vec<u8>),
}

use Kind::{Any, Anys, Double, Flag, Integer, Many, One, Text, Texts};

/// Name, number and kind of each field.
type Fields = &'static [(&'static str, u32, Kind)];

const DOCUMENT: Fields = &[
    ("swagger", 1, Text),
    ("info", 2, One(info)),
    ("paths", 8, One(paths)),
    ("definitions", 9, One(schemas)),
    ("security", 12, Many(security_requirement)),
    ("securityDefinitions", 13, One(security_definitions)),
];
const INFO: Fields = &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)];
const PATH_ITEM: Fields = &[
    ("get", 2, One(operation)),
    ("put", 3, One(operation)),
    ("post", 4, One(operation)),
    ("delete", 5, One(operation)),
    ("options", 6, One(operation)),
    ("head", 7, One(operation)),
    ("patch", 8, One(operation)),
    ("parameters", 9, Many(parameter)),
];
const OPERATION: Fields = &[
    ("tags", 1, Texts),
    ("summary", 2, Text),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, Texts),
    ("consumes", 7, Texts),
    ("parameters", 8, Many(parameter)),
    ("responses", 9, One(responses)),
    ("schemes", 10, Texts),
    ("deprecated", 11, Flag),
];
const BODY: Fields =
    &[("description", 1, Text), ("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, One(schema))];
const PATH_PARAMETER: Fields = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("format", 6, Text),
    ("uniqueItems", 19, Flag),
];
const QUERY_PARAMETER: Fields = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 6, Text),
    ("format", 7, Text),
    ("uniqueItems", 20, Flag),
];
const RESPONSE: Fields = &[("description", 1, Text), ("schema", 2, One(schema_item))];
const API_KEY: Fields = &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)];
const EXTERNAL_DOCS: Fields = &[("description", 1, Text), ("url", 2, Text)];
const SCHEMA: Fields = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("multipleOf", 6, Double),
    ("maximum", 7, Double),
    ("exclusiveMaximum", 8, Flag),
    ("minimum", 9, Double),
    ("exclusiveMinimum", 10, Flag),
    ("maxLength", 11, Integer),
    ("minLength", 12, Integer),
    ("pattern", 13, Text),
    ("maxItems", 14, Integer),
    ("minItems", 15, Integer),
    ("uniqueItems", 16, Flag),
    ("maxProperties", 17, Integer),
    ("minProperties", 18, Integer),
    ("required", 19, Texts),
    ("enum", 20, Anys),
    ("additionalProperties", 21, One(additional_properties)),
    ("type", 22, One(texts)),
    ("items", 23, One(schema_item)),
    ("properties", 25, One(schemas)),
    ("externalDocs", 29, One(external_docs)),
    ("example", 30, Any),
];

/// The document in protobuf.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    message(document, DOCUMENT, 0)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits, and that more follow.
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    varint(out, (u64::from(number) << 3) | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A message with one field.
fn wrapped(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    bytes(&mut out, number, content);
    out
}

fn any(value: &Value) -> Vec<u8> {
    wrapped(2, format!("{value}\n").as_bytes())
}

fn named(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = wrapped(1, name.as_bytes());
    bytes(&mut out, 2, content);
    out
}

/// A message that stands for a map: its entries as pairs of name and value.
fn map(value: &Value, number: u32, of: fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        bytes(&mut out, number, &named(name, &of(value)));
    }
    out
}

/// A message by its table; what its author may add (`x-...`) goes into the field `extensions`, if there is one.
fn message(value: &Value, fields: Fields, extensions: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, kind) in fields {
        let (number, Some(value)) = (*number, value.get(name)) else { continue };
        let each = || value.as_array().into_iter().flatten();
        match kind {
            Text => bytes(&mut out, number, value.as_str().unwrap_or_default().as_bytes()),
            Texts => each().filter_map(Value::as_str).for_each(|text| bytes(&mut out, number, text.as_bytes())),
            Flag if value == &Value::Bool(true) => {
                varint(&mut out, u64::from(number) << 3);
                out.push(1);
            }
            Flag => {}
            Double => {
                varint(&mut out, (u64::from(number) << 3) | 1);
                out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
            }
            Integer => {
                varint(&mut out, u64::from(number) << 3);
                varint(&mut out, value.as_i64().unwrap_or_default().cast_unsigned());
            }
            Any => bytes(&mut out, number, &any(value)),
            Anys => each().for_each(|value| bytes(&mut out, number, &any(value))),
            One(of) => bytes(&mut out, number, &of(value)),
            Many(of) => each().for_each(|value| bytes(&mut out, number, &of(value))),
        }
    }
    if extensions > 0 {
        for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
            bytes(&mut out, extensions, &named(name, &any(value)));
        }
    }
    out
}

fn info(value: &Value) -> Vec<u8> {
    message(value, INFO, 7)
}

fn paths(value: &Value) -> Vec<u8> {
    map(value, 2, |item| message(item, PATH_ITEM, 10))
}

fn operation(value: &Value) -> Vec<u8> {
    message(value, OPERATION, 13)
}

/// A `ParametersItem` that is a `Parameter`, in the body or one of the others.
fn parameter(value: &Value) -> Vec<u8> {
    let parameter = match value["in"].as_str() {
        Some("body") => wrapped(1, &message(value, BODY, 6)),
        Some("path") => wrapped(2, &wrapped(4, &message(value, PATH_PARAMETER, 22))),
        _ => wrapped(2, &wrapped(3, &message(value, QUERY_PARAMETER, 23))),
    };
    wrapped(1, &parameter)
}

fn responses(value: &Value) -> Vec<u8> {
    map(value, 1, |response| wrapped(1, &message(response, RESPONSE, 5)))
}

fn schema(value: &Value) -> Vec<u8> {
    message(value, SCHEMA, 31)
}

/// A `SchemaItem` or `ItemsItem`.
fn schema_item(value: &Value) -> Vec<u8> {
    wrapped(1, &schema(value))
}

fn schemas(value: &Value) -> Vec<u8> {
    map(value, 1, schema)
}

fn additional_properties(value: &Value) -> Vec<u8> {
    match value {
        Value::Bool(allowed) => vec![2 << 3, u8::from(*allowed)],
        _ => schema_item(value),
    }
}

/// A message that is a list of texts, or one.
fn texts(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_str).for_each(|text| bytes(&mut out, 1, text.as_bytes()));
    out
}

fn external_docs(value: &Value) -> Vec<u8> {
    message(value, EXTERNAL_DOCS, 3)
}

fn security_requirement(value: &Value) -> Vec<u8> {
    map(value, 1, texts)
}

fn security_definitions(value: &Value) -> Vec<u8> {
    map(value, 1, |item| wrapped(2, &message(item, API_KEY, 5)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A field of few bytes, by its tag.
    fn field(tag: &[u8], content: &[u8]) -> Vec<u8> {
        [tag, &[content.len() as u8], content].concat()
    }

    #[test]
    fn each_field_has_its_number_and_its_form() {
        let parameter = json!({"name": "q", "in": "query", "type": "string", "uniqueItems": true});
        let document = json!({
            "swagger": "2.0",
            "paths": {"/a": {"get": {"parameters": [parameter]}}},
            "definitions": {"A": {"type": "object", "maximum": 1, "minLength": 300, "additionalProperties": true,
                "x-kubernetes-map-type": "atomic", "properties": {"b": {"$ref": "r", "default": {}}}}},
        });
        // What protoc makes of the text form: 1: "2.0" 8 { 2 { 1: "/a" 2 { 2 { 8 { 1 { 2 { 3 { ... } } } } } } } }
        // 9 { 1 { 1: "A" 2 { ... } } }
        let query = b"\x12\x05query\x22\x01q\x32\x06string\xa0\x01\x01";
        let wrap = |number: u8, content: &[u8]| field(&[(number << 3) | 2], content);
        let operation = wrap(8, &wrap(1, &wrap(2, &wrap(3, query))));
        let paths = wrap(2, &[b"\x0a\x02/a".to_vec(), wrap(2, &wrap(2, &operation))].concat());
        let inner = [wrap(1, b"b"), wrap(2, b"\x0a\x01r\x2a\x05\x12\x03{}\n")].concat();
        let properties = wrap(1, &inner);
        let extension = [wrap(1, b"x-kubernetes-map-type"), wrap(2, &wrap(2, b"\"atomic\"\n"))].concat();
        let schema = [
            b"\x39\0\0\0\0\0\0\xf0\x3f".to_vec(),
            b"\x60\xac\x02".to_vec(),
            b"\xaa\x01\x02\x10\x01".to_vec(),
            b"\xb2\x01\x08\x0a\x06object".to_vec(),
            field(b"\xca\x01", &properties),
            field(b"\xfa\x01", &extension),
        ]
        .concat();
        let definitions = wrap(1, &[wrap(1, b"A"), wrap(2, &schema)].concat());
        let expected = [wrap(1, b"2.0"), wrap(8, &paths), wrap(9, &definitions)].concat();
        assert_eq!(encode(&document), expected);
    }
}
