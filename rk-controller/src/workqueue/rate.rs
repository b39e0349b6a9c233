//! How long a failed key waits: the longer of its own growing delay and the queue's overall rate
//! (client-go's `DefaultTypedControllerRateLimiter`).

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// Delays of retries: exponential per key, and a token bucket over all keys.
#[derive(Debug, Clone)]
pub struct RateLimiter<K> {
    base: Duration,
    max: Duration,
    rate: f64,
    burst: f64,
    failures: HashMap<K, u32>,
    tokens: f64,
    refilled: Option<Instant>,
}

impl<K> Default for RateLimiter<K> {
    /// 5 ms doubling to 1000 s per key; 10 retries a second over all, after a burst of 100.
    fn default() -> Self {
        Self::new(Duration::from_millis(5), Duration::from_secs(1000), 10.0, 100)
    }
}

impl<K> RateLimiter<K> {
    /// `base` is the first delay of a key, doubled by each failure up to `max`; all keys together get `rate` retries
    /// a second after a first `burst`.
    pub fn new(base: Duration, max: Duration, rate: f64, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self { base, max, rate, burst, failures: HashMap::new(), tokens: burst, refilled: None }
    }
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// Counts a failure of `key` at `now` and answers how long it has to wait.
    pub fn when(&mut self, key: K, now: Instant) -> Duration {
        let failures = self.failures.entry(key).or_insert(0);
        let own = 2_u32.checked_pow(*failures).and_then(|factor| self.base.checked_mul(factor));
        *failures = failures.saturating_add(1);

        if let Some(before) = self.refilled.replace(now) {
            self.tokens = (self.tokens + now.duration_since(before).as_secs_f64() * self.rate).min(self.burst);
        }
        self.tokens -= 1.0;
        let overall = Duration::try_from_secs_f64((-self.tokens / self.rate).max(0.0)).unwrap_or(self.max);
        own.unwrap_or(self.max).min(self.max).max(overall)
    }

    /// Forgets the failures of a key: it went well.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// How often a key has failed since it last went well.
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_twice_as_long_each_time_up_to_the_limit() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(Duration::from_millis(5), Duration::from_secs(1000), 1000.0, 1000);
        let delays: Vec<_> = (0..3).map(|_| limiter.when("a", now).as_millis()).collect();
        assert_eq!(delays, [5, 10, 20]);
        for _ in 0..60 {
            limiter.when("a", now);
        }
        assert_eq!(limiter.when("a", now), Duration::from_secs(1000));
        assert_eq!(limiter.when("b", now), Duration::from_millis(5));
        limiter.forget(&"a");
        assert_eq!((limiter.failures(&"a"), limiter.when("a", now)), (0, Duration::from_millis(5)));
    }

    #[test]
    fn all_keys_share_the_overall_rate() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(Duration::ZERO, Duration::from_secs(1), 10.0, 2);
        let delays: Vec<_> = (0..4).map(|key| limiter.when(key, now).as_millis()).collect();
        assert_eq!(delays, [0, 0, 100, 200]);
        assert_eq!(limiter.when(9, now + Duration::from_secs(1)).as_millis(), 0);
    }
}
