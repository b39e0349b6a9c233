//! The queues of a priority level, and the count of its seats.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{
    demand::{Demand, Wanted},
    level::{Refused, Seat},
};

/// How a level treats requests for which there are no seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queuing {
    /// 0: they are refused.
    pub(super) queues: usize,
    /// A flow has so many queues to choose from.
    pub(super) hand: usize,
    pub(super) length: usize,
}

impl Queuing {
    pub(super) const REJECT: Self = Self { queues: 0, hand: 0, length: 0 };
}

/// A level as it is now.
pub(super) struct State {
    seats: usize,
    taken: usize,
    /// Requests that have seats.
    executing: usize,
    queuing: Queuing,
    queues: Vec<Queue>,
    waiting: usize,
    /// Seats that those who wait want.
    wanted: usize,
    demand: Demand,
    /// What the next who waits is known by.
    ticket: u64,
    /// What the queue that was served last had got before: where a queue starts that was empty.
    now: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    /// Seats it has got, counted from where the others were when it began to wait.
    served: u64,
}

/// Somebody who waits.
pub(super) struct Waiter {
    ticket: u64,
    pub(super) seats: usize,
    pub(super) told: oneshot::Sender<Seat>,
}

impl State {
    /// Without seats and queues.
    pub(super) fn new() -> Self {
        Self {
            seats: 0,
            taken: 0,
            executing: 0,
            queuing: Queuing::REJECT,
            queues: Vec::new(),
            waiting: 0,
            wanted: 0,
            demand: Demand::new(),
            ticket: 0,
            now: 0,
        }
    }

    /// Changes seats and queues; who waits in a queue that goes waits in another.
    pub(super) fn configure(&mut self, seats: usize, queuing: Queuing) {
        (self.seats, self.queuing) = (seats, queuing);
        if self.queues.len() > queuing.queues {
            let gone: Vec<_> = self.queues.drain(queuing.queues..).flat_map(|queue| queue.waiting).collect();
            match self.queues.len() {
                // They are told by their sender's end.
                0 => (self.waiting, self.wanted) = (0, 0),
                left => {
                    for (at, waiting) in gone.into_iter().enumerate() {
                        self.queues[at % left].waiting.push_back(waiting);
                    }
                }
            }
        }
        self.queues.resize_with(queuing.queues, Queue::default);
        self.note();
    }

    pub(super) fn set_seats(&mut self, seats: usize) {
        self.seats = seats;
    }

    /// The seats that were wanted since this was asked last.
    pub(super) fn demand(&mut self) -> Wanted {
        self.demand.take()
    }

    /// Gives a request its seats (`None`), or a place in a queue: what it is known by there, and where it is told.
    ///
    /// # Errors
    /// There is neither.
    pub(super) fn ask(&mut self, flow: u64, seats: usize) -> Result<Option<(u64, oneshot::Receiver<Seat>)>, Refused> {
        // A level without queues lets one through that wants more than there is, or nobody would see that it needs seats.
        let serves = self.queues.is_empty() || self.waiting == 0 && self.taken < self.seats;
        if serves && self.has_room(seats) {
            self.sit(seats);
            return Ok(None);
        }
        let at = self.shortest(flow).ok_or(Refused::ConcurrencyLimit)?;
        let queue = &mut self.queues[at];
        // While seats are free, it is one who wants many that keeps the others waiting.
        if queue.waiting.len() >= self.queuing.length && self.taken >= self.seats {
            return Err(Refused::QueueFull);
        }
        if queue.waiting.is_empty() {
            queue.served = queue.served.max(self.now);
        }
        let (told, waiting) = oneshot::channel();
        let ticket = self.ticket;
        queue.waiting.push_back(Waiter { ticket, seats, told });
        self.ticket += 1;
        self.waiting += 1;
        self.wanted += seats;
        self.note();
        Ok(Some((ticket, waiting)))
    }

    /// Whether there is room for a request of so many seats. One that wants more than there are is to be alone.
    fn has_room(&self, seats: usize) -> bool {
        if seats > self.seats { self.executing == 0 } else { self.taken.saturating_add(seats) <= self.seats }
    }

    fn sit(&mut self, seats: usize) {
        self.taken += seats;
        self.executing += 1;
        self.note();
    }

    /// Takes seats back. Whether somebody waits for some.
    pub(super) fn rise(&mut self, seats: usize) -> bool {
        self.taken -= seats;
        self.executing -= 1;
        self.note();
        self.waiting > 0
    }

    /// Notes how many seats are wanted now.
    fn note(&mut self) {
        self.demand.set(self.taken + self.wanted);
    }

    /// Takes somebody out of their queue. Whether they were in one.
    pub(super) fn forget(&mut self, ticket: u64) -> bool {
        let mut queues = self.queues.iter_mut();
        let gone = queues.find_map(|queue| {
            let at = queue.waiting.iter().position(|waiter| waiter.ticket == ticket)?;
            queue.waiting.remove(at)
        });
        if let Some(gone) = &gone {
            self.waiting -= 1;
            self.wanted -= gone.seats;
            self.note();
        }
        gone.is_some()
    }

    /// The shortest queue of a flow's hand, if there are queues: shuffle sharding, by which two flows share few queues.
    fn shortest(&self, flow: u64) -> Option<usize> {
        let count = self.queues.len();
        if count == 0 {
            return None;
        }
        let mut left: Vec<usize> = Vec::with_capacity(self.queuing.hand);
        let mut entropy = flow;
        for dealt in 0..self.queuing.hand.clamp(1, count) {
            let remaining = (count - dealt) as u64;
            // A card of those that were not dealt yet.
            let mut card = (entropy % remaining) as usize;
            entropy /= remaining;
            let mut known = left.clone();
            known.sort_unstable();
            for other in known {
                if other <= card {
                    card += 1;
                }
            }
            left.push(card);
        }
        left.into_iter().min_by_key(|&at| self.queues[at].waiting.len())
    }

    /// Who is next, and has its seats now: the first of the queue that will have got least with it. If there are not enough seats for
    /// it, others wait for them with it.
    pub(super) fn next(&mut self) -> Option<Waiter> {
        if self.waiting == 0 || self.taken >= self.seats {
            return None;
        }
        let queues = self.queues.iter().enumerate();
        let after = queues.filter_map(|(at, queue)| Some((queue.served + queue.waiting.front()?.seats as u64, at)));
        let (after, at) = after.min()?;
        let seats = self.queues[at].waiting.front()?.seats;
        if !self.has_room(seats) {
            return None;
        }
        let queue = &mut self.queues[at];
        self.now = std::mem::replace(&mut queue.served, after);
        let next = queue.waiting.pop_front()?;
        self.waiting -= 1;
        self.wanted -= seats;
        self.sit(seats);
        Some(next)
    }
}
