//! How far the cache has come, and who waits for it to come further.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use rk_store::Revision;
use tokio::sync::oneshot;

/// A revision that grows. Whoever waits for one is woken when it is there, and not before: each writer waits for its own.
#[derive(Default)]
pub(super) struct Reached {
    revision: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By the revision waited for, and a number.
    all: BTreeMap<(Revision, u64), oneshot::Sender<()>>,
    next: u64,
}

/// Takes a place among those who wait away again.
struct Place<'a>(&'a Reached, (Revision, u64));

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().all.remove(&self.1);
    }
}

impl Reached {
    pub(super) fn get(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    /// Tells that everything up to here is there.
    pub(super) fn set(&self, revision: Revision) {
        self.revision.store(revision, Ordering::Release);
        let mut waiting = self.waiting.lock();
        while let Some(first) = waiting.all.first_entry()
            && first.key().0 <= revision
        {
            // Whoever waited may have given up.
            let _gone = first.remove().send(());
        }
    }

    /// Waits until the revision is there.
    pub(super) async fn wait_for(&self, revision: Revision) {
        while self.get() < revision {
            let (tell, told) = oneshot::channel();
            let place = {
                let mut waiting = self.waiting.lock();
                // Looked at again under the lock: it may just have come.
                if self.get() >= revision {
                    return;
                }
                waiting.next += 1;
                let key = (revision, waiting.next);
                waiting.all.insert(key, tell);
                Place(self, key)
            };
            // The sender lives among those who wait until it is told.
            let _ = told.await;
            drop(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn each_waits_for_its_own_revision() {
        let reached = Arc::new(Reached::default());
        let wait = |revision| {
            let reached = Arc::clone(&reached);
            tokio::spawn(async move { reached.wait_for(revision).await })
        };
        let (first, third) = (wait(1), wait(3));
        tokio::task::yield_now().await;
        reached.set(2);
        first.await.unwrap();
        assert_eq!(reached.waiting.lock().all.len(), 1);
        third.abort();
        assert!(third.await.is_err());
        assert!(reached.waiting.lock().all.is_empty(), "who gives up leaves nothing");
        reached.wait_for(2).await;
    }
}
