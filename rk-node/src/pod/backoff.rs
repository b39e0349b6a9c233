//! Waiting longer after each failure: client-go's `flowcontrol.Backoff`, as the kubelet uses it for containers and
//! images: 10 s, doubled each time up to 5 minutes, forgotten after 10 minutes without a failure.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);

/// Waits by key.
#[derive(Default)]
pub(crate) struct Backoff {
    entries: HashMap<String, (Duration, Timestamp)>,
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

impl Backoff {
    /// How long `key` still waits after a failure at `failed`, and the whole wait.
    pub(crate) fn remaining(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let (wait, updated) = self.entries.get(key)?;
        if since(*updated, failed) > MAX * 2 {
            return None;
        }
        let left = wait.checked_sub(since(failed, now))?;
        (!left.is_zero()).then_some((left, *wait))
    }

    /// Notes a start after a failure at `failed`: the next failure waits longer.
    pub(crate) fn next(&mut self, key: &str, failed: Timestamp, now: Timestamp) {
        let wait = match self.entries.get(key) {
            Some((wait, updated)) if since(*updated, failed) <= MAX * 2 => (*wait * 2).min(MAX),
            _ => INITIAL,
        };
        self.entries.insert(key.to_owned(), (wait, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(backoff.remaining("a", now, now), None, "the first restart is at once");
        for want in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next("a", now, now);
            let (left, _) = backoff.remaining("a", now, now).unwrap();
            assert_eq!(left.as_secs(), want);
            now = now.checked_add(left).unwrap();
            assert_eq!(backoff.remaining("a", now.checked_sub(left).unwrap(), now), None);
        }
        let later = now.checked_add(Duration::from_secs(1000)).unwrap();
        assert_eq!(backoff.remaining("a", later, later), None);
        backoff.next("a", later, later);
        assert_eq!(backoff.remaining("a", later, later).unwrap().0.as_secs(), 10);
    }
}
