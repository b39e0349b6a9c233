//! What a write changes besides its object, in one transaction with it.

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use super::{
    AdmissionRequest, Reader,
    storage::{Beside, encode, key},
};
use crate::{Object, Resource, Status};

/// A plugin that counts: what it lets through must be written together with its count, or two servers of one store would each
/// let through the last that there is room for.
#[async_trait]
pub trait Reserve: Send + Sync {
    /// Judges a write right before it is stored, after all plugins have seen it, and says what is to be changed with it. It is asked
    /// again each time that somebody else was faster; a dry run reserves nothing.
    ///
    /// # Errors
    /// A [`Status`] (most often 403) refuses the write.
    async fn reserve(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<Reservation, Status>;
}

/// Other objects that a write changes. Either all is stored or nothing: if one of them is not what it was when it was read,
/// the write is tried anew.
#[derive(Default)]
pub struct Reservation {
    changes: Vec<Beside>,
    holds: Vec<Box<dyn Any + Send + Sync>>,
}

impl Reservation {
    /// Changes `old`, as it was read, to `new`; both in the version that is stored.
    pub fn change(&mut self, resource: &Resource, old: &Arc<Object>, new: &Value) {
        let meta = old.meta();
        self.changes.push(Beside {
            collection: key::collection(&resource.group, &resource.plural),
            item: key::item(&meta.namespace, &meta.name),
            json: encode(new),
            expected: old.revision(),
        });
    }

    /// Keeps a value, such as a lock, until the write has come to its end.
    pub fn hold(&mut self, value: impl Any + Send + Sync) {
        self.holds.push(Box::new(value));
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds another one.
    pub fn extend(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.holds.extend(other.holds);
    }

    /// What is to be written.
    pub(super) fn changes(&self) -> Vec<Beside> {
        self.changes.clone()
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("changes", &self.changes).finish_non_exhaustive()
    }
}
