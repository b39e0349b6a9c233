//! What a member counts while it runs, for those who watch over it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::MemberId;

/// What a member has done since it started.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Leaders seen, one after the other.
    pub leader_changes: u64,
    /// Changes asked for here that wait for their answer.
    pub proposals_pending: u64,
    /// Changes asked for here that were not made, as far as is known here.
    pub proposals_failed: u64,
    /// Syncs of the log: each write waits for one.
    pub log_syncs: DurationCounts,
    /// Syncs of the state and of its values, for which no write waits.
    pub state_syncs: DurationCounts,
    /// What went to and came from each of the other members.
    pub traffic: Vec<Traffic>,
}

/// What went to and came from another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// The other member.
    pub peer: MemberId,
    /// Bytes sent to it.
    pub sent: u64,
    /// Bytes that came from it.
    pub received: u64,
}

/// Buckets of durations: up to 1 ms, 2 ms and so on to 8.192 s, as etcd counts its syncs. What takes longer is in none.
const BUCKETS: usize = 14;

/// How often something took how long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DurationCounts {
    /// How many took up to 1 ms, how many more than that and up to 2 ms, and so on.
    buckets: [u64; BUCKETS],
    /// How many there were.
    pub count: u64,
    /// How long all took together.
    pub sum: Duration,
}

impl DurationCounts {
    /// How many took at most so long, for each bound.
    pub fn at_most(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = (0..).map(|i| Duration::from_millis(1 << i));
        let counts = self.buckets.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        bounds.zip(counts)
    }
}

/// Counts how long something takes.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BUCKETS],
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Durations {
    /// Counts one that took so long.
    pub fn note(&self, time: Duration) {
        let bucket = (0..BUCKETS).find(|i| time <= Duration::from_millis(1 << i));
        if let Some(bucket) = bucket {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> DurationCounts {
        DurationCounts {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed)),
            count: self.count.load(Relaxed),
            sum: Duration::from_nanos(self.nanoseconds.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_each_bound() {
        let durations = Durations::default();
        for microseconds in [0, 1000, 1001, 9_000_000] {
            durations.note(Duration::from_micros(microseconds));
        }
        let counts = durations.counts();
        assert_eq!((counts.count, counts.sum), (4, Duration::from_micros(9_002_001)));
        let at_most: Vec<_> = counts.at_most().collect();
        assert_eq!(at_most[0], (Duration::from_millis(1), 2));
        assert_eq!(at_most[1], (Duration::from_millis(2), 3));
        assert_eq!(at_most.last(), Some(&(Duration::from_millis(8192), 3)));
    }
}
