//! One priority level: who has its seats, and who waits for some.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    demand::Wanted,
    queues::{Queuing, State, Waiter},
};

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
    pub(super) const ALL: [Self; 4] = [Self::QueueFull, Self::ConcurrencyLimit, Self::TimeOut, Self::Cancelled];

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

/// A place in a queue, which is left when this is dropped.
pub(super) struct Place {
    told: oneshot::Receiver<Seat>,
    level: Arc<Level>,
    /// `None` once it was told something.
    ticket: Option<u64>,
}

impl Place {
    /// Waits for the seats.
    ///
    /// # Errors
    /// There are none in time, or the queue is gone.
    pub(super) async fn wait(mut self, patience: Duration) -> Result<Seat, Refused> {
        let told = tokio::time::timeout(patience, &mut self.told).await.map_err(|_| Refused::TimeOut)?;
        self.ticket = None;
        told.map_err(|_| Refused::ConcurrencyLimit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.level.leave(ticket);
        }
    }
}

impl Level {
    pub(super) fn new(seats: usize, queuing: Queuing) -> Arc<Self> {
        let level = Arc::new(Self(Mutex::new(State::new())));
        level.configure(seats, queuing);
        level
    }

    /// Has no queues.
    pub(super) fn rejecting(seats: usize) -> Arc<Self> {
        Self::new(seats, Queuing::REJECT)
    }

    /// Changes the level; who waits in a queue that goes waits in another.
    pub(super) fn configure(self: &Arc<Self>, seats: usize, queuing: Queuing) {
        self.0.lock().configure(seats, queuing);
        self.dispatch();
    }

    /// Changes how many seats there are.
    pub(super) fn set_seats(self: &Arc<Self>, seats: usize) {
        self.0.lock().set_seats(seats);
        self.dispatch();
    }

    /// The seats that requests wanted since this was asked last.
    pub(super) fn demand(&self) -> Wanted {
        self.0.lock().demand()
    }

    /// Seats for a request of this flow, or a place in a queue.
    ///
    /// # Errors
    /// There is neither.
    pub(super) fn ask(self: &Arc<Self>, flow: u64, seats: usize) -> Result<Taken, Refused> {
        let asked = self.0.lock().ask(flow, seats)?;
        let level = Arc::clone(self);
        let Some((ticket, told)) = asked else { return Ok(Taken::Seat(Seat { level: Some(level), seats })) };
        self.dispatch();
        Ok(Taken::Place(Place { told, level, ticket: Some(ticket) }))
    }

    /// Somebody does not wait any more, which may be who kept others waiting.
    fn leave(self: &Arc<Self>, ticket: u64) {
        if self.0.lock().forget(ticket) {
            self.dispatch();
        }
    }

    fn give_back(self: &Arc<Self>, seats: usize) {
        if self.0.lock().rise(seats) {
            self.dispatch();
        }
    }

    /// Gives free seats to those who wait.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let Some(Waiter { seats, told, .. }) = self.0.lock().next() else { return };
            // Somebody who has gone leaves the seats to the next.
            if let Err(mut seat) = told.send(Seat { level: Some(Arc::clone(self)), seats }) {
                seat.level = None;
                self.0.lock().rise(seats);
            }
        }
    }
}

#[cfg(test)]
mod tests;
