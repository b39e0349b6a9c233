//! The time of day: on tokio's clock, or on one of the server's own.

use std::sync::Arc;

#[cfg(feature = "server")]
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

/// Tells the time of day.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

tokio::task_local! {
    static CLOCK: Clock;
}

/// The time of day, to write into objects and to compare with what they say.
///
/// In a request to a server with a clock of its own it is that clock's. Else it follows tokio's clock: where a test or a simulation
/// has paused that clock and moves it on by itself, the time of day moves with it. On an unpaused clock it is the system's time,
/// corrections included.
pub fn now() -> Timestamp {
    CLOCK.try_with(|clock| clock()).unwrap_or_else(|_| on_tokios_clock())
}

fn on_tokios_clock() -> Timestamp {
    let (real, tokio) = (std::time::Instant::now(), tokio::time::Instant::now().into_std());
    let ahead = match tokio.checked_duration_since(real) {
        Some(ahead) => SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX),
        None => -SignedDuration::try_from(real.duration_since(tokio)).unwrap_or(SignedDuration::MAX),
    };
    let now = Timestamp::now();
    // Unpaused, the two readings are some nanoseconds apart: that is no shift of the clock.
    if ahead.abs() < SignedDuration::from_millis(1) { now } else { now.saturating_add(ahead).unwrap_or(now) }
}

/// Runs a future to which `clock` tells the time of day, if there is one.
#[cfg(feature = "server")]
pub(crate) async fn within<F: Future>(clock: &Option<Clock>, future: F) -> F::Output {
    match clock {
        Some(clock) => CLOCK.scope(Arc::clone(clock), future).await,
        None => future.await,
    }
}

/// The same on the heap, where no more than the future itself is moved to.
#[cfg(feature = "server")]
pub(crate) fn boxed_within<'a, F: Future + Send + 'a>(clock: &Option<Clock>, future: F) -> BoxFuture<'a, F::Output> {
    match clock {
        Some(clock) => Box::pin(CLOCK.scope(Arc::clone(clock), future)),
        None => Box::pin(future),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_day_passes_with_the_paused_clock() {
        let before = now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let passed = now().duration_since(before).as_millis();
        assert!((3_599_900..3_600_100).contains(&passed), "{passed}");
    }

    #[test]
    fn elsewhere_it_is_the_system_time() {
        assert!(now().duration_since(Timestamp::now()).abs() < SignedDuration::from_millis(100));
    }
}
