//! How many seats a level's requests wanted lately.

use tokio::time::Instant;

/// How slowly what was wanted is forgotten (KEP-1040): so much of it counts at the next look.
const SMOOTHING: f64 = 0.977;

/// What was wanted since the last look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wanted {
    pub(super) most: f64,
    average: f64,
    deviation: f64,
}

/// The seats that are wanted, over the time.
#[derive(Debug)]
pub(super) struct Demand {
    began: Instant,
    changed: Instant,
    seats: f64,
    most: f64,
    /// Seats, and their squares, times the seconds that they were wanted.
    area: f64,
    squares: f64,
}

impl Demand {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { began: now, changed: now, seats: 0.0, most: 0.0, area: 0.0, squares: 0.0 }
    }

    /// So many are wanted from now on.
    pub(super) fn set(&mut self, seats: usize) {
        self.go_on(Instant::now());
        self.seats = seats as f64;
        self.most = self.most.max(self.seats);
    }

    fn go_on(&mut self, now: Instant) {
        let seconds = now.duration_since(self.changed).as_secs_f64();
        self.area += self.seats * seconds;
        self.squares += self.seats * self.seats * seconds;
        self.changed = now;
    }

    /// What was wanted since this was asked last.
    pub(super) fn take(&mut self) -> Wanted {
        let now = Instant::now();
        self.go_on(now);
        let seconds = now.duration_since(self.began).as_secs_f64();
        let (average, square) = if seconds > 0.0 {
            (self.area / seconds, self.squares / seconds)
        } else {
            (self.seats, self.seats.powi(2))
        };
        let wanted = Wanted { most: self.most, average, deviation: (square - average * average).max(0.0).sqrt() };
        (self.began, self.most, self.area, self.squares) = (now, self.seats, 0.0, 0.0);
        wanted
    }
}

/// What is counted on for the next time: more at once when more is wanted, less only slowly.
pub(super) fn smoothed(before: f64, wanted: Wanted) -> f64 {
    let envelope = wanted.average + wanted.deviation;
    envelope.max(SMOOTHING * before + (1.0 - SMOOTHING) * envelope)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn demand_is_seen_over_the_time() {
        let mut demand = Demand::new();
        demand.set(8);
        tokio::time::advance(Duration::from_secs(5)).await;
        demand.set(2);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(demand.take(), Wanted { most: 8.0, average: 5.0, deviation: 3.0 });
        tokio::time::advance(Duration::from_secs(10)).await;
        let later = demand.take();
        assert_eq!(later, Wanted { most: 2.0, average: 2.0, deviation: 0.0 });
        assert_eq!(smoothed(0.0, later), 2.0, "at once");
        assert!((smoothed(8.0, later) - 7.862).abs() < 1e-9, "slowly");
    }
}
