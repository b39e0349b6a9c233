//! Admission: the contract of plugins that change or refuse a write.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Reader, Reinvocation, Reserve};
use crate::{Error, Object, Resource, status};

/// The kind of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object (update and patch alike).
    Update,
    /// An object that goes.
    Delete,
    /// A connection (`exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

/// A write on its way to the store.
#[derive(Debug)]
pub struct AdmissionRequest {
    /// Who does what to which resource and subresource; the name may be empty in a create.
    pub attributes: Attributes,
    /// The collection.
    pub resource: Resource,
    /// The kind of write.
    pub operation: Operation,
    /// The object as it shall be; for a subresource such as `binding` its own body. `None` in a delete.
    pub object: Option<Value>,
    /// The object as it is; `None` in a create.
    pub old_object: Option<OldObject>,
    /// The request's options (`CreateOptions`, `DeleteOptions`, ...).
    pub options: Value,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
    /// What plugins that only look at the write have to say besides yes or no.
    pub notes: Notes,
    /// Whether those that change the write see it for the second time.
    pub reinvocation: Reinvocation,
}

impl AdmissionRequest {
    /// The tree of the object as it is; `None` in a create. It is made by the first who asks, for all plugins.
    ///
    /// # Errors
    /// 500 if the stored object is broken.
    pub fn old_value(&self) -> Result<Option<Arc<Value>>, Status> {
        self.old_object.as_ref().map(OldObject::tree).transpose().map_err(status::internal)
    }
}

/// The object as it is before a write.
#[derive(Debug, Clone)]
pub struct OldObject {
    object: Arc<Object>,
    tree: OnceLock<Arc<Value>>,
}

impl OldObject {
    /// An object whose tree is known.
    pub(crate) fn with_tree(object: Arc<Object>, tree: Arc<Value>) -> Self {
        Self { object, tree: tree.into() }
    }

    /// The tree of the object, made by the first who asks.
    ///
    /// # Errors
    /// [`Error::Decode`] if the JSON is broken behind the metadata.
    pub fn tree(&self) -> Result<Arc<Value>, Error> {
        if let Some(tree) = self.tree.get() {
            return Ok(Arc::clone(tree));
        }
        let made = Arc::new(self.object.value()?);
        Ok(Arc::clone(self.tree.get_or_init(|| made)))
    }
}

impl From<Arc<Object>> for OldObject {
    fn from(object: Arc<Object>) -> Self {
        Self { object, tree: OnceLock::new() }
    }
}

impl Deref for OldObject {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.object
    }
}

/// Warnings and audit annotations of plugins that validate a write.
#[derive(Debug, Default)]
pub struct Notes {
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<Vec<(String, String)>>,
}

impl Notes {
    /// Warns the client.
    pub fn warn(&self, warning: impl Into<String>) {
        self.warnings.lock().push(warning.into());
    }

    /// Annotates the write in the audit log.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.lock().push((key.into(), value.into()));
    }

    /// The warnings so far, which are then gone.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }

    /// The annotations so far, for tests that go on with them.
    #[cfg(test)]
    pub(crate) fn annotations(&self) -> Vec<(String, String)> {
        self.annotations.lock().clone()
    }

    /// The annotations so far, keys and values, which are then gone.
    pub fn take_annotations(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.annotations.lock())
    }
}

/// A plugin that may change (`mutate`) or refuse (either) a write. A user's own is a row in the chain like any other.
#[async_trait]
pub trait Admit: Send + Sync + 'static {
    /// Its name in errors, logs and configuration, such as `NamespaceLifecycle`.
    fn name(&self) -> &str;

    /// Whether it wants to see such writes at all.
    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool;

    /// May change `request.object`, before validation. `reader` reads the server's current objects. It is called once more for
    /// the same write if a webhook or a policy changed the object ([`AdmissionRequest::reinvocation`]), so what it has done
    /// already it does not do again.
    ///
    /// # Errors
    /// A [`Status`] (most often 403) refuses the write.
    async fn mutate(&self, _request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        Ok(())
    }

    /// Itself, if it counts what it lets through; see [`Reserve`].
    fn reserve(&self) -> Option<&dyn Reserve> {
        None
    }

    /// Looks at the final object, after validation.
    ///
    /// # Errors
    /// A [`Status`] (most often 403) refuses the write.
    async fn validate(&self, _request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_tree_of_an_old_object_is_made_once() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let object = Arc::new(Object::from_value(&value).unwrap());
        let old = OldObject::from(Arc::clone(&object));
        let tree = old.tree().unwrap();
        assert_eq!((tree["data"]["k"].as_str(), &*old.meta().name), (Some("v"), "a"));
        assert!(Arc::ptr_eq(&tree, &old.tree().unwrap()));
        assert!(Arc::ptr_eq(&tree, &OldObject::with_tree(object, Arc::clone(&tree)).tree().unwrap()));
    }
}
