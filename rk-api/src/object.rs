//! One version of one object, encoded once and decoded at most once.

use std::{
    any::Any,
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Error;

/// The part of an object's metadata that the control plane itself reads: everything of `ObjectMeta` but
/// `managedFields`, which only apply needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Name, unique in the namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace; empty for objects of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Identity over time: a new object of the same name has another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The store's revision of this version, in decimal; empty before it is stored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of the wanted state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// RFC 3339 time of creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// RFC 3339 time at which the object may go; set by a delete that has to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Seconds the object was given to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Who must agree before the object goes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub finalizers: Vec<String>,
    /// Objects this one goes with.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub owner_references: Vec<OwnerRef>,
}

/// An owner of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerRef {
    /// Group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Uid of the owner.
    pub uid: String,
    /// Whether this owner manages the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether a foreground deletion of the owner waits for the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// One version of one object: canonical JSON, parsed metadata, and its typed forms as they are asked for.
///
/// It never changes; share it as `Arc<Object>`. In one process the store's cache, list answers, watch events
/// and informers all hold the same one.
pub struct Object {
    json: Bytes,
    api_version: Arc<str>,
    kind: Arc<str>,
    meta: Meta,
    typed: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(default, borrow)]
    api_version: Cow<'a, str>,
    #[serde(default, borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    metadata: Meta,
}

/// A version's or kind's name, which all objects that a thread has read share: there are few, of very many objects.
fn shared(name: &str) -> Arc<str> {
    /// Where there are more than these, not all are known.
    const MOST: usize = 1024;
    thread_local! {
        static KNOWN: RefCell<HashSet<Arc<str>>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(found) = known.get(name) {
            return Arc::clone(found);
        }
        let new = Arc::<str>::from(name);
        if known.len() < MOST {
            known.insert(Arc::clone(&new));
        }
        new
    })
}

impl Object {
    /// Parses the metadata of an object in JSON; the rest is left as it is.
    ///
    /// # Errors
    /// [`Error::Decode`] if it is no JSON object or its metadata has wrong types.
    pub fn from_json(json: impl Into<Bytes>) -> Result<Self, Error> {
        let json = json.into();
        // serde would take a JSON array for a struct, field by field.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::decode("object", &"expected a JSON object"));
        }
        let head: Head<'_> = serde_json::from_slice(&json).map_err(|e| Error::decode("object", &e))?;
        let (api_version, kind, meta) = (shared(&head.api_version), shared(&head.kind), head.metadata);
        Ok(Self { json, api_version, kind, meta, typed: Mutex::default() })
    }

    /// Encodes an object.
    ///
    /// # Errors
    /// [`Error::Decode`] if the value is not an object with metadata.
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        Self::from_json(serde_json::to_vec(value).map_err(|e| Error::decode("object", &e))?)
    }

    /// The canonical JSON, `resourceVersion` included.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// `v1`, or `apps/v1`.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Such as `Deployment`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The parsed metadata.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The store's revision of this version; 0 before it is stored.
    pub fn revision(&self) -> u64 {
        self.meta.resource_version.parse().unwrap_or(0)
    }

    /// A tree of the whole object, parsed anew.
    ///
    /// # Errors
    /// [`Error::Decode`] if the JSON is broken behind the metadata.
    pub fn value(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.json).map_err(|e| Error::decode(&self.kind, &e))
    }

    /// The object as a Rust type, decoded by the first who asks and shared by all others.
    ///
    /// # Errors
    /// [`Error::Decode`] if the object does not fit the type.
    pub fn typed<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, Error> {
        self.cached(|| serde_json::from_slice::<K>(&self.json).map_err(|e| Error::decode(&self.kind, &e)))
    }

    /// Another form of the object, made by the first who asks and shared by all others.
    pub(crate) fn cached<T: Send + Sync + 'static>(
        &self,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Arc<T>, Error> {
        let mut typed = self.typed.lock();
        if let Some(found) = typed.iter().find_map(|any| Arc::clone(any).downcast::<T>().ok()) {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        typed.push(made.clone());
        Ok(made)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}/{}@{}",
            self.api_version, self.kind, self.meta.namespace, self.meta.name, self.meta.resource_version
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[test]
    fn a_typed_object_is_decoded_once() {
        let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"7","labels":null},"data":{"k":"v"}}"#;
        let object = Object::from_json(json).unwrap();
        assert_eq!((object.kind(), object.revision(), object.meta().name.as_str()), ("ConfigMap", 7, "a"));
        let first = object.typed::<ConfigMap>().unwrap();
        assert!(Arc::ptr_eq(&first, &object.typed::<ConfigMap>().unwrap()));
        assert_eq!(first.data.as_ref().unwrap()["k"], "v");
    }

    #[test]
    fn wrong_metadata_is_an_error() {
        assert!(Object::from_json(r#"{"metadata":{"name":5}}"#).is_err());
        assert!(Object::from_json("[]").is_err());
    }
}
