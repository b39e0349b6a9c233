//! The objects of a simulated cluster, pods and nodes aside.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rk_api::{Change, Error, Object};
use serde_json::{Value, json};

/// Kind, namespace (empty for objects of the cluster) and name.
type Key = (String, String, String);

fn key(object: &Object) -> Key {
    let meta = object.meta();
    (object.kind().to_owned(), meta.namespace.clone(), meta.name.clone())
}

/// Objects in their newest version, with how often each was written.
pub(super) struct Objects {
    newest: HashMap<Key, (Arc<Object>, u64)>,
    version: u64,
}

impl Default for Objects {
    fn default() -> Self {
        // Objects of a workload have the first one.
        Self { newest: HashMap::new(), version: 1 }
    }
}

impl Objects {
    pub(super) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.newest.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).map(|(object, _)| object)
    }

    /// How often an object was written since it was made.
    pub(super) fn writes(&self, kind: &str, namespace: &str, name: &str) -> u64 {
        self.newest.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).map_or(0, |(_, writes)| *writes)
    }

    /// All objects of a kind, by namespace and name.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<Arc<Object>> {
        let mut all: Vec<_> = self.newest.iter().filter(|((of, ..), _)| of == kind).collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, (object, _))| Arc::clone(object)).collect()
    }

    /// A tree of an object.
    pub(super) fn value(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.get(kind, namespace, name)?.value().ok()
    }

    /// Takes an object as it is.
    pub(super) fn put(&mut self, object: Arc<Object>) -> Change {
        self.version = self.version.max(object.revision());
        match self.newest.entry(key(&object)) {
            Entry::Occupied(mut known) => {
                let (newest, writes) = known.get_mut();
                *writes += 1;
                Change::Updated { old: std::mem::replace(newest, Arc::clone(&object)), new: object }
            }
            Entry::Vacant(place) => {
                place.insert((Arc::clone(&object), 0));
                Change::Added(object)
            }
        }
    }

    /// Takes an object as its next version.
    pub(super) fn write(&mut self, mut value: Value) -> Result<Change, Error> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        Ok(self.put(Arc::new(Object::from_value(&value)?)))
    }

    pub(super) fn remove(&mut self, object: &Object) -> Option<Change> {
        self.newest.remove(&key(object)).map(|(object, _)| Change::Deleted(object))
    }
}

/// Applies a merge patch (RFC 7386), or a strategic one.
///
/// # Errors
/// A strategic patch of a list whose items are not known here.
pub(super) fn merge(target: &mut Value, patch: &Value, strategic: bool) -> Result<(), String> {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, change) in changes {
        match (change, target.as_object_mut()) {
            (Value::Null, Some(fields)) => drop(fields.remove(field)),
            (Value::Array(items), _) if strategic => merge_list(&mut target[field], field, items)?,
            _ => merge(&mut target[field], change, strategic)?,
        }
    }
    Ok(())
}

/// Merges items by the key of their list.
fn merge_list(target: &mut Value, field: &str, items: &[Value]) -> Result<(), String> {
    let key = match field {
        "reservedFor" | "ownerReferences" => "uid",
        "conditions" => "type",
        _ => return Err(format!("a strategic merge patch of {field:?} is not simulated")),
    };
    if !target.is_array() {
        *target = json!([]);
    }
    let Some(list) = target.as_array_mut() else { return Ok(()) };
    for item in items {
        let known = list.iter().position(|known| known[key] == item[key]);
        match (known, item["$patch"] == "delete") {
            (Some(at), true) => drop(list.remove(at)),
            (Some(at), false) => merge(&mut list[at], item, true)?,
            (None, true) => {}
            (None, false) => list.push(item.clone()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_change_parts() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "list": [1, 2]});
        merge(&mut value, &json!({"a": {"b": null, "d": {"e": 3}}, "list": [3]}), false).unwrap();
        assert_eq!(value, json!({"a": {"c": 2, "d": {"e": 3}}, "list": [3]}));
    }

    #[test]
    fn strategic_patches_merge_lists_by_key() {
        let mut value = json!({"status": {"reservedFor": [{"uid": "1", "name": "a"}, {"uid": "2"}]}});
        let patch = json!({"status": {"reservedFor": [{"$patch": "delete", "uid": "2"}, {"uid": "1", "name": "b"}, {"uid": "3"}]}});
        merge(&mut value, &patch, true).unwrap();
        assert_eq!(value, json!({"status": {"reservedFor": [{"uid": "1", "name": "b"}, {"uid": "3"}]}}));
        let error = merge(&mut value, &json!({"spec": {"containers": []}}), true).unwrap_err();
        assert_eq!(error, "a strategic merge patch of \"containers\" is not simulated");
    }

    #[test]
    fn versions_grow() {
        let mut objects = Objects::default();
        let claim = |size: u64| json!({"kind": "C", "metadata": {"name": "c", "namespace": "n"}, "size": size});
        assert!(matches!(objects.write(claim(1)), Ok(Change::Added(object)) if object.meta().resource_version == "2"));
        let changed = objects.write(claim(2)).unwrap();
        assert!(matches!(&changed, Change::Updated { new, .. } if new.meta().resource_version == "3"));
        assert_eq!(objects.value("C", "n", "c").unwrap()["size"], 2);
        assert_eq!((objects.writes("C", "n", "c"), objects.writes("C", "n", "d")), (1, 0));
        assert!(objects.remove(changed.object()).is_some() && objects.get("C", "n", "c").is_none());
    }
}
