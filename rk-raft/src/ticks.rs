//! The ticks of a member's clock.

use std::{pin::Pin, time::Duration};

use rk_store::Clock;
use tokio::time::{Instant, Sleep, sleep_until};

/// Comes once each period by a clock, the first time at once. Ticks that were missed are left out.
pub(crate) struct Ticks {
    clock: Clock,
    period: Duration,
    next: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Ticks {
    pub(crate) fn new(clock: Clock, period: Duration) -> Self {
        let next = clock.now();
        let sleep = Box::pin(sleep_until(clock.when(next)));
        Self { clock, period, next, sleep }
    }

    /// Waits for the next tick. Nothing is lost if the wait is given up.
    pub(crate) async fn next(&mut self) {
        self.sleep.as_mut().await;
        let late = self.clock.elapsed(self.next);
        let missed = late.as_nanos() / self.period.as_nanos().max(1);
        self.next += self.period.saturating_mul(u32::try_from(missed + 1).unwrap_or(u32::MAX));
        self.sleep.as_mut().reset(self.clock.when(self.next));
    }
}
