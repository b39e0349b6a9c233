//! Strategic merge patch: objects merge field by field, lists by the merge keys of their schema
//! (apimachinery's `util/strategicpatch`).
//!
//! Directives: `$patch: replace | delete | merge` in an object or as an item of a merged list, `$retainKeys`,
//! `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Map, Value};

use super::order::{arrange, same};
use crate::{server::schema::Schema, status};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";

const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ORDER: &str = "invalid patch format of setElementOrder list";
const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";

pub(super) fn apply(patch: &Value, current: &Value, schema: &Schema) -> Result<Value, Status> {
    let (Value::Object(patch), Value::Object(current)) = (patch, current) else { return Ok(current.clone()) };
    merge_map(current.clone(), patch, Some(schema)).map(Value::Object)
}

/// Kubernetes answers these with 500 and no reason.
fn unknown(message: String) -> Status {
    status::failure(500, "", message)
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<Map<String, Value>, Status> {
    match patch.get(PATCH) {
        None => {}
        Some(directive) => match directive.as_str() {
            Some("replace") => {
                let rest = patch.iter().filter(|(key, _)| *key != PATCH);
                return Ok(rest.map(|(key, value)| (key.clone(), value.clone())).collect());
            }
            Some("delete") => return Ok(Map::new()),
            Some("merge") => {}
            _ => {
                return Err(unknown(format!(
                    "unknown patch type: {directive} in map: {}",
                    go_format(&Value::Object(patch.clone()))
                )));
            }
        },
    }
    retain_keys(&mut original, patch)?;
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS {
            continue;
        }
        if let Some(list) = key.strip_prefix(SET_ORDER) {
            set_order(&mut original, patch, list, value, schema)?;
        } else if let Some(list) = key.strip_prefix(DELETE_ITEMS) {
            let gone = value.as_array().ok_or_else(|| status::bad_request(BAD_PRIMITIVE_LIST))?;
            if let Some(items) = original.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if patch.contains_key(&format!("{SET_ORDER}{key}")) && value.is_array() {
            // Merged together with its order.
        } else {
            merge_field(&mut original, key, value, schema)?;
        }
    }
    Ok(original)
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: &str,
    patch: &Value,
    schema: Option<&Schema>,
) -> Result<(), Status> {
    let field = schema.and_then(|schema| schema.field(key));
    let merged = match (original.remove(key), patch) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(old)), Value::Object(new)) => {
            if field.and_then(Schema::merge).is_some_and(|merge| merge.replace) {
                patch.clone()
            } else {
                Value::Object(merge_map(old, new, field)?)
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) => Value::Array(merge_list(old, new, field)?),
        (_, Value::Object(new)) if new.get(PATCH).is_some_and(|directive| directive == "delete") => return Ok(()),
        (_, Value::Object(new)) => Value::Object(merge_map(Map::new(), new, field)?),
        (_, Value::Array(new)) => Value::Array(merge_list(Vec::new(), new, field)?),
        (_, scalar) => scalar.clone(),
    };
    original.insert(key.to_owned(), merged);
    Ok(())
}

/// Drops the fields that `$retainKeys` does not name; the patch may only set those it names.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Status> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or_else(|| status::bad_request(BAD_RETAIN_KEYS))?;
    let named = |name: &str| keys.iter().any(|key| key == name);
    let sets = |(name, value): (&String, &Value)| !value.is_null() && !name.starts_with('$') && !named(name);
    if patch.iter().any(sets) {
        return Err(status::bad_request(BAD_RETAIN_KEYS));
    }
    original.retain(|name, _| named(name));
    Ok(())
}

fn set_order(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    list: &str,
    wanted: &Value,
    schema: Option<&Schema>,
) -> Result<(), Status> {
    let wanted = wanted.as_array().ok_or_else(|| status::bad_request(BAD_ORDER))?;
    let field = schema.and_then(|schema| schema.field(list));
    let key = field.and_then(Schema::merge).and_then(|merge| merge.key.as_deref());
    let changes = patch.get(list).and_then(Value::as_array);
    let mut order = wanted.iter();
    let kept = changes.into_iter().flatten().filter(|item| item.get(PATCH).is_none());
    for item in kept {
        if !order.any(|place| same(place, item, key)) {
            let (changes, wanted) = (changes.cloned().unwrap_or_default(), wanted.clone());
            return Err(unknown(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_format(&Value::Array(changes)),
                go_format(&Value::Array(wanted))
            )));
        }
    }
    let old = match original.get(list) {
        Some(Value::Array(old)) => Some(old.clone()),
        _ => None,
    };
    let merged = match (&old, changes) {
        (None, None) => return Ok(()),
        (Some(old), None) => old.clone(),
        (old, Some(changes)) => merge_list(old.clone().unwrap_or_default(), changes, field)?,
    };
    original.insert(list.to_owned(), Value::Array(arrange(merged, wanted, &old.unwrap_or_default(), key)));
    Ok(())
}

fn merge_list(original: Vec<Value>, patch: &[Value], schema: Option<&Schema>) -> Result<Vec<Value>, Status> {
    let Some(merge) = schema.and_then(Schema::merge).filter(|merge| merge.merge) else {
        return Ok(patch.to_vec());
    };
    if let Some(nested) = patch.iter().find(|item| item.is_array()) {
        return Err(unknown(format!("lists of lists are not supported: {}", go_format(nested))));
    }
    let Some(key) = merge.key.as_deref() else { return Ok(merge_scalars(original, patch)) };
    let items = schema.and_then(Schema::items);
    let (changes, mut merged) = directives(original.clone(), patch, key)?;
    for item in &changes {
        let Value::Object(new) = item else {
            return Err(unknown(format!("expected a map, but received {}", go_format(item))));
        };
        match merged.iter_mut().find(|old| same(old, item, Some(key))) {
            Some(old) => {
                let map = old.as_object().cloned().unwrap_or_default();
                *old = Value::Object(merge_map(map, new, items)?);
            }
            None => merged.push(Value::Object(merge_map(Map::new(), new, items)?)),
        }
    }
    Ok(arrange(merged, &changes, &original, Some(key)))
}

fn merge_scalars(original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let mut merged = original.clone();
    for item in patch {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    arrange(merged, patch, &original, None)
}

/// Carries out the items that are directives: answers the other items of the patch, and what is left of the original.
fn directives(mut original: Vec<Value>, patch: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut changes = Vec::with_capacity(patch.len());
    for item in patch {
        match item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            Some("replace") => original.clear(),
            Some("delete") => {
                with_key(item, key)?;
                original.retain(|old| !same(old, item, Some(key)));
            }
            None | Some("merge") => {
                with_key(item, key)?;
                changes.push(item.clone());
            }
            Some(other) => return Err(unknown(format!("unknown patch type: {other} in map: {}", go_format(item)))),
        }
    }
    Ok((changes, original))
}

fn with_key(item: &Value, key: &str) -> Result<(), Status> {
    if item.is_object() && item.get(key).is_none() {
        return Err(unknown(format!("map: {} does not contain declared merge key: {key}", go_format(item))));
    }
    Ok(())
}

/// A value as Go's `%v` prints it.
pub(super) fn go_format(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_format).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", go_format(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
