//! What a write changes besides its object, in one transaction with it.

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use super::{
    AdmissionRequest, Reader,
    storage::{Beside, Expected, Written, encode_unique, key},
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
    // What is held until the end goes first where nothing is sent.
    holds: Vec<Box<dyn Any + Send + Sync>>,
    until_sent: Vec<Box<dyn Any + Send + Sync>>,
}

/// A change of another object that may be under way, so that the next can follow it ([`Reservation::follow`]).
#[derive(Debug, Clone)]
pub struct Reserved {
    collection: String,
    item: String,
    written: Written,
}

impl Reserved {
    /// Whether it is stored, and shown to readers.
    pub fn is_stored(&self) -> bool {
        self.written.is_done()
    }
}

impl Reservation {
    /// Changes `old`, as it was read, to `new`; both in the version that is stored.
    pub fn change(&mut self, resource: &Resource, old: &Arc<Object>, new: &Value) -> Reserved {
        let meta = old.meta();
        let collection = key::collection(&resource.group, &resource.plural);
        self.add(collection, key::item(&meta.namespace, &meta.name), Expected::At(old.revision()), new)
    }

    /// Changes to `new` what another change leaves, without a wait for it: if that does not come about, or somebody comes between the two,
    /// neither does this. The other one must be on its way to the store before this is: see [`hold_until_sent`](Self::hold_until_sent).
    pub fn follow(&mut self, before: &Reserved, new: &Value) -> Reserved {
        let Reserved { collection, item, written } = before.clone();
        self.add(collection, item, Expected::Left(written), new)
    }

    fn add(&mut self, collection: String, item: String, expected: Expected, new: &Value) -> Reserved {
        let written = Written::default();
        let reserved = Reserved { collection: collection.clone(), item: item.clone(), written: written.clone() };
        self.changes.push(Beside { collection, item, json: encode_unique(new), expected, written });
        reserved
    }

    /// Keeps a value until the write has come to its end.
    pub fn hold(&mut self, value: impl Any + Send + Sync) {
        self.holds.push(Box::new(value));
    }

    /// Keeps a value, such as a lock, until the write is on its way to the store, behind which all come that are sent later; or until it is
    /// given up.
    pub fn hold_until_sent(&mut self, value: impl Any + Send + Sync) {
        self.until_sent.push(Box::new(value));
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds another one.
    pub fn extend(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.holds.extend(other.holds);
        self.until_sent.extend(other.until_sent);
    }

    /// What is to be written.
    pub(super) fn changes(&mut self) -> Vec<Beside> {
        std::mem::take(&mut self.changes)
    }

    /// What is held until that is sent.
    pub(super) fn until_sent(&mut self) -> Vec<Box<dyn Any + Send + Sync>> {
        std::mem::take(&mut self.until_sent)
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("changes", &self.changes).finish_non_exhaustive()
    }
}
