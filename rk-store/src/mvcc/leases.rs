//! Leases as far as they are part of the replicated state: ids, granted times and bound keys. Deadlines are not:
//! they belong to one process's clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::{Error, LeaseId};

#[derive(Debug, Default)]
struct Entry {
    ttl: i64,
    keys: BTreeSet<Bytes>,
}

#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Entry>,
    /// The lease of each bound key.
    bound: HashMap<Bytes, LeaseId>,
}

impl Leases {
    pub(crate) fn grant(&mut self, id: LeaseId, ttl: i64) -> Result<(), Error> {
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExists(id));
        }
        self.leases.insert(id, Entry { ttl, keys: BTreeSet::new() });
        Ok(())
    }

    /// Forgets a lease whose keys are deleted already.
    pub(crate) fn revoke(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Binds a key to a lease, 0 for none, instead of the one it was bound to.
    pub(crate) fn bind(&mut self, key: &Bytes, lease: LeaseId) {
        if let Some(old) = self.bound.remove(key)
            && let Some(entry) = self.leases.get_mut(&old)
        {
            entry.keys.remove(key);
        }
        if let Some(entry) = self.leases.get_mut(&lease) {
            let key = Bytes::copy_from_slice(key);
            entry.keys.insert(key.clone());
            self.bound.insert(key, lease);
        }
    }

    fn get(&self, id: LeaseId) -> Result<&Entry, Error> {
        self.leases.get(&id).ok_or(Error::LeaseNotFound(id))
    }

    pub(crate) fn ttl(&self, id: LeaseId) -> Result<i64, Error> {
        Ok(self.get(id)?.ttl)
    }

    pub(crate) fn keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Error> {
        Ok(self.get(id)?.keys.iter().cloned().collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, i64)> + '_ {
        self.leases.iter().map(|(id, entry)| (*id, entry.ttl))
    }
}
