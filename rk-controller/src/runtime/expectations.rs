//! What a controller did that its informers don't show yet.
//!
//! An informer lags behind the controller's own writes: one that counts pods right after creating some would create
//! them again. So it notes what it does *before* doing it, and does nothing more until the informer has
//! shown it all (client-go's `UIDTrackingControllerExpectations`).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use rk_api::{Change, Key, Resource};
use tokio::time::Instant;

use super::controller::controller_key;

/// After this time what did not show up is taken to have been missed.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

/// Expectations by the key of the controlling object.
#[derive(Debug, Default)]
pub struct Expectations {
    by_owner: Mutex<HashMap<Key, Expected>>,
}

impl Expectations {
    fn with(&self, owner: &Key, change: impl FnOnce(&mut Expected)) {
        let mut by_owner = self.by_owner.lock();
        let expected = by_owner.entry(owner.clone()).or_insert_with(|| Expected {
            creations: 0,
            deletions: HashSet::new(),
            since: Instant::now(),
        });
        expected.since = Instant::now();
        change(expected);
    }

    /// The controller is about to create so many objects.
    pub fn expect_creations(&self, owner: &Key, count: usize) {
        self.with(owner, |expected| expected.creations += count);
    }

    /// The controller is about to delete objects of these uids.
    pub fn expect_deletions(&self, owner: &Key, uids: impl IntoIterator<Item = String>) {
        self.with(owner, |expected| expected.deletions.extend(uids));
    }

    /// A creation was seen, or did not come about.
    pub fn created(&self, owner: &Key) {
        if let Some(expected) = self.by_owner.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// A deletion was seen (a deletion time is enough), or did not come about.
    pub fn deleted(&self, owner: &Key, uid: &str) {
        if let Some(expected) = self.by_owner.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// Notes what a change of a controlled object shows, and answers which objects of the resource `owner` controlled it before
    /// and after: their keys.
    pub fn observe(&self, change: &Change, owner: &Resource) -> Vec<Key> {
        let object = change.object();
        let mut keys: Vec<Key> = controller_key(object, owner).into_iter().collect();
        if let Some(key) = keys.first() {
            if matches!(change, Change::Added(_)) {
                self.created(key);
            }
            if matches!(change, Change::Deleted(_)) || object.meta().deletion_timestamp.is_some() {
                self.deleted(key, &object.meta().uid);
            }
        }
        if let Change::Updated { old, .. } = change {
            keys.extend(controller_key(old, owner));
            keys.dedup();
        }
        keys
    }

    /// `None` if everything was seen: go on. Otherwise how long to wait for it at most.
    pub fn pending(&self, owner: &Key) -> Option<Duration> {
        let mut by_owner = self.by_owner.lock();
        let expected = by_owner.get(owner)?;
        let age = expected.since.elapsed();
        if (expected.creations == 0 && expected.deletions.is_empty()) || age >= TIMEOUT {
            by_owner.remove(owner);
            return None;
        }
        Some(TIMEOUT - age)
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.by_owner.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_controller_waits_until_it_has_seen_its_own_writes() {
        let expectations = Expectations::default();
        let owner = ("ns".to_owned(), "rs".to_owned());
        assert!(expectations.pending(&owner).is_none());
        expectations.expect_creations(&owner, 2);
        expectations.expect_deletions(&owner, ["u1".to_owned()]);
        expectations.created(&owner);
        expectations.created(&owner);
        assert!(expectations.pending(&owner).is_some());
        expectations.deleted(&owner, "u2");
        assert!(expectations.pending(&owner).is_some());
        expectations.deleted(&owner, "u1");
        assert!(expectations.pending(&owner).is_none());

        expectations.expect_creations(&owner, 1);
        tokio::time::advance(TIMEOUT).await;
        assert!(expectations.pending(&owner).is_none(), "a missed event does not stop a controller for ever");
    }
}
