//! Reading and filling JSON trees in place, with Go's view of absence: a missing field, `null` and (for lists, maps and
//! plain strings) an empty one mean the same.

use serde_json::{Map, Value, map};

/// Reading fields by dotted path. What is absent or of another type reads as empty.
pub trait Peek {
    /// The value at a dotted path; `Null` if there is none.
    fn at(&self, path: &str) -> &Value;

    /// The string at a path; empty if there is none.
    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or_default()
    }

    /// The integer at a path.
    fn int(&self, path: &str) -> Option<i64> {
        self.at(path).as_i64()
    }

    /// Whether the boolean at a path is there and true.
    fn flag(&self, path: &str) -> bool {
        self.at(path) == &Value::Bool(true)
    }

    /// The items of the list at a path.
    fn list(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The entries of the map at a path.
    fn entries(&self, path: &str) -> Entries<'_> {
        Entries(self.at(path).as_object().map(Map::iter))
    }

    /// Whether something other than `null` is at a path.
    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }
}

static NULL: Value = Value::Null;

impl Peek for Value {
    fn at(&self, path: &str) -> &Value {
        path.split('.').try_fold(self, |value, name| value.get(name)).unwrap_or(&NULL)
    }
}

/// The entries of a map that may be absent.
pub struct Entries<'a>(Option<map::Iter<'a>>);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a String, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.as_mut()?.next()
    }
}

/// The value at a dotted path, if it is there and not `null`.
pub fn at_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |value, name| value.get_mut(name)).filter(|value| !value.is_null())
}

/// The object at a dotted path, made if it is absent. `None` if something else is there.
pub fn object_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let found = path.split('.').try_fold(value, |value, name| {
        let next = value.as_object_mut()?.entry(name).or_insert(Value::Null);
        if next.is_null() {
            *next = Value::Object(Map::new());
        }
        Some(next)
    })?;
    found.is_object().then_some(found)
}

/// Runs `f` on each item of the list at a path.
pub fn each_mut(value: &mut Value, path: &str, mut f: impl FnMut(&mut Value)) {
    if let Some(Value::Array(items)) = at_mut(value, path) {
        items.iter_mut().for_each(&mut f);
    }
}

/// Sets a field that is absent, `null` or the empty string.
pub fn fill(value: &mut Value, field: &str, default: impl Into<Value>) {
    if let Value::Object(map) = value {
        let current = map.entry(field).or_insert(Value::Null);
        if current.is_null() || current.as_str() == Some("") {
            *current = default.into();
        }
    }
}

/// Sets a number that is absent or 0: of fields whose type in Go has no "unset".
pub fn fill_zero(value: &mut Value, field: &str, default: i64) {
    if value.get(field).is_none_or(|current| current.is_null() || current.as_i64() == Some(0)) {
        set(value, field, default);
    }
}

/// Sets a field.
pub fn set(value: &mut Value, field: &str, new: impl Into<Value>) {
    if let Value::Object(map) = value {
        map.insert(field.to_owned(), new.into());
    }
}

/// Removes a field.
pub fn remove(value: &mut Value, field: &str) -> Option<Value> {
    value.as_object_mut()?.remove(field)
}

/// Whether a value says nothing: absent, an empty string, list or map.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Kubernetes' semantic equality: absent and empty are the same, at every depth.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&NULL)))
                && b.iter().all(|(key, value)| a.contains_key(key) || is_empty(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b || (is_empty(a) && is_empty(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_and_empty_are_the_same() {
        assert!(same(&json!({"a": [], "b": 1}), &json!({"b": 1, "c": {}})));
        assert!(!same(&json!({"b": 1}), &json!({"b": 0})));
        assert!(!same(&json!({}), &json!({"b": [1]})));
    }

    #[test]
    fn paths_read_and_make_objects() {
        let mut value = json!({"spec": {"a": null}});
        assert_eq!(value.text("spec.a.b"), "");
        set(object_mut(&mut value, "spec.a").unwrap(), "b", "x");
        assert_eq!(value.text("spec.a.b"), "x");
        assert!(object_mut(&mut value, "spec.a.b").is_none());
        fill(&mut value, "kind", "K");
        fill_zero(&mut value, "n", 3);
        assert_eq!((value.text("kind"), value.int("n")), ("K", Some(3)));
    }
}
