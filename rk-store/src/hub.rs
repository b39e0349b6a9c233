//! The watch hub: each revision goes once to each group of watchers that want the same.
//!
//! Watchers of one range, with the same filters, are a group. The writer makes one batch for a group, finds the groups that a
//! key concerns by the key itself, and never looks at single watchers. A watcher goes through its group's batches at
//! its own pace; a batch that all have passed leaves at once, so an idle store keeps none. A watcher that falls behind a full
//! group is cut: it has to read history and join again.

mod groups;

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::groups::{Groups, Wanted};
use crate::{Error, Event, Revision, WatchBatch, WatchRequest, mvcc::Commit};

/// Bytes of keys and values that a group keeps for those behind, whatever the number of revisions.
const GROUP_BYTES: usize = 64 << 20;

/// Batches for the watchers of a group.
#[derive(Debug, Default)]
struct Ring {
    /// Each with the number of watchers that have not passed it.
    batches: VecDeque<(WatchBatch, usize)>,
    /// The number of the first batch, counted from the group's beginning.
    first: u64,
    bytes: usize,
    watchers: usize,
}

/// The watchers that want the same.
#[derive(Debug)]
struct Group {
    wanted: Wanted,
    ring: Mutex<Ring>,
    wake: Arc<Notify>,
}

/// A watcher's place in its group.
#[derive(Debug)]
pub(crate) struct Place {
    group: Arc<Group>,
    /// The number of the next batch to take.
    next: u64,
}

/// What a watcher finds in its group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Batches.
    Some,
    /// Nothing new.
    Nothing,
    /// It fell behind, or the state was replaced.
    Cut,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Hub {
    groups: Mutex<Groups>,
    /// Everything up to here is in the groups.
    revision: AtomicU64,
    /// Revisions that a group keeps.
    capacity: usize,
    closed: OnceLock<String>,
}

/// The groups that a revision went to, whose watchers are to be woken.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Touched(Vec<Arc<Group>>);

impl Touched {
    /// Wakes the watchers. Apart from publishing, so that it can be done when locks are given up.
    pub(crate) fn wake(self) {
        self.0.iter().for_each(|group| group.wake.notify_waiters());
    }
}

impl Hub {
    /// A hub at a revision, whose groups keep at most `capacity` revisions.
    pub(crate) fn new(revision: Revision, capacity: usize) -> Self {
        let revision = AtomicU64::new(revision);
        Self { groups: Mutex::default(), revision, capacity: capacity.max(1), closed: OnceLock::new() }
    }

    /// The revision that the hub has reached.
    pub(crate) fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    /// Why there will be nothing more.
    pub(crate) fn closed(&self) -> Option<Error> {
        self.closed.get().map(|reason| Error::Unavailable(reason.clone()))
    }

    /// Hands a revision to those it concerns. `with_before` gives its changes with the pairs before, if anyone wants those.
    pub(crate) fn publish(
        &self,
        commit: &Commit,
        with_before: impl FnOnce(&Commit) -> Result<Arc<[Event]>, Error>,
    ) -> Result<Touched, Error> {
        let groups = self.groups.lock();
        let touched = groups.touched(&commit.events);
        let whole = match touched.iter().any(|group| group.wanted.before()) {
            true => with_before(commit)?,
            false => commit.events.clone(),
        };
        for group in &touched {
            let events = if group.wanted.before() { &whole } else { &commit.events };
            group.push(group.wanted.batch(commit.revision, events), self.capacity);
        }
        self.revision.store(commit.revision, Ordering::Release);
        Ok(Touched(touched))
    }

    /// Registers a watcher for what is still to come; the revision that the hub has reached.
    pub(crate) fn join(&self, request: &WatchRequest) -> Result<(Place, Revision), Error> {
        let mut groups = self.groups.lock();
        if let Some(error) = self.closed() {
            return Err(error);
        }
        let group = groups.group(Wanted::of(request));
        let mut ring = group.ring.lock();
        ring.watchers += 1;
        let next = ring.end();
        drop(ring);
        Ok((Place { group, next }, self.revision()))
    }

    /// Lets a watcher that was cut go on with what is still to come; the revision that the hub has reached.
    pub(crate) fn rejoin(&self, place: &mut Place) -> Revision {
        let _groups = self.groups.lock();
        let mut ring = place.group.ring.lock();
        ring.pass_all(place.next);
        place.next = ring.end();
        self.revision()
    }

    /// Forgets a watcher.
    pub(crate) fn leave(&self, place: &Place) {
        let mut groups = self.groups.lock();
        let mut ring = place.group.ring.lock();
        ring.pass_all(place.next);
        ring.watchers -= 1;
        let empty = ring.watchers == 0;
        drop(ring);
        if empty {
            groups.remove(&place.group);
        }
    }

    /// Ends every watch, once it has delivered what is there, and refuses new ones.
    pub(crate) fn close(&self, reason: &str) {
        let groups = self.groups.lock();
        // The first reason stays.
        self.closed.get_or_init(|| reason.to_owned());
        groups.iter().for_each(|group| group.wake.notify_waiters());
    }

    /// Cuts every watch and goes on from another revision: the state was replaced.
    pub(crate) fn reset(&self, revision: Revision) {
        let groups = self.groups.lock();
        self.revision.store(revision, Ordering::Release);
        for group in groups.iter() {
            let mut ring = group.ring.lock();
            // A number that no watcher has reached: all have missed something.
            ring.first = ring.end() + 1;
            ring.batches.clear();
            ring.bytes = 0;
            drop(ring);
            group.wake.notify_waiters();
        }
    }
}

impl Place {
    /// Waits until there may be something to take. What is there already when this is called needs no waiting: so call it
    /// first, look, and await then.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        // Made on the spot: it notices what comes from now on, polled or not.
        self.group.wake.clone().notified_owned()
    }

    /// Takes up to `most` batches.
    pub(crate) fn take(&mut self, into: &mut VecDeque<WatchBatch>, most: usize) -> Taken {
        let mut ring = self.group.ring.lock();
        let Some(at) = self.next.checked_sub(ring.first) else { return Taken::Cut };
        let at = usize::try_from(at).expect("a place lies in the ring or at its end");
        let before = into.len();
        for (batch, left) in ring.batches.range_mut(at..).take(most) {
            into.push_back(batch.clone());
            *left -= 1;
        }
        let taken = into.len() - before;
        self.next += taken as u64;
        ring.trim();
        if taken > 0 { Taken::Some } else { Taken::Nothing }
    }
}

impl Ring {
    /// The number of the next batch to come.
    fn end(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    /// Drops what all watchers have passed.
    fn trim(&mut self) {
        while self.batches.front().is_some_and(|(_, left)| *left == 0) {
            self.pop();
        }
        if self.batches.is_empty() && self.batches.capacity() > 1024 {
            self.batches = VecDeque::new();
        }
    }

    fn pop(&mut self) {
        if let Some((batch, _)) = self.batches.pop_front() {
            self.first += 1;
            self.bytes -= size(&batch);
        }
    }

    /// A watcher that stands before batch `next` wants none of what is there.
    fn pass_all(&mut self, next: u64) {
        let at = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.batches.iter_mut().skip(at).for_each(|(_, left)| *left -= 1);
        self.trim();
    }
}

fn size(batch: &WatchBatch) -> usize {
    let of = |event: &Event| {
        let before = event.prev_kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
        event.kv.key.len() + event.kv.value.len() + before
    };
    batch.events.iter().map(of).sum()
}

impl Group {
    fn push(&self, batch: WatchBatch, capacity: usize) {
        let mut ring = self.ring.lock();
        ring.bytes += size(&batch);
        let watchers = ring.watchers;
        ring.batches.push_back((batch, watchers));
        while ring.batches.len() > capacity || (ring.bytes > GROUP_BYTES && ring.batches.len() > 1) {
            ring.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventKind, KeyRange, KeyValue};

    fn commit(revision: Revision, key: &'static str) -> Commit {
        let kv = KeyValue {
            key: key.into(),
            value: "x".into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        };
        Commit { revision, events: [Event { kind: EventKind::Put, kv, prev_kv: None }].into() }
    }

    fn publish(hub: &Hub, commit: Commit) {
        hub.publish(&commit, |_| panic!("nobody wants the pairs before")).unwrap().wake();
    }

    fn take(place: &mut Place) -> Vec<Revision> {
        let mut batches = VecDeque::new();
        place.take(&mut batches, 100);
        batches.into_iter().map(|batch| batch.revision).collect()
    }

    #[test]
    fn each_gets_what_concerns_it_and_nothing_stays() {
        let hub = Hub::new(1, 10);
        let join = |range| hub.join(&WatchRequest::new(range, 0)).unwrap().0;
        let mut places = [
            join(KeyRange::key("ab")),
            join(KeyRange::prefix("a")),
            join(KeyRange::prefix("ab")),
            join(KeyRange::all()),
            join(KeyRange { start: "aa".into(), end: Some("ad".into()) }),
            join(KeyRange { start: "b".into(), end: None }),
            join(KeyRange::prefix("a")),
        ];
        for (revision, key) in (2..).zip(["a", "ab", "abc", "ac", "b"]) {
            publish(&hub, commit(revision, key));
        }
        let seen = places.each_mut().map(take);
        let wanted: [&[Revision]; 7] =
            [&[3], &[2, 3, 4, 5], &[3, 4], &[2, 3, 4, 5, 6], &[3, 4, 5], &[6], &[2, 3, 4, 5]];
        assert_eq!(seen, wanted);
        assert!(places.iter().all(|place| place.group.ring.lock().batches.is_empty()));
        for place in &places {
            hub.leave(place);
        }
        assert_eq!(hub.groups.lock().iter().count(), 0);
    }

    #[test]
    fn watchers_of_one_range_share_a_batch() {
        let hub = Hub::new(1, 10);
        let request = WatchRequest::new(KeyRange::prefix("a"), 0);
        let mut two = [hub.join(&request).unwrap().0, hub.join(&request).unwrap().0];
        publish(&hub, commit(2, "a"));
        let mut batches = VecDeque::new();
        two.iter_mut().for_each(|place| assert_eq!(place.take(&mut batches, 1), Taken::Some));
        assert!(Arc::ptr_eq(&batches[0].events, &batches[1].events));
    }

    #[test]
    fn one_that_falls_behind_is_cut_and_holds_nothing() {
        let hub = Hub::new(1, 3);
        let request = WatchRequest::new(KeyRange::all(), 0);
        let (mut slow, mut fast) = (hub.join(&request).unwrap().0, hub.join(&request).unwrap().0);
        for revision in 2..10 {
            publish(&hub, commit(revision, "a"));
            assert_eq!(take(&mut fast), [revision]);
        }
        let mut batches = VecDeque::new();
        assert_eq!(slow.take(&mut batches, 1), Taken::Cut);
        assert_eq!(hub.rejoin(&mut slow), 9);
        assert!(slow.group.ring.lock().batches.is_empty());
        publish(&hub, commit(10, "a"));
        assert_eq!((take(&mut slow), take(&mut fast)), (vec![10], vec![10]));
        hub.reset(20);
        assert_eq!(slow.take(&mut batches, 1), Taken::Cut);
        assert_eq!(hub.rejoin(&mut slow), 20);
    }
}
