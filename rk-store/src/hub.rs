//! The watch hub: one ring of the latest revisions for all watchers.
//!
//! The writer publishes each revision once. A watcher with nothing to deliver has no place in the ring; the first revision that
//! touches its range gives it one and wakes it, and it then reads the ring at its own pace. Revisions that every watcher has passed
//! leave the ring at once, so an idle store keeps none. A watcher that falls behind a full ring is cut.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Error, Event, Revision, WatchBatch, WatchRequest, mvcc::Commit};

#[derive(Debug)]
struct Entry {
    commit: Commit,
    /// The events without the pairs before, made when the first watcher wants them so.
    plain: OnceLock<Arc<[Event]>>,
}

impl Entry {
    fn concerns(&self, request: &WatchRequest) -> bool {
        self.commit.revision >= request.start_revision && self.commit.events.iter().any(|event| request.wants(event))
    }

    fn batch(&self, request: &WatchRequest) -> WatchBatch {
        let events =
            if request.prev_kv { &self.commit.events } else { self.plain.get_or_init(|| plain(&self.commit.events)) };
        let events = if events.iter().all(|event| request.wants(event)) {
            events.clone()
        } else {
            events.iter().filter(|event| request.wants(event)).cloned().collect()
        };
        WatchBatch { revision: self.commit.revision, events }
    }
}

fn plain(events: &Arc<[Event]>) -> Arc<[Event]> {
    if events.iter().all(|event| event.prev_kv.is_none()) {
        return events.clone();
    }
    events.iter().map(|event| Event { kind: event.kind, kv: event.kv.clone(), prev_kv: None }).collect()
}

#[derive(Debug)]
struct Slot {
    request: WatchRequest,
    /// The next revision in the ring to deliver.
    pending: Option<Revision>,
    cut: bool,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    /// Consecutive revisions up to `revision`.
    ring: VecDeque<Arc<Entry>>,
    slots: BTreeMap<u64, Slot>,
    /// Watchers with something pending.
    behind: usize,
    next_id: u64,
    closed: Option<String>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    capacity: usize,
}

/// What a watcher finds in the hub.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The next revision that touches its range.
    Batch(WatchBatch),
    /// Nothing; everything up to this revision has been delivered.
    Nothing(Revision),
}

impl Hub {
    /// A hub at a revision, whose ring holds at most `capacity` revisions.
    pub(crate) fn new(revision: Revision, capacity: usize) -> Self {
        let state =
            State { revision, ring: VecDeque::new(), slots: BTreeMap::new(), behind: 0, next_id: 0, closed: None };
        Self { state: Mutex::new(state), capacity: capacity.max(1) }
    }

    /// Hands a revision to those it concerns.
    pub(crate) fn publish(&self, commit: Commit) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.revision = commit.revision;
        let entry = Entry { commit, plain: OnceLock::new() };
        let mut oldest = None;
        for slot in state.slots.values_mut() {
            if slot.pending.is_none() && !slot.cut && entry.concerns(&slot.request) {
                slot.pending = Some(entry.commit.revision);
                state.behind += 1;
                slot.wake.notify_one();
            }
            oldest = [oldest, slot.pending].into_iter().flatten().min();
        }
        state.ring.push_back(Arc::new(entry));
        state.trim(oldest);
        if state.ring.len() > self.capacity {
            state.ring.pop_front();
            let first = state.revision + 1 - state.ring.len() as u64;
            for slot in state.slots.values_mut().filter(|slot| slot.pending.is_some_and(|pending| pending < first)) {
                slot.pending = None;
                slot.cut = true;
                state.behind -= 1;
                slot.wake.notify_one();
            }
        }
    }

    /// Registers a watcher for revisions that are still to come; the revision that the hub has reached.
    pub(crate) fn register(&self, request: WatchRequest) -> Result<(u64, Arc<Notify>, Revision), Error> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.closed {
            return Err(Error::Unavailable(reason.clone()));
        }
        let wake = Arc::new(Notify::new());
        let id = state.next_id;
        state.next_id += 1;
        let slot = Slot { request, pending: None, cut: false, wake: wake.clone() };
        state.slots.insert(id, slot);
        Ok((id, wake, state.revision))
    }

    /// Forgets a watcher.
    pub(crate) fn unregister(&self, id: u64) {
        let mut state = self.state.lock();
        if state.slots.remove(&id).is_some_and(|slot| slot.pending.is_some()) {
            state.one_less_behind();
        }
    }

    /// The next batch of a watcher, or why there will be no more.
    pub(crate) fn take(&self, id: u64) -> Result<Taken, Error> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let gone = || Error::Unavailable("the watch was cancelled".into());
        let slot = state.slots.get_mut(&id).ok_or_else(gone)?;
        if slot.cut {
            return Err(Error::Unavailable(format!(
                "the watcher fell more than {} revisions behind: resume from the last revision delivered",
                self.capacity
            )));
        }
        let Some(pending) = slot.pending else {
            return match &state.closed {
                Some(reason) => Err(Error::Unavailable(reason.clone())),
                None => Ok(Taken::Nothing(state.revision)),
            };
        };
        let first = state.revision + 1 - state.ring.len() as u64;
        let at = usize::try_from(pending - first).expect("a pending revision is in the ring");
        let entry = state.ring[at].clone();
        let next = state.ring.range(at + 1..).find(|entry| entry.concerns(&slot.request));
        slot.pending = next.map(|entry| entry.commit.revision);
        let batch = entry.batch(&slot.request);
        if slot.pending.is_none() {
            state.one_less_behind();
        }
        Ok(Taken::Batch(batch))
    }

    /// Ends every watch, once it has delivered what is in the ring, and refuses new ones.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        state.closed = Some(reason.to_owned());
        for slot in state.slots.values() {
            slot.wake.notify_one();
        }
    }

    /// Cuts every watch and goes on from another revision: the state was replaced by a snapshot.
    pub(crate) fn reset(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.revision = revision;
        state.ring.clear();
        state.behind = 0;
        for slot in state.slots.values_mut() {
            slot.pending = None;
            slot.cut = true;
            slot.wake.notify_one();
        }
    }
}

impl State {
    /// Drops revisions before `oldest`, all of them if no watcher is behind.
    fn trim(&mut self, oldest: Option<Revision>) {
        while self.ring.front().is_some_and(|entry| oldest.is_none_or(|oldest| entry.commit.revision < oldest)) {
            self.ring.pop_front();
        }
        if self.ring.is_empty() && self.ring.capacity() > 1024 {
            self.ring = VecDeque::new();
        }
    }

    fn one_less_behind(&mut self) {
        self.behind -= 1;
        if self.behind == 0 {
            self.trim(None);
        }
    }
}
