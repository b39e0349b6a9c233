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
    /// Rounds of heartbeats that this member, as the leader, sent after more than twice the time between two of them.
    pub late_heartbeats: u64,
    /// Batches of committed changes whose application took more than [`SLOW_APPLY`].
    pub slow_applies: u64,
    /// Times that the leader did not say in time how far a linearizable read must wait, and was asked again.
    pub slow_reads: u64,
    /// Linearizable reads that were given up.
    pub failed_reads: u64,
    /// What went to and came from each of the other members.
    pub traffic: Vec<Traffic>,
}

/// From which time on it is counted that changes took long to apply: etcd's limit for a warning.
pub const SLOW_APPLY: Duration = Duration::from_millis(100);

/// What went to and came from another member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// The other member.
    pub peer: MemberId,
    /// Bytes sent to it.
    pub sent: u64,
    /// Bytes that came from it.
    pub received: u64,
    /// Messages to it that were dropped as too many waited, and connections to it that could not be made or broke.
    pub failures: u64,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// How long it takes there and back.
    pub round_trips: DurationCounts,
}

impl Traffic {
    /// Nothing yet, with another member.
    pub fn new(peer: MemberId) -> Self {
        let round_trips = DurationCounts::new(Duration::from_micros(100), 16);
        Self { peer, sent: 0, received: 0, failures: 0, connected: false, round_trips }
    }
}

/// Buckets of durations: up to 1 ms, 2 ms and so on to 8.192 s, as etcd counts its syncs. What takes longer is in none.
const BUCKETS: usize = 14;
const FIRST: Duration = Duration::from_millis(1);

/// How often something took how long, counted up to bounds each of which is twice the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurationCounts {
    first: Duration,
    /// How many took up to `first`, how many more than that and up to twice that, and so on.
    buckets: Vec<u64>,
    /// How many there were.
    pub count: u64,
    /// How long all took together.
    pub sum: Duration,
}

impl Default for DurationCounts {
    fn default() -> Self {
        Self::new(FIRST, BUCKETS)
    }
}

impl DurationCounts {
    /// Nothing yet; with so many bounds, from `first` on.
    pub fn new(first: Duration, bounds: usize) -> Self {
        Self { first, buckets: vec![0; bounds], count: 0, sum: Duration::ZERO }
    }

    fn bounds(first: Duration) -> impl Iterator<Item = Duration> {
        (0..).map(move |i| first.saturating_mul(1 << i))
    }

    /// Counts one that took so long.
    pub fn note(&mut self, time: Duration) {
        let bucket = Self::bounds(self.first).zip(&mut self.buckets).find(|(bound, _)| time <= *bound);
        if let Some((_, count)) = bucket {
            *count += 1;
        }
        self.count += 1;
        self.sum += time;
    }

    /// How many took at most so long, for each bound.
    pub fn at_most(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = Self::bounds(self.first);
        let counts = self.buckets.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        bounds.zip(counts)
    }
}

/// Counts how long something takes, by the bounds that etcd has for its syncs.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BUCKETS],
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Durations {
    /// Counts one that took so long.
    pub fn note(&self, time: Duration) {
        if let Some((_, bucket)) = DurationCounts::bounds(FIRST).zip(&self.buckets).find(|(bound, _)| time <= *bound) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> DurationCounts {
        DurationCounts {
            first: FIRST,
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
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
        let mut counts = Traffic::new(1).round_trips;
        [100, 101, 5_000_000].into_iter().for_each(|time| counts.note(Duration::from_micros(time)));
        let at_most: Vec<_> = counts.at_most().collect();
        assert_eq!((counts.count, at_most[0].1, at_most[1]), (3, 1, (Duration::from_micros(200), 2)));
        assert_eq!(at_most.last(), Some(&(Duration::from_micros(3_276_800), 2)));
    }
}
