//! What a member must not forget: the raft log with its vote, and the state that the log goes on from.
//!
//! ```text
//! Checkpoints  the state at a Point: after the entry `index`, with the members as of then
//! RaftLog      the entries behind it, and the newest term, vote and commit index
//! ```
//! A state that is saved here leaves the log as it is; entries that it holds go later. One that came from elsewhere is published, and
//! is what the member starts from once the log is reset to it. [`MemberDir`] keeps both in a folder, [`MemoryLog`] in memory.

pub(crate) mod cache;
mod disk;
mod memory;
mod slots;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{Entry, HardState, Snapshot};
use rk_store::{Durations, Error, Machine, SnapshotGuard, SnapshotHead};

pub use self::{
    disk::{Identity, MakeEngine, MemberDir, MemberDirOptions},
    memory::MemoryLog,
};
use crate::membership::Membership;

/// Where in the log a state stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Point {
    /// The index of the last entry that is part of the state; 0 for a member that has none yet.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The members as of that entry.
    pub membership: Membership,
}

impl Point {
    /// Where a new group begins. It is behind an entry that no log holds, so that whoever joins later must be given a
    /// state, with the members in it, before any entries.
    pub fn bootstrap(membership: Membership) -> Self {
        Self { index: 1, term: 1, membership }
    }

    /// The point as raft's own kind of snapshot, without the state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.index, self.term);
        metadata.set_conf_state(self.membership.conf_state());
        snapshot
    }

    /// Appends the point's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.index);
        out.put_u64(self.term);
        self.membership.encode(out);
    }

    /// Takes a point off the front of bytes, `None` if they hold none.
    pub fn decode(from: &mut Bytes) -> Option<Self> {
        let (index, term) = (from.try_get_u64().ok()?, from.try_get_u64().ok()?);
        Some(Self { index, term, membership: Membership::decode(from)? })
    }
}

/// What a log holds when a member starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// How often the member has started on this log, this time too. Durable: what an earlier life has sent is told apart by it.
    pub life: u64,
    /// Term, vote and commit index.
    pub state: HardState,
    /// The entries, without gaps.
    pub entries: Vec<Entry>,
}

/// What is written to a log at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Entries that replace those from the first one's index on.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index, if they changed.
    pub state: Option<HardState>,
}

/// The entries of a member's log, and its vote. One task writes it; calls never overlap.
#[async_trait]
pub trait RaftLog: Send + 'static {
    /// Reads what there is. Called once, before anything else.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged log; a write that a crash has torn is cut off.
    async fn load(&mut self) -> Result<Recovered, Error>;

    /// Writes a batch and returns once all of it would survive a power cut.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if nothing was written for now and the call may be repeated. After another error nobody knows what is
    /// there, and the member stops.
    async fn write(&mut self, batch: Batch) -> Result<(), Error>;

    /// Forgets entries up to `index`, as far as it is no effort: a state behind them is durable.
    async fn drop_to(&mut self, index: u64) -> Result<(), Error>;

    /// Forgets all entries: the log goes on behind the entry `index`, from the state published before.
    async fn reset(&mut self, index: u64, state: HardState) -> Result<(), Error>;

    /// Bytes that the log takes on disk.
    fn size(&self) -> u64;

    /// Where is counted how long its syncs take, and those of the states beside it, if this is counted.
    fn syncs(&self) -> Syncs {
        Syncs::default()
    }
}

/// How long syncs take.
#[derive(Debug, Clone, Default)]
pub struct Syncs {
    /// Those of the log.
    pub log: Arc<Durations>,
    /// Those of the states.
    pub states: Arc<Durations>,
}

/// The states that a member starts from.
#[async_trait]
pub trait Checkpoints: Send + Sync + 'static {
    /// The newest state with its point, `None` if there is none.
    async fn load(&self) -> Result<Option<(Point, Machine)>, Error>;

    /// The empty state.
    async fn empty(&self) -> Result<Machine, Error>;

    /// Makes a state durable in place of older ones. `thorough` asks to give back all the space that is to be had.
    async fn save(&self, point: Point, state: SnapshotGuard, thorough: bool) -> Result<(), Error>;

    /// Begins to take a state from elsewhere.
    async fn receive(&self, point: Point, head: SnapshotHead) -> Result<Box<dyn Incoming>, Error>;

    /// Bytes that the newest state takes on disk.
    fn size(&self) -> u64;
}

/// A state that comes in pieces. Dropped, it is forgotten.
#[async_trait]
pub trait Incoming: Send {
    /// Takes the next records.
    async fn push(&mut self, records: Vec<(Bytes, Bytes)>) -> Result<(), Error>;

    /// All records were pushed: makes them durable, though not yet what the member would start from.
    async fn finish(self: Box<Self>) -> Result<(Machine, Box<dyn Staged>), Error>;
}

/// A durable state from elsewhere that the member does not start from yet. Dropped, it is forgotten.
#[async_trait]
pub trait Staged: Send {
    /// Makes it what the member starts from once [`RaftLog::reset`] is done.
    async fn publish(self: Box<Self>) -> Result<(), Error>;
}

/// The entries of a recovered log that go on from a state: all behind its point, if the log holds the state's last entry or
/// begins right behind it.
pub(crate) fn entries_behind(point: &Point, recovered: Vec<Entry>) -> Vec<Entry> {
    let fits = match recovered.first() {
        Some(first) if first.index == point.index + 1 => true,
        Some(_) => recovered.iter().any(|entry| (entry.index, entry.term) == (point.index, point.term)),
        None => false,
    };
    if !fits {
        return Vec::new();
    }
    recovered.into_iter().filter(|entry| entry.index > point.index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_that_fit_the_state_are_kept() {
        let entries = |range: std::ops::RangeInclusive<u64>, term| -> Vec<Entry> {
            range.map(|index| Entry { index, term, ..Entry::default() }).collect()
        };
        let point = Point { index: 5, term: 2, membership: Membership::numbered(&[1]) };
        let kept = |entries: Vec<Entry>| entries_behind(&point, entries).len();
        assert_eq!(kept(entries(6..=8, 2)), 3);
        assert_eq!(kept(entries(3..=8, 2)), 3);
        assert_eq!(kept(entries(3..=8, 1)), 0, "they were replaced by the state");
        assert_eq!(kept(entries(2..=4, 2)), 0, "they end before the state");
        assert_eq!(kept(entries(9..=9, 2)), 0, "there is a gap");
        assert_eq!(kept(Vec::new()), 0);
        let mut bytes = Vec::new();
        point.encode(&mut bytes);
        assert_eq!(Point::decode(&mut bytes.into()), Some(point));
    }
}
