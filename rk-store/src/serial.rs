//! Work that waits for the disk, done away from its callers in batches: whatever has queued up while one batch was done is the
//! next one. So writers that come together share a sync, and one that comes alone waits for nobody.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::Disk;

/// Something that does batches of items one after the other.
pub(crate) trait Work: Sized + Send + 'static {
    type Item: Send + 'static;

    /// Does what has queued up, in order. `own` is the queue in front of it.
    fn run(&mut self, items: Vec<Self::Item>, own: &Serial<Self>);
}

/// A queue in front of a [`Work`]. When the last handle and the queue are gone, so is the work. Clones are handles of one queue.
pub(crate) struct Serial<W: Work> {
    shared: Arc<Shared<W>>,
}

/// A handle that does not keep the work.
pub(crate) struct WeakSerial<W: Work> {
    shared: Weak<Shared<W>>,
}

struct Shared<W: Work> {
    state: Mutex<State<W>>,
    disk: Arc<dyn Disk>,
}

struct State<W: Work> {
    queue: Vec<W::Item>,
    worker: Worker<W>,
}

enum Worker<W> {
    Idle(W),
    Busy,
    /// It was dropped where it ran, by a panic or with its runtime.
    Gone,
}

/// Holds the work while it runs.
struct Run<W: Work> {
    work: Option<W>,
    own: Serial<W>,
}

impl<W: Work> Clone for Serial<W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<W: Work> Serial<W> {
    pub(crate) fn new(work: W, disk: Arc<dyn Disk>) -> Self {
        let state = State { queue: Vec::new(), worker: Worker::Idle(work) };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), disk }) }
    }

    pub(crate) fn downgrade(&self) -> WeakSerial<W> {
        WeakSerial { shared: Arc::downgrade(&self.shared) }
    }

    /// Adds an item to the next batch. It is dropped if the work has ended.
    pub(crate) fn push(&self, item: W::Item) {
        let mut state = self.shared.state.lock();
        match std::mem::replace(&mut state.worker, Worker::Busy) {
            Worker::Busy => state.queue.push(item),
            Worker::Idle(work) => {
                state.queue.push(item);
                drop(state);
                let mut run = Run { work: Some(work), own: self.clone() };
                self.shared.disk.run(Box::new(move || run.go()));
            }
            Worker::Gone => state.worker = Worker::Gone,
        }
    }
}

impl<W: Work> WeakSerial<W> {
    pub(crate) fn upgrade(&self) -> Option<Serial<W>> {
        Some(Serial { shared: self.shared.upgrade()? })
    }
}

impl<W: Work> Run<W> {
    fn go(&mut self) {
        while let Some(work) = &mut self.work {
            let mut state = self.own.shared.state.lock();
            if state.queue.is_empty() {
                if let Some(work) = self.work.take() {
                    state.worker = Worker::Idle(work);
                }
                return;
            }
            let items = std::mem::take(&mut state.queue);
            drop(state);
            work.run(items, &self.own);
        }
    }
}

impl<W: Work> Drop for Run<W> {
    fn drop(&mut self) {
        if self.work.is_some() {
            let mut state = self.own.shared.state.lock();
            state.worker = Worker::Gone;
            // Whoever waits for one of these learns by its end.
            let left = std::mem::take(&mut state.queue);
            drop(state);
            drop(left);
        }
    }
}
