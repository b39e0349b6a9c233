//! How a member works.

use std::time::Duration;

use rk_store::DEFAULT_WATCH_BUFFER;

/// How a member works. All members of a group use the same times.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RaftOptions {
    /// The unit of the group's time, by tokio's clock.
    pub tick: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which a member may stand for election. Each member waits up to twice
    /// as long, by its seed.
    pub election_ticks: usize,
    /// How long a request may take before it fails with [`rk_store::Error::Unavailable`].
    pub request_timeout: Duration,
    /// Entries after which the state is written as a snapshot and the log before it dropped.
    pub snapshot_entries: u64,
    /// Revisions that a watcher may fall behind before it is cut.
    pub watch_buffer: usize,
    /// Where election timeouts and ids come from; a member adds its own number.
    pub seed: u64,
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(50),
            heartbeat_ticks: 2,
            election_ticks: 10,
            request_timeout: Duration::from_secs(7),
            snapshot_entries: 10_000,
            watch_buffer: DEFAULT_WATCH_BUFFER,
            seed: 0,
        }
    }
}
