//! Trees in Kubernetes' protobuf form.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::{BufMut, Bytes};
use serde_json::{Value, json};

use super::{MAGIC, tables};

/// Wire types.
const NUMBER: u64 = 0;
const DOUBLE: u64 = 1;
const BYTES: u64 = 2;

/// Whether objects of this kind have a protobuf form. Custom resources have none.
pub(crate) fn has_form(api_version: &str, kind: &str) -> bool {
    message_of(api_version, kind).is_some()
}

fn message_of(api_version: &str, kind: &str) -> Option<&'static str> {
    tables().kinds.get(&format!("{api_version}/{kind}")).map(String::as_str)
}

/// An object in its envelope.
pub(crate) struct Encoded {
    bytes: Bytes,
    /// Where the object itself begins; it goes to the end.
    message: usize,
}

impl Encoded {
    /// The object in its envelope, as it is sent alone.
    pub(crate) fn envelope(&self) -> &Bytes {
        &self.bytes
    }

    /// The object itself, as it is sent in a list.
    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes[self.message..]
    }
}

/// Encodes an object; `None` if its kind has no protobuf form.
pub(crate) fn encode(object: &Value) -> Option<Encoded> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let name = message_of(api_version, kind)?;
    let mut inner = Vec::new();
    message(name, object, &mut inner);
    let mut bytes = head(api_version, kind);
    put_tag(2, BYTES, &mut bytes);
    put_varint(inner.len() as u64, &mut bytes);
    let message = bytes.len();
    bytes.append(&mut inner);
    Some(Encoded { bytes: bytes.into(), message })
}

/// What comes before the items of a list, each put by [`put_item`] behind it; it tells the length of all that, so the items' lengths are
/// to be known. `None` if the list has no protobuf form.
pub(crate) fn list_head(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = usize>,
) -> Option<Vec<u8>> {
    let name = message_of(api_version, kind)?;
    let mut own = Vec::new();
    message(name, &json!({"metadata": metadata}), &mut own);
    let mut out = head(api_version, kind);
    put_tag(2, BYTES, &mut out);
    let length = items.map(|item| 1 + varint_length(item as u64) + item).sum::<usize>() + own.len();
    put_varint(length as u64, &mut out);
    out.append(&mut own);
    Some(out)
}

/// Puts an item of a list: in every kind of list they are field 2.
pub(crate) fn put_item(item: &[u8], out: &mut impl BufMut) {
    put_tag(2, BYTES, out);
    put_varint(item.len() as u64, out);
    out.put_slice(item);
}

/// A frame of a watch: its length in four bytes, and a `WatchEvent` around an object in its envelope.
pub(crate) fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    nested(1, &mut out, |out| out.put_slice(kind.as_bytes()));
    nested(2, &mut out, |out| nested(1, out, |out| out.put_slice(object)));
    // A frame is no longer than an object, of which the store takes megabytes.
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// The envelope up to the object.
fn head(api_version: &str, kind: &str) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    nested(1, &mut out, |out| {
        nested(1, out, |out| out.put_slice(api_version.as_bytes()));
        nested(2, out, |out| out.put_slice(kind.as_bytes()));
    });
    out
}

fn put_varint(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// How many bytes a number takes: seven bits each.
fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_tag(number: u64, wire: u64, out: &mut impl BufMut) {
    put_varint(number << 3 | wire, out);
}

/// A field of bytes whose length is known once they are there.
fn nested(number: u64, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    put_tag(number, BYTES, out);
    let start = out.len();
    fill(out);
    let mut length = Vec::with_capacity(5);
    put_varint((out.len() - start) as u64, &mut length);
    out.splice(start..start, length);
}

/// The fields of a message. What the message does not have is left out.
fn message(name: &str, value: &Value, out: &mut Vec<u8>) {
    if let Some(raw) = raw_of(name, value) {
        return nested(1, out, |out| out.put_slice(&raw));
    }
    let other = general(name, value);
    let Some(fields) = tables().by_name.get(name) else { return };
    let Some(object) = other.as_ref().unwrap_or(value).as_object() else { return };
    for (key, value) in object {
        if let Some((number, code)) = fields.named.get(key) {
            field(*number, code, value, out);
        }
    }
    for (number, merged) in &fields.merged {
        nested(*number, out, |out| message(merged, value, out));
    }
}

fn field(number: u64, code: &str, value: &Value, out: &mut Vec<u8>) {
    if let Some(code) = code.strip_prefix('*') {
        for value in value.as_array().into_iter().flatten() {
            one(number, code, value, out);
        }
    } else if let Some(code) = code.strip_prefix('%') {
        for (key, value) in value.as_object().into_iter().flatten() {
            nested(number, out, |out| {
                nested(1, out, |out| out.put_slice(key.as_bytes()));
                one(2, code, value, out);
            });
        }
    } else if !value.is_null() {
        one(number, code.trim_start_matches('!'), value, out);
    }
}

fn one(number: u64, code: &str, value: &Value, out: &mut Vec<u8>) {
    match code {
        "s" => nested(number, out, |out| out.put_slice(value.as_str().unwrap_or_default().as_bytes())),
        "y" => {
            let bytes = BASE64.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
            nested(number, out, |out| out.put_slice(&bytes));
        }
        "b" => {
            put_tag(number, NUMBER, out);
            out.push(u8::from(value == true));
        }
        "i" => {
            let whole = value.as_i64().unwrap_or_else(|| value.as_f64().unwrap_or_default() as i64);
            put_tag(number, NUMBER, out);
            put_varint(u64::from_ne_bytes(whole.to_ne_bytes()), out);
        }
        "d" => {
            put_tag(number, DOUBLE, out);
            out.put_f64_le(value.as_f64().unwrap_or_default());
        }
        name => nested(number, out, |out| message(name, value, out)),
    }
}

/// The content of messages that hold any JSON as bytes.
fn raw_of(name: &str, value: &Value) -> Option<Vec<u8>> {
    matches!(name, "meta.v1.FieldsV1" | "runtime.RawExtension" | "apiextensions.v1.Json")
        .then(|| serde_json::to_vec(value).unwrap_or_default())
}

/// The fields of messages whose JSON is no object with the same fields: the other way of `special`.
fn general(name: &str, value: &Value) -> Option<Value> {
    Some(match name {
        "meta.v1.Time" | "meta.v1.MicroTime" | "meta.v1.Timestamp" => {
            let time: jiff::Timestamp = value.as_str()?.parse().ok()?;
            json!({"seconds": time.as_second(), "nanos": time.subsec_nanosecond()})
        }
        "resource.Quantity" => json!({"string": value.as_str().map_or_else(|| value.to_string(), str::to_owned)}),
        "util.intstr.IntOrString" => match value {
            Value::String(text) => json!({"type": 1, "strVal": text}),
            number => json!({"type": 0, "intVal": number}),
        },
        "apiextensions.v1.JsonSchemaPropsOrArray" => match value {
            Value::Array(schemas) => json!({"jSonSchemas": schemas}),
            schema => json!({"$schema": schema}),
        },
        "apiextensions.v1.JsonSchemaPropsOrBool" => match value {
            Value::Bool(allows) => json!({"allows": allows}),
            schema => json!({"allows": true, "$schema": schema}),
        },
        "apiextensions.v1.JsonSchemaPropsOrStringArray" => match value {
            Value::Array(names) => json!({"property": names}),
            schema => json!({"$schema": schema}),
        },
        _ if name.ends_with(".ExtraValue") || name.ends_with(".Verbs") => json!({"items": value}),
        _ => return None,
    })
}
