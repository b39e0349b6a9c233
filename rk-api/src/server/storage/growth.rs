//! Who waits for a collection to change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

/// How often a collection has changed, and who wants to be woken when it does so again. Many wait for one collection, and all are woken at
/// each change: that costs each of them one turn of the lock, and nothing where they are asked again meanwhile.
#[derive(Default)]
pub(super) struct Growth {
    count: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By the place that each has for as long as it lives.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Growth {
    /// Counts a change and wakes who waits.
    pub(super) fn grow(&self) {
        let woken: Vec<Waker> = {
            let mut waiting = self.waiting.lock();
            self.count.fetch_add(1, Ordering::Release);
            waiting.wakers.iter_mut().filter_map(Option::take).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// One more who may wait, and has seen nothing yet.
    pub(super) fn waiter(self: &Arc<Self>) -> Waiter {
        let mut waiting = self.waiting.lock();
        let place = waiting.free.pop().unwrap_or_else(|| {
            waiting.wakers.push(None);
            waiting.wakers.len() - 1
        });
        drop(waiting);
        Waiter { growth: Arc::clone(self), place, seen: None, waits: None }
    }
}

/// Waits for changes behind those that it has seen.
pub(crate) struct Waiter {
    growth: Arc<Growth>,
    place: usize,
    /// The count up to which all is seen.
    seen: Option<u64>,
    /// The count since which a waker is in place, and a copy of it.
    waits: Option<(u64, Waker)>,
}

impl Waiter {
    /// The count now: what is read behind this call shows every change up to it.
    pub(super) fn count(&self) -> u64 {
        self.growth.count.load(Ordering::Acquire)
    }

    /// Notes that every change up to a count is seen.
    pub(super) fn see(&mut self, count: u64) {
        self.seen = Some(count);
    }

    /// Notes that every change up to now is seen.
    pub(crate) fn see_all(&mut self) {
        self.see(self.count());
    }

    /// Ready when there are changes that are not seen.
    pub(super) fn poll_unseen(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(seen) = self.seen.filter(|seen| *seen == self.count()) else { return Poll::Ready(()) };
        match &self.waits {
            Some((since, waker)) if *since == seen && waker.will_wake(cx.waker()) => return Poll::Pending,
            _ => {}
        }
        let mut waiting = self.growth.waiting.lock();
        if self.count() != seen {
            return Poll::Ready(());
        }
        let known = self.waits.take().map(|(_, waker)| waker).filter(|waker| waker.will_wake(cx.waker()));
        let waker = known.unwrap_or_else(|| cx.waker().clone());
        waiting.wakers[self.place] = Some(waker.clone());
        drop(waiting);
        self.waits = Some((seen, waker));
        Poll::Pending
    }

    /// Waits until there is another change.
    pub(crate) async fn changed(&mut self) {
        std::future::poll_fn(|cx| self.poll_unseen(cx)).await;
        self.see_all();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.growth.waiting.lock();
        waiting.free.push(self.place);
        // Dropped behind the lock: it may be the last that holds its task.
        let waker = waiting.wakers[self.place].take();
        drop(waiting);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicU64);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_once_for_each_change_that_it_has_not_seen() {
        let (growth, counts) = (Arc::new(Growth::default()), Arc::new(Counts::default()));
        let waker = Waker::from(Arc::clone(&counts));
        let mut cx = Context::from_waker(&waker);
        let woken = || counts.0.load(Ordering::Relaxed);
        let mut waiter = growth.waiter();
        assert!(waiter.poll_unseen(&mut cx).is_ready(), "nothing is seen yet");
        waiter.see_all();
        assert!(waiter.poll_unseen(&mut cx).is_pending() && waiter.poll_unseen(&mut cx).is_pending());
        growth.grow();
        growth.grow();
        assert_eq!(woken(), 1);
        let count = waiter.count();
        growth.grow();
        waiter.see(count);
        assert!(waiter.poll_unseen(&mut cx).is_ready(), "a change came while others were read");
        waiter.see_all();
        assert!(waiter.poll_unseen(&mut cx).is_pending());
        // Another task takes it over.
        let other = Arc::new(Counts::default());
        let others = Waker::from(Arc::clone(&other));
        assert!(waiter.poll_unseen(&mut Context::from_waker(&others)).is_pending());
        growth.grow();
        assert_eq!((woken(), other.0.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn who_goes_leaves_its_place_to_the_next() {
        let growth = Arc::new(Growth::default());
        let (first, second) = (growth.waiter(), growth.waiter());
        drop(first);
        let third = growth.waiter();
        assert_eq!((second.place, third.place), (1, 0));
        assert_eq!(growth.waiting.lock().wakers.len(), 2);
        drop((second, third));
        assert!(growth.waiting.lock().wakers.iter().all(Option::is_none));
    }
}
