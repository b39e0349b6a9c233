//! How a member works.

use std::time::Duration;

use rk_store::{Clock, DEFAULT_WATCH_BUFFER, Limits};

/// How a member works. All members of a group use the same times.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RaftOptions {
    /// The unit of the group's time.
    pub tick: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which a member may stand for election. Each member waits up to twice
    /// as long, by its seed.
    pub election_ticks: usize,
    /// How long a request may take before it fails with [`rk_store::Error::Timeout`] or [`rk_store::Error::NoLeader`].
    pub request_timeout: Duration,
    /// Entries after which the state is saved and the log before it dropped.
    pub snapshot_entries: u64,
    /// Bytes of entries after which this is done too. Either way only once as many bytes have come as the state has itself.
    pub snapshot_bytes: u64,
    /// Entries that are kept in memory for followers that are a little behind. Others get the state.
    pub catch_up_entries: u64,
    /// Most bytes of these.
    pub catch_up_bytes: u64,
    /// Whether the leader answers linearizable reads by its clock while its lease lasts, and asks no majority.
    ///
    /// Its lease is renewed with each heartbeat that a majority answers, and lasts three quarters of the shortest election
    /// timeout. So reads are linearizable only as long as no member's clock runs a third faster than another's. A member that has just started does not
    /// vote for one election timeout. All members must have the same setting.
    pub lease_reads: bool,
    /// Most bytes of keys and values that this member lets the group hold; 0 for no quota. See [`rk_store::Quota`].
    pub quota_bytes: u64,
    /// Most that a txn may have which this member is asked for.
    pub limits: Limits,
    /// Revisions that a watcher may fall behind before it is cut.
    pub watch_buffer: usize,
    /// Where election timeouts and ids come from; a member adds its own number.
    pub seed: u64,
    /// What time it is for the member.
    pub clock: Clock,
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(50),
            heartbeat_ticks: 2,
            election_ticks: 10,
            request_timeout: Duration::from_secs(7),
            snapshot_entries: 100_000,
            snapshot_bytes: 64 << 20,
            catch_up_entries: 5_000,
            catch_up_bytes: 32 << 20,
            lease_reads: false,
            quota_bytes: 0,
            limits: Limits::default(),
            watch_buffer: DEFAULT_WATCH_BUFFER,
            seed: 0,
            clock: Clock::default(),
        }
    }
}
