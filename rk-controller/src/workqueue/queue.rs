//! The queue: the rules of `state` on tokio's clock, shared by those who add and those who work.

use std::{fmt, hash::Hash, ops::Deref, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    rate::RateLimiter,
    state::{Priority, State},
};

/// What a queue tells of itself; the names are those of Kubernetes' `workqueue_*` metrics.
pub trait Metrics: Send + Sync + 'static {
    /// `workqueue_depth`: keys that are ready.
    fn depth(&self, _keys: usize) {}
    /// `workqueue_adds_total`.
    fn added(&self) {}
    /// `workqueue_queue_duration_seconds`: how long a key waited for a worker.
    fn queue_duration(&self, _waited: Duration) {}
    /// `workqueue_work_duration_seconds`: how long a worker had it.
    fn work_duration(&self, _worked: Duration) {}
    /// `workqueue_retries_total`.
    fn retried(&self) {}
}

/// Tells nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMetrics;

impl Metrics for NoMetrics {}

struct Shared<K> {
    state: Mutex<State<K>>,
    limiter: Mutex<RateLimiter<K>>,
    /// Something is ready, or the earliest delay changed, or the queue was closed.
    changed: Notify,
    /// A worker is done, or the queue was closed.
    idle: Notify,
    metrics: Arc<dyn Metrics>,
}

/// A queue of keys; clones are the same queue.
pub struct WorkQueue<K>(Arc<Shared<K>>);

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for WorkQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new(RateLimiter::default(), Arc::new(NoMetrics))
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> WorkQueue<K> {
    /// An empty queue.
    pub fn new(limiter: RateLimiter<K>, metrics: Arc<dyn Metrics>) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            limiter: Mutex::new(limiter),
            changed: Notify::new(),
            idle: Notify::new(),
            metrics,
        }))
    }

    /// Wants `key` worked on soon.
    pub fn add(&self, key: K) {
        self.add_with(key, Priority::NORMAL);
    }

    /// Wants `key` worked on, before all keys of lower priority. A key that waits already keeps its place, and the
    /// higher of the two priorities.
    pub fn add_with(&self, key: K, priority: Priority) {
        let mut state = self.0.state.lock();
        let added = state.add(key, priority, Instant::now());
        let depth = state.ready();
        drop(state);
        if added {
            self.0.metrics.added();
            self.0.metrics.depth(depth);
            self.0.changed.notify_one();
        }
    }

    /// Wants `key` worked on after a while; of two such wishes the earlier holds.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        // A delay beyond what the clock can say is one that nobody will see the end of.
        let Some(due) = Instant::now().checked_add(delay) else { return };
        self.0.state.lock().add_at(key, Priority::NORMAL, due);
        self.0.changed.notify_one();
    }

    /// Wants `key` worked on again after a failure, after a delay that grows with each failure until
    /// [`WorkQueue::forget`]. Answers the delay.
    pub fn retry(&self, key: K) -> Duration {
        let delay = self.0.limiter.lock().when(key.clone(), Instant::now());
        self.0.metrics.retried();
        self.add_after(key, delay);
        delay
    }

    /// The key went well: its next failure is its first.
    pub fn forget(&self, key: &K) {
        self.0.limiter.lock().forget(key);
    }

    /// How often a key has failed since it last went well.
    pub fn failures(&self, key: &K) -> u32 {
        self.0.limiter.lock().failures(key)
    }

    /// The next key, once there is one; `None` after [`WorkQueue::shut_down`], when what was ready has been taken. No
    /// other worker gets the key until the [`Item`] is dropped. Dropping the future loses nothing.
    pub async fn next(&self) -> Option<Item<K>> {
        loop {
            let changed = self.0.changed.notified();
            let due = match self.poll() {
                Polled::Item(item) => return Some(item),
                Polled::Closed => return None,
                Polled::Wait(due) => due,
            };
            match due {
                None => changed.await,
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }

    /// The next key if one is ready now.
    pub fn try_next(&self) -> Option<Item<K>> {
        match self.poll() {
            Polled::Item(item) => Some(item),
            Polled::Closed | Polled::Wait(_) => None,
        }
    }

    fn poll(&self) -> Polled<K> {
        let now = Instant::now();
        let mut state = self.0.state.lock();
        let (due, ripe) = state.ripen(now);
        let taken = state.take(now);
        let (depth, closed) = (state.ready(), state.closed);
        drop(state);
        for _ in 0..ripe {
            self.0.metrics.added();
        }
        match taken {
            Some((key, waited)) => {
                self.0.metrics.queue_duration(waited);
                self.0.metrics.depth(depth);
                // One wake-up may stand for several keys: pass it on.
                if depth > 0 || due.is_some() {
                    self.0.changed.notify_one();
                }
                Polled::Item(Item { key, shared: Arc::clone(&self.0) })
            }
            None if closed => {
                self.0.changed.notify_one();
                Polled::Closed
            }
            None => Polled::Wait(due),
        }
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.0.state.lock().ready()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more keys. What is ready is still handed out; delayed keys are dropped.
    pub fn shut_down(&self) {
        self.0.state.lock().close();
        self.0.changed.notify_one();
        self.0.idle.notify_waiters();
    }

    /// [`WorkQueue::shut_down`], and waits until the workers have taken and finished what there was.
    pub async fn drain(&self) {
        self.shut_down();
        loop {
            let idle = self.0.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            {
                let state = self.0.state.lock();
                if state.ready() == 0 && state.processing() == 0 {
                    return;
                }
            }
            idle.await;
        }
    }
}

enum Polled<K: Clone + Eq + Hash> {
    Item(Item<K>),
    Closed,
    Wait(Option<Instant>),
}

/// A key in the hands of one worker, until it is dropped.
pub struct Item<K: Clone + Eq + Hash> {
    key: K,
    shared: Arc<Shared<K>>,
}

impl<K: Clone + Eq + Hash> Deref for Item<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.key
    }
}

impl<K: Clone + Eq + Hash> Drop for Item<K> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let worked = state.done(&self.key, Instant::now());
        let depth = state.ready();
        drop(state);
        self.shared.metrics.work_duration(worked);
        self.shared.metrics.depth(depth);
        if depth > 0 {
            self.shared.changed.notify_one();
        }
        self.shared.idle.notify_waiters();
    }
}
