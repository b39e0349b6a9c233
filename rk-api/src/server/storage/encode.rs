//! The stored form of an object: canonical JSON with `apiVersion`, `kind` and `metadata` in front and without a
//! `resourceVersion`, which is the store's revision and spliced in when the object is read.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use rk_store::Revision;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::{Error, Object};

const METADATA: &[u8] = b"\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";

/// The fields of an object, or of a part of one, each as the JSON that it is: to change one without taking the others apart.
pub(crate) type Fields<'a> = BTreeMap<String, Cow<'a, RawValue>>;

/// The fields of an object in JSON.
///
/// # Errors
/// It is no object in JSON.
pub(crate) fn fields(json: &str) -> Result<Fields<'_>, serde_json::Error> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
    Ok(fields.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect())
}

fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a JSON tree always encodes into memory");
}

fn append_field<T: Serialize>(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &T) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    append(out, name);
    out.push(b':');
    append(out, value);
}

/// Encodes an object for the store.
pub(crate) fn encode(object: &Value) -> Bytes {
    let metadata = object["metadata"].as_object().into_iter().flatten();
    encode_parts(|name| object.get(name), metadata, object.as_object().into_iter().flatten())
}

/// As [`encode`], from fields; those in `metadata` are the object's metadata.
pub(crate) fn encode_fields(object: &Fields<'_>, metadata: &Fields<'_>) -> Bytes {
    encode_parts(|name| object.get(name), metadata.iter(), object.iter())
}

fn encode_parts<'a, T: Serialize + 'a>(
    head: impl Fn(&str) -> Option<&'a T>,
    metadata: impl Iterator<Item = (&'a String, &'a T)>,
    fields: impl Iterator<Item = (&'a String, &'a T)>,
) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let mut first = true;
    for name in ["apiVersion", "kind"] {
        if let Some(value) = head(name) {
            append_field(&mut out, &mut first, name, value);
        }
    }
    if !first {
        out.push(b',');
    }
    out.extend_from_slice(METADATA);
    let mut first = true;
    for (name, value) in metadata {
        if name != "resourceVersion" && name != "selfLink" {
            append_field(&mut out, &mut first, name, value);
        }
    }
    out.push(b'}');
    for (name, value) in fields {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            append_field(&mut out, &mut false, name, value);
        }
    }
    out.push(b'}');
    out.into()
}

/// The encoding with `resourceVersion` set to a revision, whether it had one or not.
fn splice(json: &[u8], revision: Revision) -> Option<Bytes> {
    let at = json.windows(METADATA.len()).position(|window| window == METADATA)? + METADATA.len();
    let mut rest = &json[at..];
    if let Some(after) = rest.strip_prefix(VERSION) {
        rest = &after[after.iter().position(|&b| b == b'"')? + 1..];
        rest = rest.strip_prefix(b",").unwrap_or(rest);
    }
    let mut out = Vec::with_capacity(json.len() + 48);
    out.extend_from_slice(&json[..at]);
    out.extend_from_slice(VERSION);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.push(b'"');
    if rest.first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    Some(out.into())
}

/// The encoding with a number that no other write has, where an object that is read gets its `resourceVersion`: so who finds these bytes
/// in the store knows whose write they are.
pub(crate) fn encode_unique(object: &Value) -> Bytes {
    let json = encode(object);
    splice(&json, rand::random()).unwrap_or(json)
}

/// Whether an encoding is that of an object read from the store.
pub(crate) fn is_same(json: &[u8], stored: &Object) -> bool {
    splice(json, stored.revision()).is_some_and(|spliced| spliced == stored.json())
}

/// The object of an encoding at a revision.
///
/// # Errors
/// [`Error::Decode`] with the key if the bytes are not what [`encode`] makes.
pub(crate) fn decode(key: &[u8], json: &[u8], revision: Revision) -> Result<Object, Error> {
    let what = || format!("stored object {}", String::from_utf8_lossy(key));
    let json = splice(json, revision).ok_or_else(|| Error::decode(&what(), &"it has no metadata"))?;
    Object::from_json(json).map_err(|error| Error::decode(&what(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_is_spliced_in_once() {
        let value = json!({"data": {"metadata": {"resourceVersion": "x"}}, "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "a", "resourceVersion": "3"}});
        let stored = encode(&value);
        assert!(stored.starts_with(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}"#));
        let object = decode(b"k", &stored, 7).unwrap();
        assert_eq!(object.revision(), 7);
        assert!(is_same(&stored, &object) && !is_same(b"{}", &object));
        let again = decode(b"k", object.json(), 12).unwrap();
        assert_eq!(again.revision(), 12);
        assert_eq!(again.json().len(), object.json().len() + 1);
        assert_eq!(again.value().unwrap()["data"], value["data"]);
        assert_eq!(decode(b"k", b"{\"metadata\":{}}", 5).unwrap().revision(), 5);
        assert!(decode(b"k", b"[]", 5).is_err());
        let unique = encode_unique(&value);
        assert!(unique != encode_unique(&value) && is_same(&unique, &object));
        assert_eq!(decode(b"k", &unique, 7).unwrap().json(), object.json());
    }

    #[test]
    fn fields_are_encoded_as_the_tree_is() {
        let value = json!({"spec": {"b": [1, {"c": "\u{e9}\""}], "a": null}, "kind": "Pod", "apiVersion": "v1", "status": {},
            "metadata": {"name": "a", "resourceVersion": "3", "labels": {"x": "y"}}});
        let json = value.to_string();
        let object = fields(&json).unwrap();
        let metadata = fields(object["metadata"].get()).unwrap();
        assert_eq!(encode_fields(&object, &metadata), encode(&value));
        assert!(fields("[]").is_err());
    }
}
