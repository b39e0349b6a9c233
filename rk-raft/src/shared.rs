//! What a member's task tells its handles: numbers that are read without asking it.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use parking_lot::{Mutex, RwLock};
use rk_store::{Clock, MemberId};
use tokio::{sync::watch, time::Instant};

use crate::membership::Membership;

/// A proposal that waits.
pub(crate) struct Pending<'a>(&'a AtomicU64);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Shared {
    clock: Clock,
    start: Instant,
    pub(crate) leader: watch::Sender<Option<MemberId>>,
    pub(crate) membership: RwLock<Membership>,
    term: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    /// Whether this member leads and is the only one that votes.
    alone: AtomicBool,
    /// Until when nobody else can lead, in microseconds since the start; 0 for not at all.
    lease: AtomicU64,
    /// Whether this member has stopped: others may work on without it, and it would not know.
    stopped: AtomicBool,
    log_size: AtomicU64,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) proposals_pending: AtomicU64,
    pub(crate) proposals_failed: AtomicU64,
    pub(crate) late_heartbeats: AtomicU64,
    pub(crate) slow_applies: AtomicU64,
    pub(crate) slow_reads: AtomicU64,
    pub(crate) failed_reads: AtomicU64,
    no_space: Mutex<[Option<String>; 2]>,
}

impl Shared {
    pub(crate) fn new(membership: Membership, applied: u64, clock: Clock) -> Self {
        Self {
            start: clock.now(),
            clock,
            leader: watch::Sender::new(None),
            membership: RwLock::new(membership),
            term: AtomicU64::new(0),
            committed: AtomicU64::new(applied),
            applied: AtomicU64::new(applied),
            alone: AtomicBool::new(false),
            lease: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            log_size: AtomicU64::new(0),
            leader_changes: AtomicU64::new(0),
            proposals_pending: AtomicU64::new(0),
            proposals_failed: AtomicU64::new(0),
            late_heartbeats: AtomicU64::new(0),
            slow_applies: AtomicU64::new(0),
            slow_reads: AtomicU64::new(0),
            failed_reads: AtomicU64::new(0),
            no_space: Mutex::default(),
        }
    }

    fn since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// Tells the state of raft. It must be told before any other member or client can learn of it.
    pub(crate) fn publish(&self, term: u64, committed: u64, alone: bool) {
        self.term.store(term, SeqCst);
        self.committed.fetch_max(committed, SeqCst);
        self.alone.store(alone, SeqCst);
    }

    /// Nobody else can lead until then, if this member leads.
    pub(crate) fn set_lease(&self, until: Option<Instant>) {
        self.lease.store(until.map_or(0, |until| self.since_start(until)), SeqCst);
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, SeqCst);
    }

    pub(crate) fn set_applied(&self, index: u64) {
        self.applied.fetch_max(index, SeqCst);
    }

    /// Whether what is applied here is all that anyone was told of, as far as this can be known without asking others.
    pub(crate) fn is_up_to_date(&self) -> bool {
        let lease = self.lease.load(SeqCst);
        let leads = self.alone.load(SeqCst) || (lease > 0 && self.since_start(self.clock.now()) < lease);
        // In this order: what is committed later was not acknowledged before this call.
        leads && self.committed.load(SeqCst) <= self.applied.load(SeqCst) && !self.stopped.load(SeqCst)
    }

    /// Counts one more proposal that waits, until what is returned is dropped.
    pub(crate) fn pending(&self) -> Pending<'_> {
        self.proposals_pending.fetch_add(1, Relaxed);
        Pending(&self.proposals_pending)
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(SeqCst)
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(SeqCst)
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(SeqCst)
    }

    pub(crate) fn set_log_size(&self, bytes: u64) {
        self.log_size.store(bytes, SeqCst);
    }

    pub(crate) fn log_size(&self) -> u64 {
        self.log_size.load(SeqCst)
    }

    /// The log or the engine has no space, or has some again.
    pub(crate) fn set_no_space(&self, of: Space, reason: Option<String>) {
        let current = &mut self.no_space.lock()[of as usize];
        if *current != reason {
            *current = reason;
        }
    }

    /// Why nothing can be written now, if so.
    pub(crate) fn no_space(&self) -> Option<String> {
        self.no_space.lock().iter().flatten().next().cloned()
    }
}

/// What takes space on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Space {
    Log,
    Engine,
}
