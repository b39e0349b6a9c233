//! Stored custom objects in the shape of the schema of the moment, which may have come after them: as Kubernetes does where it
//! reads them from etcd, unknown fields go and defaults are set
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting>).

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::Value;

use crate::{Error, Object, server::schema::Schema};

/// The schema that stored objects are read by.
pub(crate) struct Shape(Arc<Schema>);

/// A schema, and what an object is in its shape; `None` if it is that already.
type Shaped = (Weak<Schema>, Option<Arc<Object>>);

/// What an object was last asked for.
#[derive(Default)]
struct Known(Mutex<Option<Shaped>>);

impl Shape {
    pub(super) fn new(schema: Arc<Schema>) -> Self {
        Self(schema)
    }

    /// A stored object in this shape. Every version of an object is looked at once: none tells by which schema it was written, as servers
    /// hear of a new one at their own time.
    ///
    /// # Errors
    /// [`Error::Decode`] if the object is broken.
    pub(crate) fn read(&self, object: Arc<Object>) -> Result<Arc<Object>, Error> {
        let known = object.cached(|| Ok(Known::default()))?;
        let mut known = known.0.lock();
        if let Some((schema, shaped)) = &*known
            && schema.as_ptr() == Arc::as_ptr(&self.0)
        {
            return Ok(shaped.clone().unwrap_or(object));
        }
        let stored = object.value()?;
        let mut value = stored.clone();
        self.apply(&mut value);
        let shaped = if value == stored { None } else { Some(Arc::new(Object::from_value(&value)?)) };
        *known = Some((Arc::downgrade(&self.0), shaped.clone()));
        Ok(shaped.unwrap_or(object))
    }

    /// Brings a tree into this shape.
    pub(crate) fn apply(&self, value: &mut Value) {
        self.0.normalize(value);
        self.0.apply_defaults(value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_any_revision_are_brought_into_shape_once() {
        let properties =
            json!({"spec": {"type": "object", "properties": {"zone": {"type": "string", "default": "here"}}}});
        let schema = |properties| Schema::from_crd(&json!({"type": "object", "properties": properties})).unwrap();
        let shape = Shape::new(schema(properties));
        let written = |spec: Value| {
            let value = json!({"apiVersion": "example.com/v1", "kind": "Thing",
                "metadata": {"name": "a", "resourceVersion": "1000000"}, "spec": spec});
            Arc::new(Object::from_value(&value).unwrap())
        };
        let old = written(json!({"gone": 1}));
        let read = shape.read(Arc::clone(&old)).unwrap();
        assert_eq!(read.value().unwrap()["spec"], json!({"zone": "here"}));
        assert!(Arc::ptr_eq(&read, &shape.read(Arc::clone(&old)).unwrap()));
        let new = written(json!({"zone": "there"}));
        assert!(Arc::ptr_eq(&new, &shape.read(Arc::clone(&new)).unwrap()));
        // By another schema it is another.
        let read = Shape::new(schema(json!({}))).read(old).unwrap();
        assert!(read.value().unwrap().get("spec").is_none());
    }
}
