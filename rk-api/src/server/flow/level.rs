//! One priority level: seats, and queues of those who wait for one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How a level treats requests for which there is no seat.
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

/// Seats that are shared fairly among the flows that want them.
pub(crate) struct Level(Mutex<State>);

struct State {
    seats: usize,
    taken: usize,
    queuing: Queuing,
    queues: Vec<Queue>,
    waiting: usize,
    /// What the queue that was served last had got before: where a queue starts that was empty.
    now: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<oneshot::Sender<Seat>>,
    /// Seats it has got, counted from where the others were when it began to wait.
    served: u64,
}

/// A seat; it is given on when it is dropped.
pub(super) struct Seat(Option<Arc<Level>>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(level) = self.0.take() {
            Level::give_back(&level);
        }
    }
}

impl Level {
    pub(super) fn new(seats: usize, queuing: Queuing) -> Arc<Self> {
        let state = State { seats, taken: 0, queuing, queues: Vec::new(), waiting: 0, now: 0 };
        let level = Arc::new(Self(Mutex::new(state)));
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
                0 => state.waiting = 0,
                left => {
                    for (at, waiting) in gone.into_iter().enumerate() {
                        state.queues[at % left].waiting.push_back(waiting);
                    }
                }
            }
        }
        state.queues.resize_with(queuing.queues, Queue::default);
        drop(state);
        self.dispatch();
    }

    /// A seat for a request of this flow; `None` if there is none in time.
    pub(super) async fn take(self: &Arc<Self>, flow: u64, patience: Duration) -> Option<Seat> {
        let waiting = {
            let mut state = self.0.lock();
            if state.taken < state.seats && state.waiting == 0 {
                state.taken += 1;
                return Some(Seat(Some(Arc::clone(self))));
            }
            state.forget_gone();
            let at = state.shortest(flow)?;
            let (sender, waiting) = oneshot::channel();
            let now = state.now;
            let queue = &mut state.queues[at];
            if queue.waiting.is_empty() {
                queue.served = queue.served.max(now);
            }
            queue.waiting.push_back(sender);
            state.waiting += 1;
            waiting
        };
        self.dispatch();
        tokio::time::timeout(patience, waiting).await.ok()?.ok()
    }

    fn give_back(self: &Arc<Self>) {
        self.0.lock().taken -= 1;
        self.dispatch();
    }

    /// Gives free seats to those who wait.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.0.lock();
                if state.taken >= state.seats {
                    return;
                }
                let Some(next) = state.next() else { return };
                state.taken += 1;
                next
            };
            // Somebody who has gone leaves the seat to the next.
            if let Err(mut seat) = next.send(Seat(Some(Arc::clone(self)))) {
                seat.0 = None;
                self.0.lock().taken -= 1;
            }
        }
    }
}

impl State {
    /// Those who waited longest give up first.
    fn forget_gone(&mut self) {
        for queue in &mut self.queues {
            while queue.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                queue.waiting.pop_front();
                self.waiting -= 1;
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

    /// Who is next: the first of the queue that was served least.
    fn next(&mut self) -> Option<oneshot::Sender<Seat>> {
        loop {
            let queues = self.queues.iter_mut().filter(|queue| !queue.waiting.is_empty());
            let queue = queues.min_by_key(|queue| queue.served)?;
            let next = queue.waiting.pop_front()?;
            self.waiting -= 1;
            if next.is_closed() {
                continue;
            }
            self.now = queue.served;
            queue.served += 1;
            return Some(next);
        }
    }
}
