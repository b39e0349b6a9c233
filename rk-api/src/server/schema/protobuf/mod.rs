//! Kubernetes' protobuf form, which typed Go clients speak: four bytes of magic, an envelope
//! (`runtime.Unknown`) that names the kind, and the message of that kind
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>).
//!
//! The messages' fields come from `rk-api/data/protobuf.json.gz`; a message becomes the JSON tree of the same object, and the
//! other way round (`encode`).
//! Go writes fields that are no pointers even if they are zero: such zeros are left out, as Go's JSON does.

mod encode;

use std::{collections::HashMap, io::Read, sync::OnceLock};

use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use encode::{Encoded, encode, has_form, list_head, put_item, watch_frame};

const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages.
const DEPTH: usize = 100;

#[derive(Deserialize)]
struct Tables {
    kinds: HashMap<String, String>,
    messages: HashMap<String, HashMap<u64, (String, String)>>,
    #[serde(skip)]
    by_name: HashMap<String, Fields>,
}

/// A message's fields: number and type.
#[derive(Default)]
struct Fields {
    named: HashMap<String, (u64, String)>,
    /// Messages whose fields are those of this one in JSON.
    merged: Vec<(u64, String)>,
}

impl Fields {
    fn of(fields: &HashMap<u64, (String, String)>) -> Self {
        let mut sorted = Self::default();
        for (&number, (field, code)) in fields {
            if field.is_empty() {
                sorted.merged.push((number, code.clone()));
            } else {
                sorted.named.insert(field.clone(), (number, code.clone()));
            }
        }
        sorted
    }
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(&include_bytes!("../../../../data/protobuf.json.gz")[..])
            .read_to_end(&mut json)
            .expect("the built-in protobuf tables are compressed");
        let mut tables: Tables = serde_json::from_slice(&json).expect("the built-in protobuf tables are well-formed");
        tables.add_partial("PartialObjectMetadata", "meta.v1.ObjectMeta");
        tables.add_partial("PartialObjectMetadataList", "meta.v1.ListMeta");
        let items = ("items".to_owned(), "*meta.v1.PartialObjectMetadata".to_owned());
        tables.messages.entry("meta.v1.PartialObjectMetadataList".to_owned()).or_default().insert(2, items);
        tables.by_name = tables.messages.iter().map(|(name, fields)| (name.clone(), Fields::of(fields))).collect();
        tables
    })
}

impl Tables {
    /// Objects with metadata only, which the published messages of the groups do not have.
    fn add_partial(&mut self, kind: &str, metadata: &str) {
        let name = format!("meta.v1.{kind}");
        self.kinds.insert(format!("meta.k8s.io/v1/{kind}"), name.clone());
        self.messages.entry(name).or_default().insert(1, ("metadata".to_owned(), metadata.to_owned()));
    }
}

/// Why bytes are no such message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Magic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal {0}")]
    Illegal(&'static str),
    #[error("no kind {0:?} is registered")]
    Unknown(String),
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// One field as it is on the wire.
enum Wire<'a> {
    Number(u64),
    Double([u8; 8]),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(ProtobufError::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Illegal("varint"))
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8]> {
    let count = usize::try_from(count).map_err(|_| ProtobufError::Truncated)?;
    let (taken, rest) = bytes.split_at_checked(count).ok_or(ProtobufError::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

/// The next field: its number and content.
fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u64, Wire<'a>)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        1 => {
            let mut eight = [0; 8];
            eight.copy_from_slice(take(bytes, 8)?);
            Wire::Double(eight)
        }
        2 => {
            let length = varint(bytes)?;
            Wire::Bytes(take(bytes, length)?)
        }
        5 => Wire::Bytes(take(bytes, 4)?),
        _ => return Err(ProtobufError::Illegal("wireType")),
    };
    Ok(Some((tag >> 3, wire)))
}

fn text(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Illegal("UTF-8"))
}

/// The object in a body.
///
/// # Errors
/// It is none, or of an unknown kind.
pub(crate) fn parse(body: &[u8]) -> Result<Value> {
    let mut envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, wire)) = next(&mut envelope)? {
        match (number, wire) {
            (1, Wire::Bytes(mut meta)) => {
                while let Some((number, wire)) = next(&mut meta)? {
                    match (number, wire) {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let message = tables().kinds.get(&format!("{api_version}/{kind}"));
    let Some(message) = message else { return Err(ProtobufError::Unknown(format!("{api_version}, {kind}"))) };
    let mut object = self::message(message, raw, DEPTH)?;
    if let Value::Object(fields) = &mut object {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
    }
    Ok(object)
}

/// A message as JSON; null where it stands for nothing (an unset time).
fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Value> {
    if depth == 0 {
        return Err(ProtobufError::Illegal("nesting"));
    }
    let none = HashMap::new();
    let fields = tables().messages.get(name).unwrap_or(&none);
    let mut object = Map::new();
    let mut rest = bytes;
    while let Some((number, wire)) = next(&mut rest)? {
        let Some((field, code)) = fields.get(&number) else { continue };
        if let Some(code) = code.strip_prefix('*') {
            let list = object.entry(field.clone()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(value(code, &wire, depth)?);
            }
        } else if let Some(code) = code.strip_prefix('%') {
            let Wire::Bytes(entry) = wire else { return Err(ProtobufError::Illegal("map")) };
            let (key, value) = entry_of(code, entry, depth)?;
            let map = object.entry(field.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        } else {
            let found = value(code.strip_prefix('!').unwrap_or(code), &wire, depth)?;
            match found {
                Value::Object(inner) if field.is_empty() => object.extend(inner),
                Value::Null => {}
                found if code.len() == 1 && is_zero(&found) => {}
                found => {
                    object.insert(field.clone(), found);
                }
            }
        }
    }
    Ok(special(name, object))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

fn entry_of(code: &str, mut entry: &[u8], depth: usize) -> Result<(String, Value)> {
    let (mut key, mut found) = (String::new(), None);
    while let Some((number, wire)) = next(&mut entry)? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => found = Some(value(code, &wire, depth)?),
            _ => {}
        }
    }
    let empty = || if matches!(code, "s" | "y") { Value::from("") } else { Value::Object(Map::new()) };
    Ok((key, found.unwrap_or_else(empty)))
}

fn value(code: &str, wire: &Wire<'_>, depth: usize) -> Result<Value> {
    use base64::Engine as _;
    Ok(match (code, wire) {
        ("s", Wire::Bytes(bytes)) => text(bytes)?.into(),
        ("y", Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        ("b", Wire::Number(number)) => (*number != 0).into(),
        // A varint is the two's complement of the number in 64 bits.
        ("i", Wire::Number(number)) => i64::from_ne_bytes(number.to_ne_bytes()).into(),
        ("d", Wire::Double(bytes)) => f64::from_le_bytes(*bytes).into(),
        (name, Wire::Bytes(bytes)) if name.contains('.') => message(name, bytes, depth - 1)?,
        _ => return Err(ProtobufError::Illegal("wireType for the field")),
    })
}

/// Messages whose JSON is no object with the same fields.
fn special(name: &str, mut object: Map<String, Value>) -> Value {
    let mut take = |field: &str| object.remove(field).unwrap_or_default();
    match name {
        "meta.v1.Time" | "meta.v1.MicroTime" | "meta.v1.Timestamp" => {
            let (seconds, nanos) = (take("seconds"), take("nanos"));
            let (Some(seconds), nanos) = (seconds.as_i64(), nanos.as_i64().unwrap_or(0)) else { return Value::Null };
            let format = if name == "meta.v1.MicroTime" { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
            let nanos = i32::try_from(nanos).unwrap_or(0);
            jiff::Timestamp::new(seconds, nanos).map_or(Value::Null, |time| time.strftime(format).to_string().into())
        }
        "meta.v1.Duration" => {
            let nanos = take("duration").as_i64().unwrap_or(0);
            format!("{}s", nanos as f64 / 1e9).into()
        }
        "resource.Quantity" => {
            let text = take("string");
            if text.is_null() { "0".into() } else { text }
        }
        "util.intstr.IntOrString" => match take("type").as_i64() {
            Some(1) => {
                let text = take("strVal");
                if text.is_null() { "".into() } else { text }
            }
            _ => take("intVal").as_i64().unwrap_or(0).into(),
        },
        "meta.v1.FieldsV1" | "runtime.RawExtension" | "apiextensions.v1.Json" => {
            use base64::Engine as _;
            let raw = take("raw");
            let raw = base64::engine::general_purpose::STANDARD.decode(raw.as_str().unwrap_or_default());
            raw.ok().and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default()
        }
        "apiextensions.v1.JsonSchemaPropsOrArray" => match take("$schema") {
            Value::Null => take("jSonSchemas"),
            schema => schema,
        },
        "apiextensions.v1.JsonSchemaPropsOrBool" => match take("$schema") {
            Value::Null => (take("allows") == true).into(),
            schema => schema,
        },
        "apiextensions.v1.JsonSchemaPropsOrStringArray" => match take("$schema") {
            Value::Null => take("property"),
            schema => schema,
        },
        _ if name.ends_with(".ExtraValue") || name.ends_with(".Verbs") => take("items"),
        _ => Value::Object(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw)].concat()
    }

    #[test]
    fn a_body_of_kubectl_is_read() {
        // What `kubectl create configmap c --from-literal=a=b` sends.
        let sent = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b\x0a\x11\x0a\x01c\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x06\x0a\x01a\x12\x01b\x1a\x00\x22\x00";
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
        assert_eq!(parse(sent).unwrap(), wanted);
    }

    #[test]
    fn zeros_that_mean_something_stay() {
        let spec = [&[0x08, 0, 0x28, 0][..], &field(3, &[])].concat();
        let sent = body("apps/v1", "Deployment", &field(2, &spec));
        assert_eq!(parse(&sent).unwrap()["spec"], json!({"replicas": 0, "template": {}}));
        let budget = field(2, &field(3, &[0x08, 0, 0x10, 0, 0x1a, 0]));
        assert_eq!(parse(&body("policy/v1", "PodDisruptionBudget", &budget)).unwrap()["spec"]["maxUnavailable"], 0);
    }

    #[test]
    fn broken_bodies_are_errors() {
        let good = body("v1", "ConfigMap", &field(1, &field(1, b"c")));
        assert!(parse(&good).is_ok());
        for cut in 0..good.len() - 1 {
            let read = parse(&good[..cut]);
            assert!(read.is_err() || read.unwrap() != parse(&good).unwrap(), "{cut}");
        }
        assert!(matches!(parse(&body("v1", "Nothing", b"")), Err(ProtobufError::Unknown(_))));
    }

    #[test]
    fn every_field_of_a_known_message_is_known() {
        let tables = tables();
        for message in tables.kinds.values() {
            assert!(tables.messages.contains_key(message), "{message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
            let _ = parse(&[MAGIC, &bytes].concat());
            for message in ["core.v1.Pod", "apiextensions.v1.CustomResourceDefinition"] {
                let _ = super::message(message, &bytes, DEPTH);
            }
        }
    }
}
