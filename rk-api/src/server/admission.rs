//! Admission: the contract of plugins that change or refuse a write.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Reader};
use crate::{Object, Resource};

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
    pub old_object: Option<Arc<Object>>,
    /// The request's options (`CreateOptions`, `DeleteOptions`, ...).
    pub options: Value,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
    /// What plugins that only look at the write have to say besides yes or no.
    pub notes: Notes,
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

    /// The annotations so far: keys and values.
    pub fn annotations(&self) -> Vec<(String, String)> {
        self.annotations.lock().clone()
    }
}

/// A plugin that may change (`mutate`) or refuse (either) a write. A user's own is a row in the chain like any other.
#[async_trait]
pub trait Admit: Send + Sync + 'static {
    /// Its name in errors, logs and configuration, such as `NamespaceLifecycle`.
    fn name(&self) -> &str;

    /// Whether it wants to see such writes at all.
    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool;

    /// May change `request.object`, before validation. `reader` reads the server's current objects.
    ///
    /// # Errors
    /// A [`Status`] (most often 403) refuses the write.
    async fn mutate(&self, _request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        Ok(())
    }

    /// Looks at the final object, after validation.
    ///
    /// # Errors
    /// A [`Status`] (most often 403) refuses the write.
    async fn validate(&self, _request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        Ok(())
    }
}
