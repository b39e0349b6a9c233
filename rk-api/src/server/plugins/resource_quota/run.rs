//! Writes that take of the quotas of a namespace one behind the other, none of which waits for the one before to be stored.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;
use tokio::sync::watch;

use crate::{
    Object, Resource,
    quota::Amounts,
    server::{Reservation, Reserved},
};

/// The most writes of a run. Behind them other servers of the store have their turn.
const MOST: usize = 64;

/// A run: it goes on while its writes overlap, and each follows from what the one before leaves of the quotas. Where one of them fails, those
/// behind it fail too, by the store's comparison, and are judged anew.
#[derive(Default)]
pub(super) struct Run {
    under_way: Arc<UnderWay>,
    begun: usize,
    /// The versions of the quotas when it began.
    versions: HashSet<u64>,
    /// Quotas as its writes leave them, by name.
    left: HashMap<String, Left>,
}

/// What a write leaves of quotas: as they were read, as they are to be, and what is used then of what it takes more of.
pub(super) type Leaves = Vec<(Arc<Object>, Value, Amounts)>;

/// A quota as the last write that took of it leaves it.
pub(super) struct Left {
    pub(super) value: Arc<Value>,
    /// What is used then, of what was counted.
    pub(super) used: Amounts,
    change: Reserved,
}

/// The writes of a run that have not come to their end.
#[derive(Default)]
struct UnderWay {
    count: watch::Sender<usize>,
    failed: AtomicBool,
}

/// A write of a run, until its end.
struct Member {
    under_way: Arc<UnderWay>,
    changes: Vec<Reserved>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if !self.changes.iter().all(Reserved::is_stored) {
            self.under_way.failed.store(true, Ordering::Relaxed);
        }
        self.under_way.count.send_modify(|count| *count -= 1);
    }
}

impl Run {
    /// Whether it has no writes.
    pub(super) fn is_new(&self) -> bool {
        self.begun == 0
    }

    /// Whether the next write has to begin another run.
    pub(super) fn is_over(&self) -> bool {
        let none = *self.under_way.count.borrow() == 0;
        none || self.begun >= MOST || self.under_way.failed.load(Ordering::Relaxed)
    }

    /// Waits until nothing is under way, and begins anew.
    pub(super) async fn end(&mut self) {
        let mut count = self.under_way.count.subscribe();
        // The sender is here.
        let _ended = count.wait_for(|count| *count == 0).await;
        *self = Self::default();
    }

    /// Takes note of the quotas that there are, if this is the beginning.
    pub(super) fn begin(&mut self, quotas: &[Arc<Object>]) {
        if self.is_new() {
            self.versions = quotas.iter().map(|quota| quota.revision()).collect();
        }
    }

    /// What the writes so far leave of a quota; `None` if they took nothing of it.
    pub(super) fn left(&self, quota: &Object) -> Option<&Left> {
        self.left.get(&quota.meta().name)
    }

    /// Whether all writes of the run knew this version of a quota, or one that follows from it.
    pub(super) fn knows(&self, quota: &Object) -> bool {
        self.left(quota).is_some() || self.versions.contains(&quota.revision())
    }

    /// Adds a write that leaves this of quotas.
    pub(super) fn join(&mut self, reservation: &mut Reservation, resource: &Resource, leaves: Leaves) {
        let mut changes = Vec::with_capacity(leaves.len());
        for (quota, value, counted) in leaves {
            let (change, mut used) = match self.left.remove(&quota.meta().name) {
                Some(before) => (reservation.follow(&before.change, &value), before.used),
                None => (reservation.change(resource, &quota, &value), Amounts::new()),
            };
            used.extend(counted);
            changes.push(change.clone());
            self.left.insert(quota.meta().name.clone(), Left { value: value.into(), used, change });
        }
        self.begun += 1;
        self.under_way.count.send_modify(|count| *count += 1);
        reservation.hold(Member { under_way: Arc::clone(&self.under_way), changes });
    }
}
