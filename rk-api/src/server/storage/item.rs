//! An object in the cache with the fields that selectors ask for.

use std::{borrow::Cow, fmt, sync::Arc};

use parking_lot::Mutex;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::{FieldSelector, LabelSelector, Object};

/// One version of an object in the cache. The fields that selectors name are read from it at most once.
pub(crate) struct Item {
    /// Its name in its collection.
    pub(super) name: Box<str>,
    pub(crate) object: Arc<Object>,
    /// Those that were asked for, of the few that selectors may name.
    fields: Mutex<Vec<(Box<str>, Box<str>)>>,
}

impl Item {
    pub(crate) fn new(name: &str, object: Object) -> Arc<Self> {
        Arc::new(Self { name: name.into(), object: Arc::new(object), fields: Mutex::default() })
    }

    /// Whether both selectors hold.
    pub(crate) fn matches(&self, labels: &LabelSelector, fields: &FieldSelector) -> bool {
        let meta = self.object.meta();
        labels.matches(&meta.labels)
            && fields.matches(|path| match path {
                "metadata.name" => Cow::Borrowed(meta.name.as_str()),
                "metadata.namespace" => Cow::Borrowed(meta.namespace.as_str()),
                _ => Cow::Owned(self.field(path)),
            })
    }

    /// A field as selectors see it.
    pub(super) fn field(&self, path: &str) -> String {
        let mut fields = self.fields.lock();
        if let Some((_, value)) = fields.iter().find(|(known, _)| **known == *path) {
            return value.to_string();
        }
        // Where a selector's name for a field is not the field's own.
        let own = match path {
            "status.successful" => "status.succeeded",
            "source" => "source.component",
            other => other,
        };
        let value = scalar(self.object.json(), own).unwrap_or_else(|| absent(own).to_owned());
        fields.push((path.into(), value.as_str().into()));
        value
    }
}

/// What selectors see of a field that is not set: Go's zero value of its type.
fn absent(path: &str) -> &'static str {
    match path {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.succeeded" | "status.replicas" => "0",
        _ => "",
    }
}

/// The text, number or boolean at a path of an object, of which nothing else is kept.
fn scalar(json: &[u8], path: &str) -> Option<String> {
    let mut json = serde_json::Deserializer::from_slice(json);
    At(Some(path)).deserialize(&mut json).ok()?
}

/// What is at a path; `None` for here.
#[derive(Clone, Copy)]
struct At<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, path) =
            (None, self.0.map(|path| path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)))));
        while let Some(name) = map.next_key::<Name<'de>>()? {
            match path {
                Some((first, rest)) if name.0 == first => found = map.next_value_seed(At(rest))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.here(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.here(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.here(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.here(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.here(Value::from(value)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

impl At<'_> {
    fn here(self, value: impl fmt::Display) -> Option<String> {
        self.0.is_none().then(|| value.to_string())
    }
}

/// A field's name, as it stands in the JSON where it can.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_path() {
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"a":[{"nodeName":"no"}],"nodeName":"n\"1",
            "hostNetwork":true,"deep":{"count":-3,"share":0.5,"none":null}},"status":{"phase":"Running"}}"#;
        let item = Item::new("default/p", Object::from_json(json).unwrap());
        for (path, value) in [
            ("spec.nodeName", "n\"1"),
            ("spec.hostNetwork", "true"),
            ("spec.deep.count", "-3"),
            ("spec.deep.share", "0.5"),
            ("spec.deep.none", ""),
            ("spec.deep", ""),
            ("spec.a", ""),
            ("spec.nodeName.more", ""),
            ("status.phase", "Running"),
            ("spec.unschedulable", "false"),
            ("status.successful", "0"),
            ("source", ""),
        ] {
            assert_eq!(item.field(path), value, "{path}");
            assert_eq!(item.field(path), value, "{path} again");
        }
    }
}
