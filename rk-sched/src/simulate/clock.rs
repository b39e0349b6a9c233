//! Virtual time, and what is due when.

use std::{cmp::Ordering, collections::BinaryHeap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time};
use tokio::time::Instant;

use super::{virtual_time::Asked, workload::Job};

/// Something that is due at a time.
pub(super) enum Event {
    /// The next of the actions of a step that plays.
    Play(usize),
    /// The next deletion of a step that deletes.
    Delete(usize),
    /// A turn of a step that churns.
    Churn(usize, u64),
    /// A pod makes place for the next one of a steady stream.
    Next(usize),
    /// A step has slept enough.
    Awake,
    /// The API answers a plugin.
    Answer(Box<Asked>),
    /// A volume is bound to the claim that it was given to.
    BindVolume(String),
    /// A volume is provided for a claim.
    Provide(String, String),
    /// A pod has run to its end, or fails.
    Ended { pod: usize, failed: bool },
    /// A pod that was being deleted is gone.
    Stopped(usize),
    /// A pod takes the place of another one.
    Replace { job: Arc<Job>, restarts: u32, failures: u32 },
    /// A node leaves, for the time of this number.
    NodeDown(String, u64),
    /// A node comes back.
    NodeUp(Arc<Node>, u64),
}

impl Event {
    /// Whether a simulation that has nothing else to do waits for it.
    fn matters(&self) -> bool {
        !matches!(self, Self::Churn(..) | Self::NodeDown(..) | Self::NodeUp(..))
    }

    /// Whether pods without a node may wait for it.
    fn is_return(&self) -> bool {
        matches!(self, Self::NodeUp(..))
    }
}

/// The end of all that is simulated: a century.
pub(super) const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

struct Due {
    at: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the largest first; what is due first is that.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The time, and the events to come: by time, then in the order in which they were added.
pub(super) struct Clock {
    base: Instant,
    now: Duration,
    due: BinaryHeap<Due>,
    added: u64,
    matter: usize,
    returns: usize,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { base: Instant::now(), now: Duration::ZERO, due: BinaryHeap::new(), added: 0, matter: 0, returns: 0 }
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The time for an engine.
    pub(super) fn instant(&self) -> Instant {
        self.at(self.now)
    }

    /// A time since the start as one for tasks.
    pub(super) fn at(&self, time: Duration) -> Instant {
        self.base.checked_add(time).unwrap_or(self.base + FAR)
    }

    /// A time of an engine as one since the start.
    pub(super) fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    /// The time for objects: the simulation starts with the year 2000.
    pub(super) fn timestamp(&self) -> Time {
        const START: Timestamp = Timestamp::constant(946_684_800, 0);
        Time(START.saturating_add(self.now).unwrap_or(Timestamp::MAX))
    }

    /// Adds an event that is due after this time.
    pub(super) fn add(&mut self, after: Duration, event: Event) {
        self.added += 1;
        self.matter += usize::from(event.matters());
        self.returns += usize::from(event.is_return());
        self.due.push(Due { at: self.now.saturating_add(after), number: self.added, event });
    }

    /// An event that is due now.
    pub(super) fn pop(&mut self) -> Option<Event> {
        if self.due.peek()?.at > self.now {
            return None;
        }
        let event = self.due.pop()?.event;
        self.matter -= usize::from(event.matters());
        self.returns -= usize::from(event.is_return());
        Some(event)
    }

    /// Whether a node is to come back.
    pub(super) fn has_returns(&self) -> bool {
        self.returns > 0
    }

    /// When the next event is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.peek().map(|due| due.at)
    }

    /// Whether an event is to come that the simulation's end waits for.
    pub(super) fn has_work(&self) -> bool {
        self.matter > 0
    }

    /// Goes on to a later time.
    pub(super) fn advance(&mut self, to: Duration) {
        self.now = self.now.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_in_order() {
        let mut clock = Clock::new();
        for (after, step) in [(2, 1), (1, 2), (2, 3), (1, 4)] {
            clock.add(Duration::from_secs(after), Event::Play(step));
        }
        let mut order = Vec::new();
        while let Some(next) = clock.next() {
            clock.advance(next);
            while let Some(Event::Play(step)) = clock.pop() {
                order.push((clock.now().as_secs(), step));
            }
        }
        assert_eq!(order, [(1, 2), (1, 4), (2, 1), (2, 3)]);
        assert!(!clock.has_work());
        assert_eq!(clock.timestamp().0.to_string(), "2000-01-01T00:00:02Z");
    }
}
