//! The clock of a process: tokio's, or, to see what becomes of a group whose clocks disagree, one that runs wrong.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// A clock. Its instants mean nothing to another one.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// How it runs, if not as tokio's: stretches in the order of time, the first from the beginning on.
    skew: Option<Arc<[Stretch]>>,
}

/// A stretch of time in which a clock runs evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// When it begins, by tokio's clock.
    pub begin: Instant,
    /// What the clock shows then: no less than it did just before.
    pub shown: Instant,
    /// Seconds of the clock to a second.
    pub rate: f64,
}

impl Stretch {
    fn at(&self, real: Instant) -> Instant {
        self.shown + real.saturating_duration_since(self.begin).mul_f64(self.rate)
    }
}

impl Clock {
    /// A clock that runs as it is told; `None` if it is told of no stretch.
    pub fn skewed(stretches: Vec<Stretch>) -> Option<Self> {
        (!stretches.is_empty()).then(|| Self { skew: Some(stretches.into()) })
    }

    /// What it shows now.
    pub fn now(&self) -> Instant {
        self.shows(Instant::now())
    }

    /// What it shows at an instant of tokio's clock.
    pub fn shows(&self, real: Instant) -> Instant {
        let Some(stretches) = &self.skew else { return real };
        let current = stretches.partition_point(|stretch| stretch.begin <= real).saturating_sub(1);
        stretches[current].at(real)
    }

    /// When it shows this instant, by tokio's clock: what to sleep until.
    pub fn when(&self, shown: Instant) -> Instant {
        let Some(stretches) = &self.skew else { return shown };
        let current = stretches.partition_point(|stretch| stretch.shown <= shown).saturating_sub(1);
        let Stretch { begin, shown: from, rate } = stretches[current];
        // Not a moment too early, however it is rounded.
        let real = begin + shown.saturating_duration_since(from).div_f64(rate) + Duration::from_micros(1);
        // It may be left out where the clock jumps.
        stretches.get(current + 1).map_or(real, |next| real.min(next.begin))
    }

    /// The time since it showed this instant.
    pub fn elapsed(&self, since: Instant) -> Duration {
        self.now().saturating_duration_since(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_shows_each_instant_when_it_says_it_does() {
        let begin = Instant::now();
        let seconds = |number| begin + Duration::from_secs(number);
        let clock = Clock::skewed(vec![
            Stretch { begin, shown: seconds(1000), rate: 2.0 },
            // It jumps by 10 s, and is slow then.
            Stretch { begin: seconds(10), shown: seconds(1030), rate: 0.5 },
        ])
        .unwrap();
        assert_eq!(clock.shows(seconds(4)), seconds(1008));
        assert_eq!(clock.shows(seconds(30)), seconds(1040));
        for shown in [1000, 1008, 1019, 1020, 1025, 1030, 1040] {
            tokio::time::sleep_until(clock.when(seconds(shown))).await;
            assert!(clock.now() >= seconds(shown), "{shown}");
        }
        assert_eq!(clock.when(seconds(1025)), seconds(10));
        let usual = Clock::default();
        assert_eq!((usual.shows(seconds(3)), usual.when(seconds(3))), (seconds(3), seconds(3)));
    }
}
