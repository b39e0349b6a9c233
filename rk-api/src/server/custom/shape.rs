//! Stored custom objects in the shape of a schema that came after them: as Kubernetes does where it reads them from etcd, unknown
//! fields go and defaults are set
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting>).

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::Value;

use crate::{Error, Object, server::schema::Schema};

/// A schema, and since which revision of the store objects are written by it.
pub(crate) struct Shape {
    schema: Arc<Schema>,
    since: u64,
}

/// A schema, and what an object is in its shape; `None` if it is that already.
type Shaped = (Weak<Schema>, Option<Arc<Object>>);

/// What an object was last asked for.
#[derive(Default)]
struct Known(Mutex<Option<Shaped>>);

impl Shape {
    /// Of a schema that came with the definition at this revision, unless it was in force before.
    pub(super) fn new(schema: Arc<Schema>, revision: u64, before: Option<&Self>) -> Self {
        let since =
            before.filter(|before| Arc::ptr_eq(&before.schema, &schema)).map_or(revision, |before| before.since);
        Self { schema, since }
    }

    /// Whether an object was written by this schema, so that nothing is to be done.
    fn made(&self, object: &Object) -> bool {
        object.revision() >= self.since
    }

    /// A stored object in this shape. Those that are older than the schema are looked at once each.
    ///
    /// # Errors
    /// [`Error::Decode`] if the object is broken.
    pub(crate) fn read(&self, object: Arc<Object>) -> Result<Arc<Object>, Error> {
        if self.made(&object) {
            return Ok(object);
        }
        let known = object.cached(|| Ok(Known::default()))?;
        let mut known = known.0.lock();
        if let Some((schema, shaped)) = &*known
            && schema.as_ptr() == Arc::as_ptr(&self.schema)
        {
            return Ok(shaped.clone().unwrap_or(object));
        }
        let stored = object.value()?;
        let mut value = stored.clone();
        self.apply(&mut value);
        let shaped = if value == stored { None } else { Some(Arc::new(Object::from_value(&value)?)) };
        *known = Some((Arc::downgrade(&self.schema), shaped.clone()));
        Ok(shaped.unwrap_or(object))
    }

    /// Brings a tree into this shape.
    pub(crate) fn apply(&self, value: &mut Value) {
        self.schema.normalize(value);
        self.schema.apply_defaults(value);
    }
}
