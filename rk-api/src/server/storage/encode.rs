//! The stored form of an object: canonical JSON with `apiVersion`, `kind` and `metadata` in front and without a
//! `resourceVersion`, which is the store's revision and spliced in when the object is read.

use bytes::Bytes;
use rk_store::Revision;
use serde_json::Value;

use crate::{Error, Object};

const METADATA: &[u8] = b"\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";

fn append(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a JSON tree always encodes into memory");
}

fn append_field(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    append(out, &Value::String(name.to_owned()));
    out.push(b':');
    append(out, value);
}

/// Encodes an object for the store.
pub(crate) fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let mut first = true;
    for name in ["apiVersion", "kind"] {
        if let Some(value) = object.get(name) {
            append_field(&mut out, &mut first, name, value);
        }
    }
    if !first {
        out.push(b',');
    }
    out.extend_from_slice(METADATA);
    let mut first = true;
    for (name, value) in object["metadata"].as_object().into_iter().flatten() {
        if name != "resourceVersion" && name != "selfLink" {
            append_field(&mut out, &mut first, name, value);
        }
    }
    out.push(b'}');
    for (name, value) in object.as_object().into_iter().flatten() {
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
}
