//! Bugs that can be planted, to show that the simulation of rk-raft finds them. For tests only: without the feature `planted-bugs`
//! no bug is ever planted, and the code that asks is compiled away.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The log is not synced before it is acknowledged.
    SkipSync,
    /// A leader takes what it has written itself for committed.
    AcknowledgeBeforeCommit,
    /// Reads do not ask whether this member is up to date.
    StaleReads,
    /// A watch from a compacted revision begins behind it and does not say so.
    WatchSkipsCompacted,
    /// A watch misses the revision at which it joined.
    WatchMissesJoin,
    /// A restored state forgets that its last revision was made.
    ReuseRevision,
    /// Term and vote are not written.
    LoseHardState,
    /// What a member applies first after its start, it applies twice.
    ApplyTwice,
    /// A new leader trusts its own clock for leases that others have renewed.
    LeaseEndsEarly,
    /// A snapshot lacks its last change.
    SnapshotMissesLast,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SkipSync,
        Self::AcknowledgeBeforeCommit,
        Self::StaleReads,
        Self::WatchSkipsCompacted,
        Self::WatchMissesJoin,
        Self::ReuseRevision,
        Self::LoseHardState,
        Self::ApplyTwice,
        Self::LeaseEndsEarly,
        Self::SnapshotMissesLast,
    ];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in what this thread does from now on, in the place of an earlier one.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether a bug is planted.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether a bug is planted: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}
