//! An object in the cache with the fields that selectors ask for.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use crate::{FieldSelector, LabelSelector, Object};

/// One version of an object in the cache. The fields that selectors may name are read from it at most once.
pub(crate) struct Item {
    /// Its name in its collection.
    pub(super) name: Box<str>,
    pub(crate) object: Arc<Object>,
    fields: OnceLock<Arc<Value>>,
}

impl Item {
    pub(crate) fn new(name: &str, object: Object) -> Arc<Self> {
        Arc::new(Self { name: name.into(), object: Arc::new(object), fields: OnceLock::new() })
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

    fn field(&self, path: &str) -> String {
        let tree = self.fields.get_or_init(|| Arc::new(scalars(&self.object)));
        // Where a selector's name for a field is not the field's own.
        let path = match path {
            "status.successful" => "status.succeeded",
            "source" => "source.component",
            other => other,
        };
        let mut at: &Value = tree;
        for part in path.split('.') {
            at = &at[part];
        }
        match at {
            Value::String(text) => text.clone(),
            Value::Null => absent(path),
            other => other.to_string(),
        }
    }
}

/// What selectors see of a field that is not set: Go's zero value of its type.
fn absent(path: &str) -> String {
    match path {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.succeeded" | "status.replicas" => "0",
        _ => "",
    }
    .to_owned()
}

/// The object's tree without lists, and without what is nested deeper than any selectable field: small enough to keep.
fn scalars(object: &Object) -> Value {
    fn thin(value: &mut Value, depth: usize) {
        if let Value::Object(fields) = value {
            fields.retain(|_, field| match field {
                Value::Array(_) => false,
                Value::Object(_) => depth > 0,
                _ => true,
            });
            fields.values_mut().for_each(|field| thin(field, depth.saturating_sub(1)));
        }
    }
    let mut value = object.value().unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.remove("metadata");
        fields.remove("data");
    }
    thin(&mut value, 4);
    value
}
