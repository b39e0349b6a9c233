//! The clock of leases: when each one ends, by the clock of the process.
//!
//! Deadlines are not part of the replicated state. A process that starts, or becomes the leader, gives every lease
//! its whole granted time again, so none ever ends early.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{Clock, Command, Error, LeaseId, Outcome, Replica};

#[derive(Debug)]
struct Timer {
    ttl: i64,
    deadline: Instant,
    /// Its end was handed out: nothing renews it any more.
    ended: bool,
}

#[derive(Debug, Default)]
struct Timers {
    by_id: HashMap<LeaseId, Timer>,
    /// Those not ended, soonest first.
    order: BTreeSet<(Instant, LeaseId)>,
}

/// Deadlines of the leases alive. Whoever may end leases awaits [`LeaseClock::ended`] and proposes to revoke what it gives.
#[derive(Debug, Default)]
pub struct LeaseClock {
    timers: Mutex<Timers>,
    changed: Notify,
    clock: Clock,
}

impl LeaseClock {
    /// Without leases.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    fn after(&self, ttl: i64) -> Instant {
        self.clock.now() + Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
    }

    /// Gives a lease its whole time from now on.
    pub fn start(&self, id: LeaseId, ttl: i64) {
        let mut timers = self.timers.lock();
        timers.set(id, Timer { ttl, deadline: self.after(ttl), ended: false });
        drop(timers);
        self.changed.notify_one();
    }

    /// Forgets a lease that was revoked.
    pub fn remove(&self, id: LeaseId) {
        let mut timers = self.timers.lock();
        if let Some(timer) = timers.by_id.remove(&id) {
            timers.order.remove(&(timer.deadline, id));
        }
    }

    /// Gives a lease its whole time again; the seconds of it. A lease that is just being ended is not found.
    pub fn renew(&self, id: LeaseId) -> Result<i64, Error> {
        let mut timers = self.timers.lock();
        let ttl = match timers.by_id.get(&id) {
            Some(timer) if !timer.ended => timer.ttl,
            _ => return Err(Error::LeaseNotFound(id)),
        };
        timers.set(id, Timer { ttl, deadline: self.after(ttl), ended: false });
        Ok(ttl)
    }

    /// Seconds left of a lease, rounded up; 0 for one that is just being ended, `None` if it is not known.
    pub fn remaining(&self, id: LeaseId) -> Option<i64> {
        let timers = self.timers.lock();
        let timer = timers.by_id.get(&id)?;
        let left = timer.deadline.saturating_duration_since(self.clock.now());
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(if timer.ended { 0 } else { i64::try_from(seconds).unwrap_or(i64::MAX) })
    }

    /// Gives every lease its whole time again, those being ended too.
    pub fn restart(&self) {
        let mut timers = self.timers.lock();
        let all: Vec<_> = timers.by_id.iter().map(|(id, timer)| (*id, timer.ttl)).collect();
        for (id, ttl) in all {
            timers.set(id, Timer { ttl, deadline: self.after(ttl), ended: false });
        }
        drop(timers);
        self.changed.notify_one();
    }

    /// Puts other leases in the place of those known, each with its whole time.
    pub fn replace(&self, leases: impl IntoIterator<Item = (LeaseId, i64)>) {
        let mut timers = self.timers.lock();
        *timers = Timers::default();
        for (id, ttl) in leases {
            timers.set(id, Timer { ttl, deadline: self.after(ttl), ended: false });
        }
        drop(timers);
        self.changed.notify_one();
    }

    /// Waits until leases have reached their end. Each is handed out once; if its revocation fails, [`LeaseClock::retry`] it.
    pub async fn ended(&self) -> Vec<LeaseId> {
        loop {
            let changed = self.changed.notified();
            let (ended, next) = self.timers.lock().take_ended(self.clock.now());
            if !ended.is_empty() {
                return ended;
            }
            match next {
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(self.clock.when(next)) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Hands an ended lease out again after a while, if it is still there.
    pub fn retry(&self, id: LeaseId, delay: Duration) {
        let mut timers = self.timers.lock();
        if let Some(ttl) = timers.by_id.get(&id).filter(|timer| timer.ended).map(|timer| timer.ttl) {
            timers.set(id, Timer { ttl, deadline: self.clock.now() + delay, ended: false });
        }
        drop(timers);
        self.changed.notify_one();
    }
}

impl Timers {
    fn set(&mut self, id: LeaseId, timer: Timer) {
        self.order.insert((timer.deadline, id));
        let deadline = timer.deadline;
        if let Some(old) = self.by_id.insert(id, timer)
            && old.deadline != deadline
        {
            self.order.remove(&(old.deadline, id));
        }
    }

    /// Those at their end, or else when the next one ends.
    fn take_ended(&mut self, now: Instant) -> (Vec<LeaseId>, Option<Instant>) {
        let mut ended = Vec::new();
        while let Some(&(deadline, id)) = self.order.first() {
            if deadline > now {
                return (ended, Some(deadline));
            }
            self.order.pop_first();
            if let Some(timer) = self.by_id.get_mut(&id) {
                timer.ended = true;
                ended.push(id);
            }
        }
        (ended, None)
    }
}

/// How long a lease that could not be ended waits for the next try.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Ends the leases of a replica as their time comes, for ever: `propose` gets the commands. Leases that can't be
/// ended now, for want of space, say, are tried again.
pub async fn end_leases<F>(replica: Arc<Replica>, propose: impl Fn(Command) -> F)
where
    F: Future<Output = Result<Outcome, Error>>,
{
    loop {
        let ended = replica.lease_clock().ended().await;
        let proposals = ended.iter().map(|&id| propose(Command::LeaseRevoke { id }));
        let results = futures::future::join_all(proposals).await;
        for (id, result) in ended.into_iter().zip(results) {
            match result {
                Ok(_) | Err(Error::LeaseNotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(lease = id, %error, "a lease could not be ended yet");
                    replica.lease_clock().retry(id, RETRY_DELAY);
                }
            }
        }
    }
}

/// An id for a lease whose requester left the choice to the store: positive and, over the life of a store, new.
pub(crate) fn choose_id() -> LeaseId {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // `RandomState` is seeded by the system and differs with each call; ids need not be secret.
    let random = RandomState::new().build_hasher().finish();
    i64::try_from(random >> 1).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_in_order_and_not_early() {
        let clock = LeaseClock::default();
        let begin = Instant::now();
        clock.start(1, 20);
        clock.start(2, 10);
        assert_eq!(clock.ended().await, [2]);
        assert!(begin.elapsed() >= Duration::from_secs(10));
        assert_eq!(clock.renew(1).unwrap(), 20);
        assert_eq!(clock.ended().await, [1]);
        assert!(begin.elapsed() >= Duration::from_secs(30));
        assert!(clock.renew(1).is_err(), "a lease that is being ended is not renewed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_end_comes_again() {
        let clock = LeaseClock::default();
        clock.start(1, 5);
        assert_eq!(clock.ended().await, [1]);
        clock.retry(1, Duration::from_secs(3));
        let begin = Instant::now();
        assert_eq!(clock.ended().await, [1]);
        assert!(begin.elapsed() >= Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn remaining_time_is_rounded_up() {
        let clock = LeaseClock::default();
        clock.start(1, 5);
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.remaining(1), Some(4));
        assert_eq!(clock.remaining(2), None);
    }
}
