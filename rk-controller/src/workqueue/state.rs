//! The rules of the queue, without waiting: time is handed in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

/// Which keys come first: higher before lower, in the order of their adding within one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub i32);

impl Priority {
    /// What is there when a controller starts: changes that happen now go before it (controller-runtime's value).
    pub const LOW: Self = Self(-100);
    /// A change.
    pub const NORMAL: Self = Self(0);
}

/// A key that waits to be worked on.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    priority: Priority,
    /// Its place in `ready`, unless a worker still has the key.
    place: Option<u64>,
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Delayed {
    due: Instant,
    number: u64,
    priority: Priority,
}

#[derive(Debug)]
pub(super) struct State<K> {
    wanted: HashMap<K, Wanted>,
    ready: BTreeMap<(Reverse<Priority>, u64), K>,
    processing: HashMap<K, Instant>,
    delayed: HashMap<K, Delayed>,
    by_due: BTreeMap<(Instant, u64), K>,
    counter: u64,
    pub(super) closed: bool,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            wanted: HashMap::new(),
            ready: BTreeMap::new(),
            processing: HashMap::new(),
            delayed: HashMap::new(),
            by_due: BTreeMap::new(),
            counter: 0,
            closed: false,
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Wants `key` worked on; answers whether that is news.
    pub(super) fn add(&mut self, key: K, priority: Priority, now: Instant) -> bool {
        if self.closed {
            return false;
        }
        let number = self.number();
        if let Some(wanted) = self.wanted.get_mut(&key) {
            if priority > wanted.priority {
                if let Some(place) = wanted.place {
                    self.ready.remove(&(Reverse(wanted.priority), place));
                    self.ready.insert((Reverse(priority), place), key);
                }
                wanted.priority = priority;
            }
            return false;
        }
        let place = (!self.processing.contains_key(&key)).then_some(number);
        if let Some(place) = place {
            self.ready.insert((Reverse(priority), place), key.clone());
        }
        self.wanted.insert(key, Wanted { priority, place, since: now });
        true
    }

    /// Wants `key` worked on at `due`; the earlier of two wishes holds.
    pub(super) fn add_at(&mut self, key: K, priority: Priority, due: Instant) {
        if self.closed {
            return;
        }
        let number = self.number();
        let mut wish = Delayed { due, number, priority };
        if let Some(known) = self.delayed.get(&key) {
            if known.due <= due {
                return;
            }
            wish.priority = priority.max(known.priority);
            self.by_due.remove(&(known.due, known.number));
        }
        self.by_due.insert((due, number), key.clone());
        self.delayed.insert(key, wish);
    }

    /// Adds the keys whose time has come; answers when the next one comes, and how many were news.
    pub(super) fn ripen(&mut self, now: Instant) -> (Option<Instant>, usize) {
        let mut added = 0;
        while let Some((&(due, _), _)) = self.by_due.first_key_value() {
            if due > now {
                return (Some(due), added);
            }
            if let Some((_, key)) = self.by_due.pop_first() {
                let priority = self.delayed.remove(&key).map_or(Priority::NORMAL, |wish| wish.priority);
                added += usize::from(self.add(key, priority, now));
            }
        }
        (None, added)
    }

    /// Takes the first key, and tells how long it waited.
    pub(super) fn take(&mut self, now: Instant) -> Option<(K, Duration)> {
        let (_, key) = self.ready.pop_first()?;
        let since = self.wanted.remove(&key).map_or(now, |wanted| wanted.since);
        self.processing.insert(key.clone(), now);
        Some((key, now.duration_since(since)))
    }

    /// Ends the work on `key`; answers how long it took. If it was wanted meanwhile it is ready again.
    pub(super) fn done(&mut self, key: &K, now: Instant) -> Duration {
        let started = self.processing.remove(key).unwrap_or(now);
        let number = self.number();
        if let Some(wanted) = self.wanted.get_mut(key) {
            wanted.place = Some(number);
            self.ready.insert((Reverse(wanted.priority), number), key.clone());
        }
        now.duration_since(started)
    }

    /// Takes no more keys; delayed ones are dropped.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.delayed.clear();
        self.by_due.clear();
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn processing(&self) -> usize {
        self.processing.len()
    }
}
