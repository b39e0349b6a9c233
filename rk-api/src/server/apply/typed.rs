//! An object as server-side apply sees it: fields, maps, lists of keyed items, sets, and leaves that are owned as one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fieldset::{FieldSet, element_text};
use crate::server::schema::{ListType, Schema};

/// How the parts of a value are owned.
pub(super) enum Parts<'a> {
    /// As one.
    Leaf,
    /// Field by field, or key by key.
    Map,
    /// Item by item.
    Items(&'a ListType),
}

/// How a value is owned, by its schema and, where there is none, by what it is: maps by key, lists as one.
pub(super) fn parts<'a>(schema: Option<&'a Schema>, value: &Value) -> Parts<'a> {
    match (value, schema) {
        (Value::Object(_), None) => Parts::Map,
        (Value::Object(_), Some(schema)) if schema.is_atomic() => Parts::Leaf,
        (Value::Object(_), Some(schema)) if schema.is_object() || schema.is_any() => Parts::Map,
        (Value::Array(_), Some(schema)) if schema.items().is_some() => match schema.list_type() {
            ListType::Atomic => Parts::Leaf,
            kind => Parts::Items(kind),
        },
        _ => Parts::Leaf,
    }
}

pub(super) fn field_element(name: &str) -> Box<str> {
    ["f:", name].concat().into()
}

/// The element of a list's item. Keys that are absent count by their defaults.
pub(super) fn item_element(kind: &ListType, items: Option<&Schema>, item: &Value) -> Box<str> {
    match kind {
        ListType::Map(keys) => {
            let mut identity = BTreeMap::new();
            for key in keys {
                let default = || items.and_then(|items| items.field(key)?.default_value());
                if let Some(value) = item.get(&**key).or_else(default) {
                    identity.insert(&**key, value);
                }
            }
            let text = serde_json::to_string(&identity).expect("a map of JSON values is JSON");
            format!("k:{text}").into()
        }
        _ => format!("v:{item}").into(),
    }
}

/// The paths of all leaves, items and keys of an object.
pub(super) fn to_set(schema: Option<&Schema>, object: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    add(schema, object, &mut set);
    set
}

fn add(schema: Option<&Schema>, value: &Value, set: &mut FieldSet) {
    match (parts(schema, value), value) {
        (Parts::Map, Value::Object(map)) => {
            for (name, value) in map {
                let child = set.children.below(field_element(name));
                add(schema.and_then(|schema| schema.field(name)), value, child);
                let named = schema.is_some_and(|schema| schema.is_named_field(name));
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                child.member |= empty || !named;
            }
        }
        (Parts::Items(kind), Value::Array(list)) => {
            let items = schema.and_then(Schema::items);
            for item in list {
                let child = set.children.below(item_element(kind, items, item));
                add(items, item, child);
                child.member = true;
            }
        }
        _ => set.member = true,
    }
    set.children.retain(|_, child| !child.is_empty());
}

/// The difference of two versions of an object.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What was added, changed and removed. Every new node counts, not only leaves.
pub(super) fn compare(schema: Option<&Schema>, old: &Value, new: &Value) -> Comparison {
    let mut walk = Compare { comparison: Comparison::default(), path: Vec::new() };
    walk.both(schema, old, new);
    walk.comparison
}

struct Compare {
    comparison: Comparison,
    path: Vec<Box<str>>,
}

impl Compare {
    fn within(&mut self, element: Box<str>, visit: impl FnOnce(&mut Self)) {
        self.path.push(element);
        visit(self);
        self.path.pop();
    }

    fn both(&mut self, schema: Option<&Schema>, old: &Value, new: &Value) {
        match (parts(schema, new), old, new) {
            (Parts::Map, Value::Object(old), Value::Object(new)) => {
                for (name, new) in new {
                    let old = old.get(name);
                    // Most of an object is as it was: no path is made for what is.
                    if old == Some(new) {
                        continue;
                    }
                    let field = schema.and_then(|schema| schema.field(name));
                    self.within(field_element(name), |walk| match old {
                        Some(old) => walk.both(field, old, new),
                        // Go's zero value has a required list already, as null.
                        None => walk.one(field, new, true, !field.is_some_and(Schema::is_required_list)),
                    });
                }
                for (name, old) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                    let field = schema.and_then(|schema| schema.field(name));
                    self.within(field_element(name), |walk| walk.one(field, old, false, true));
                }
            }
            (Parts::Items(kind), Value::Array(old), Value::Array(new)) => {
                let items = schema.and_then(Schema::items);
                let by_element = |list: &'_ [Value]| -> BTreeMap<Box<str>, usize> {
                    list.iter().enumerate().map(|(at, item)| (item_element(kind, items, item), at)).collect()
                };
                let (old_at, new_at) = (by_element(old), by_element(new));
                for (element, at) in &new_at {
                    self.within(element.clone(), |walk| match old_at.get(element) {
                        Some(old_at) => walk.both(items, &old[*old_at], &new[*at]),
                        None => walk.one(items, &new[*at], true, true),
                    });
                }
                for (element, at) in old_at.iter().filter(|(element, _)| !new_at.contains_key(*element)) {
                    self.within(element.clone(), |walk| walk.one(items, &old[*at], false, true));
                }
            }
            (Parts::Leaf, old, new) if old == new => {}
            (Parts::Leaf, ..) => self.comparison.changed.insert(&self.path),
            // The type itself changed.
            (_, old, new) => {
                self.one(schema, old, false, true);
                self.one(schema, new, true, true);
            }
        }
    }

    /// A value that is on one side only, with all its parts.
    fn one(&mut self, schema: Option<&Schema>, value: &Value, added: bool, itself: bool) {
        let mut all = FieldSet { member: itself, ..FieldSet::default() };
        add_parts(schema, value, &mut all);
        if !all.is_empty() {
            let set = if added { &mut self.comparison.changed } else { &mut self.comparison.removed };
            set.insert_below(&self.path, all);
        }
    }
}

/// Every part of a value, not only leaves.
fn add_parts(schema: Option<&Schema>, value: &Value, set: &mut FieldSet) {
    let mut add = |element: Box<str>, schema: Option<&Schema>, value: &Value| {
        let part = set.children.below(element);
        part.member = true;
        add_parts(schema, value, part);
    };
    match (parts(schema, value), value) {
        (Parts::Map, Value::Object(map)) => {
            for (name, value) in map {
                add(field_element(name), schema.and_then(|schema| schema.field(name)), value);
            }
        }
        (Parts::Items(kind), Value::Array(list)) => {
            let items = schema.and_then(Schema::items);
            for item in list {
                add(item_element(kind, items, item), items, item);
            }
        }
        _ => {}
    }
}

/// Why an object does not fit its schema, as structured-merge-diff words it; the first reason.
pub(super) fn misfit(schema: Option<&Schema>, value: &Value) -> Option<String> {
    let mut path = String::new();
    check(schema, value, &mut path).err()
}

fn check(schema: Option<&Schema>, value: &Value, path: &mut String) -> Result<(), String> {
    let Some(schema) = schema else { return Ok(()) };
    let length = path.len();
    match value {
        Value::Object(map) if schema.is_object() => {
            for (name, value) in map {
                path.push_str(&element_text(&field_element(name)));
                match schema.field(name) {
                    Some(field) => check(Some(field), value, path)?,
                    None if schema.preserves_unknown() => {}
                    None => return Err(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
            Ok(())
        }
        Value::Array(list) if schema.items().is_some() => items(schema, list, path),
        Value::Null => Ok(()),
        _ => match schema.expected_structure(value) {
            Some(expected) => Err(format!("{path}: expected {expected}, got {value}")),
            None => Ok(()),
        },
    }
}

fn items(schema: &Schema, list: &[Value], path: &mut String) -> Result<(), String> {
    let (kind, items) = (schema.list_type(), schema.items());
    let length = path.len();
    let mut seen = std::collections::HashSet::new();
    for (index, item) in list.iter().enumerate() {
        if let ListType::Map(keys) = kind {
            let known = |key: &str| {
                item.get(key).is_some()
                    || items.is_some_and(|items| items.field(key).is_some_and(|field| field.default_value().is_some()))
            };
            if !keys.iter().any(|key| known(key)) {
                let keys = keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "{path}: element {index}: associative list with keys has an element that omits key field {keys} (and doesn't have default value)"
                ));
            }
        }
        let element = match kind {
            ListType::Atomic => format!("i:{index}").into(),
            _ => item_element(kind, items, item),
        };
        path.push_str(&element_text(&element));
        if !seen.insert(element) {
            let key = path.split_off(length);
            return Err(format!("{path}: duplicate entries for key {key}"));
        }
        check(items, item, path)?;
        path.truncate(length);
    }
    Ok(())
}
