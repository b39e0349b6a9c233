//! One priority level: seats, and queues of those who wait for some.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::demand::{Demand, Wanted};

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

/// Why a request gets no seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The queues that it may wait in are full.
    QueueFull,
    /// All are taken, and the level has no queues.
    ConcurrencyLimit,
    /// It has waited for too long.
    TimeOut,
    /// Its client did not want to wait any longer.
    Cancelled,
}

impl Refused {
    /// As metrics name it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Seats that are shared fairly among the flows that want them.
pub(crate) struct Level(Mutex<State>);

struct State {
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
    /// What the queue that was served last had got before: where a queue starts that was empty.
    now: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    /// Seats it has got, counted from where the others were when it began to wait.
    served: u64,
}

struct Waiter {
    seats: usize,
    told: oneshot::Sender<Seat>,
}

/// A request's seats; they are given on when this is dropped.
pub(super) struct Seat {
    level: Option<Arc<Level>>,
    seats: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(level) = self.level.take() {
            level.give_back(self.seats);
        }
    }
}

/// What a request gets that asks.
pub(super) enum Taken {
    Seat(Seat),
    Place(Place),
}

/// A place in a queue.
pub(super) struct Place(oneshot::Receiver<Seat>);

impl Place {
    /// Waits for the seats.
    ///
    /// # Errors
    /// There are none in time, or the queue is gone.
    pub(super) async fn wait(self, patience: Duration) -> Result<Seat, Refused> {
        let told = tokio::time::timeout(patience, self.0).await.map_err(|_| Refused::TimeOut)?;
        told.map_err(|_| Refused::ConcurrencyLimit)
    }
}

impl Level {
    pub(super) fn new(seats: usize, queuing: Queuing) -> Arc<Self> {
        let level = Arc::new(Self(Mutex::new(State {
            seats,
            taken: 0,
            executing: 0,
            queuing,
            queues: Vec::new(),
            waiting: 0,
            wanted: 0,
            demand: Demand::new(),
            now: 0,
        })));
        level.configure(seats, queuing);
        level
    }

    /// Has no queues.
    pub(super) fn rejecting(seats: usize) -> Arc<Self> {
        Self::new(seats, Queuing::REJECT)
    }

    /// Changes the level; who waits in a queue that goes waits in another.
    pub(super) fn configure(self: &Arc<Self>, seats: usize, queuing: Queuing) {
        let mut state = self.0.lock();
        (state.seats, state.queuing) = (seats, queuing);
        if state.queues.len() > queuing.queues {
            let gone: Vec<_> = state.queues.drain(queuing.queues..).flat_map(|queue| queue.waiting).collect();
            match state.queues.len() {
                // They are told by their sender's end.
                0 => (state.waiting, state.wanted) = (0, 0),
                left => {
                    for (at, waiting) in gone.into_iter().enumerate() {
                        state.queues[at % left].waiting.push_back(waiting);
                    }
                }
            }
        }
        state.queues.resize_with(queuing.queues, Queue::default);
        state.note();
        drop(state);
        self.dispatch();
    }

    /// Changes how many seats there are.
    pub(super) fn set_seats(self: &Arc<Self>, seats: usize) {
        self.0.lock().seats = seats;
        self.dispatch();
    }

    /// The seats that requests wanted since this was asked last.
    pub(super) fn demand(&self) -> Wanted {
        self.0.lock().demand.take()
    }

    /// Seats for a request of this flow, or a place in a queue.
    ///
    /// # Errors
    /// There is neither.
    pub(super) fn ask(self: &Arc<Self>, flow: u64, seats: usize) -> Result<Taken, Refused> {
        let waiting = {
            let mut state = self.0.lock();
            if state.waiting == 0 && state.has_room(seats) {
                state.sit(seats);
                state.note();
                return Ok(Taken::Seat(Seat { level: Some(Arc::clone(self)), seats }));
            }
            state.forget_gone();
            let none = if state.queues.is_empty() { Refused::ConcurrencyLimit } else { Refused::QueueFull };
            let at = state.shortest(flow).ok_or(none)?;
            let (told, waiting) = oneshot::channel();
            let now = state.now;
            let queue = &mut state.queues[at];
            if queue.waiting.is_empty() {
                queue.served = queue.served.max(now);
            }
            queue.waiting.push_back(Waiter { seats, told });
            state.waiting += 1;
            state.wanted += seats;
            state.note();
            waiting
        };
        self.dispatch();
        Ok(Taken::Place(Place(waiting)))
    }

    /// The same, and waits.
    ///
    /// # Errors
    /// There are none in time.
    pub(super) async fn take(self: &Arc<Self>, flow: u64, seats: usize, patience: Duration) -> Result<Seat, Refused> {
        match self.ask(flow, seats)? {
            Taken::Seat(seat) => Ok(seat),
            Taken::Place(place) => place.wait(patience).await,
        }
    }

    fn give_back(self: &Arc<Self>, seats: usize) {
        let mut state = self.0.lock();
        state.rise(seats);
        state.note();
        let waiting = state.waiting;
        drop(state);
        if waiting > 0 {
            self.dispatch();
        }
    }

    /// Gives free seats to those who wait.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let Some(Waiter { seats, told }) = self.0.lock().next() else { return };
            // Somebody who has gone leaves the seats to the next.
            if let Err(mut seat) = told.send(Seat { level: Some(Arc::clone(self)), seats }) {
                seat.level = None;
                let mut state = self.0.lock();
                state.rise(seats);
                state.note();
            }
        }
    }
}

impl State {
    /// Whether a request may have so many seats now. One that wants more than there are gets them when it is alone.
    fn has_room(&self, seats: usize) -> bool {
        if seats > self.seats { self.executing == 0 } else { self.taken.saturating_add(seats) <= self.seats }
    }

    fn sit(&mut self, seats: usize) {
        self.taken += seats;
        self.executing += 1;
    }

    fn rise(&mut self, seats: usize) {
        self.taken -= seats;
        self.executing -= 1;
    }

    /// Notes how many seats are wanted now.
    fn note(&mut self) {
        self.demand.set(self.taken + self.wanted);
    }

    /// Those who waited longest give up first.
    fn forget_gone(&mut self) {
        for queue in &mut self.queues {
            while let Some(gone) = queue.waiting.front().filter(|first| first.told.is_closed()) {
                self.waiting -= 1;
                self.wanted -= gone.seats;
                queue.waiting.pop_front();
            }
        }
    }

    /// The shortest queue of a flow's hand that is not full: shuffle sharding, by which two flows share few queues.
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
        let shortest = left.into_iter().min_by_key(|&at| self.queues[at].waiting.len())?;
        (self.queues[shortest].waiting.len() < self.queuing.length).then_some(shortest)
    }

    /// Who is next, and has its seats now: the first of the queue that will have got least with it. If there are not enough seats for
    /// it, others wait for them with it.
    fn next(&mut self) -> Option<Waiter> {
        // Nobody has to be looked for where nobody could sit.
        if self.waiting == 0 || self.taken >= self.seats && self.executing > 0 {
            return None;
        }
        self.forget_gone();
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
        self.note();
        Some(next)
    }
}
