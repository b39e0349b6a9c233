//! JSON and YAML to a tree, with the paths of keys that were given twice.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// A tree, and the fields that were given more than once; the last one counts.
#[derive(Debug)]
pub struct Parsed {
    /// The tree.
    pub value: Value,
    /// Paths such as `spec.ports[0].name`, in the order of the text.
    pub duplicates: Vec<String>,
}

/// Why a text is not JSON or YAML, in the words of Go's parsers as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Reads JSON.
///
/// # Errors
/// [`ParseError`] if it is none.
pub fn parse_json(text: &[u8]) -> Result<Parsed, ParseError> {
    serde_json::from_slice(text).map_err(|error| ParseError(json_message(text, &error)))
}

/// Reads one document of YAML.
///
/// # Errors
/// [`ParseError`] if it is none, or has more documents.
pub fn parse_yaml(text: &[u8]) -> Result<Parsed, ParseError> {
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::LastWins;
    serde_saphyr::from_slice_with_options(text, options)
        .map_err(|error| ParseError(format!("yaml: {}", error.to_string().lines().next().unwrap_or_default())))
}

/// Words a failure as Go's `encoding/json` does.
fn json_message(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let found = line.get(error.column().saturating_sub(1)).copied();
    let message = error.to_string();
    let context = if message.starts_with("trailing characters") {
        "after top-level value"
    } else if message.starts_with("expected `:`") {
        "after object key"
    } else if message.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if message.starts_with("expected `,` or `]`") {
        "after array element"
    } else if message.starts_with("key must be a string") || message.starts_with("trailing comma") {
        "looking for beginning of object key string"
    } else if message.starts_with("expected value") || message.starts_with("expected ident") {
        "looking for beginning of value"
    } else {
        return message;
    };
    match found {
        Some(byte) => format!("invalid character {:?} {context}", char::from(byte)),
        None => message,
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let duplicates = RefCell::default();
        let value = Node { path: &Path::Root, duplicates: &duplicates }.deserialize(deserializer)?;
        Ok(Self { value, duplicates: duplicates.into_inner() })
    }
}

/// The way to a value, kept on the stack: it is written out only when it is needed.
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

struct Node<'a> {
    path: &'a Path<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number of JSON"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = Path::Item(self.path, list.len());
            match items.next_element_seed(Node { path: &path, duplicates: self.duplicates })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Key(name)) = entries.next_key()? {
            let path = Path::Field(self.path, &name);
            let value = entries.next_value_seed(Node { path: &path, duplicates: self.duplicates })?;
            if map.contains_key(&name) {
                self.duplicates.borrow_mut().push(path.to_string());
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key: YAML's numbers and booleans are their texts.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(Key(key.to_owned()))
            }

            fn visit_string<E>(self, key: String) -> Result<Key, E> {
                Ok(Key(key))
            }
        }
        deserializer.deserialize_string(KeyVisitor).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_told_by_path() {
        let parsed = parse_json(br#"{"spec":{"a":1,"list":[{"b":1,"b":2}],"a":2}}"#).unwrap();
        assert_eq!(parsed.value, json!({"spec": {"a": 2, "list": [{"b": 2}]}}));
        assert_eq!(parsed.duplicates, ["spec.list[0].b", "spec.a"]);
    }

    #[test]
    fn yaml_is_read() {
        let parsed = parse_yaml(b"a: 1\nb:\n- x: yes\n  y: \"1\"\n  z: null\n  1: 0.5\na: 2\n").unwrap();
        assert_eq!(parsed.value, json!({"a": 2, "b": [{"x": true, "y": "1", "z": null, "1": 0.5}]}));
        assert_eq!(parsed.duplicates, ["a"]);
        assert!(parse_yaml(b"a: [").is_err());
    }

    #[test]
    fn failures_are_worded_as_go_does() {
        for (text, message) in [
            ("{", "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
        ] {
            assert_eq!(parse_json(text.as_bytes()).unwrap_err().to_string(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_json(&bytes);
            let _ = parse_yaml(&bytes);
        }
    }
}
