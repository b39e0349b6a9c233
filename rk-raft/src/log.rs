//! Where a member keeps the raft log, its vote and its snapshot.

use std::sync::Arc;

use parking_lot::Mutex;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};

use crate::MemberId;

/// What a member must not forget, however it ends. The raft library reads it as a [`Storage`]; the member writes it
/// here, and tells nobody of what it has written before the call returns.
pub trait RaftLog: Storage + Send + 'static {
    /// Adds entries in place of those from the first one's index on, and the vote and commit index if they changed, at once.
    fn append(&mut self, entries: Vec<Entry>, state: Option<HardState>) -> raft::Result<()>;

    /// Notes how far the log is committed.
    fn set_commit(&mut self, index: u64) -> raft::Result<()>;

    /// Puts a snapshot, made here or received, in the place of the entries up to its index. Entries behind it stay if the log has
    /// the snapshot's last entry.
    fn install(&mut self, snapshot: Snapshot) -> raft::Result<()>;

    /// The newest snapshot, if there is one.
    fn newest_snapshot(&self) -> Option<Snapshot>;
}

/// A raft log in memory. Clones share it, so that a member can be stopped and started on what it had, as
/// on a disk.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    core: Arc<Mutex<Core>>,
}

#[derive(Debug)]
struct Core {
    state: RaftState,
    /// Entries from `offset + 1` on.
    entries: Vec<Entry>,
    offset: u64,
    /// The term of the entry at `offset`.
    offset_term: u64,
    snapshot: Option<Snapshot>,
}

/// Entries that stay behind a snapshot, for followers that lag a little.
const KEEP: u64 = 1000;

impl MemoryLog {
    /// The empty log of a new group with these members.
    pub fn new(members: &[MemberId]) -> Self {
        let voters = ConfState { voters: members.to_vec(), ..ConfState::default() };
        let core = Core {
            state: RaftState::new(HardState::default(), voters),
            entries: Vec::new(),
            offset: 0,
            offset_term: 0,
            snapshot: None,
        };
        Self { core: Arc::new(Mutex::new(core)) }
    }
}

impl Core {
    fn last(&self) -> u64 {
        self.offset + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.offset {
            return Ok(self.offset_term);
        }
        match &self.snapshot {
            Some(snapshot) if snapshot.get_metadata().index == index => Ok(snapshot.get_metadata().term),
            _ if index < self.offset => Err(raft::Error::Store(StorageError::Compacted)),
            _ => match self.entries.get((index - self.offset - 1) as usize) {
                Some(entry) => Ok(entry.term),
                None => Err(raft::Error::Store(StorageError::Unavailable)),
            },
        }
    }

    /// Drops the entries up to `index`.
    fn drop_to(&mut self, index: u64) -> raft::Result<()> {
        if index > self.offset {
            let term = self.term(index)?;
            self.entries.drain(..(index - self.offset) as usize);
            (self.offset, self.offset_term) = (index, term);
        }
        Ok(())
    }
}

impl RaftLog for MemoryLog {
    fn append(&mut self, entries: Vec<Entry>, state: Option<HardState>) -> raft::Result<()> {
        let mut core = self.core.lock();
        if let Some(first) = entries.first() {
            if first.index <= core.offset {
                return Err(raft::Error::Store(StorageError::Compacted));
            }
            if first.index > core.last() + 1 {
                return Err(raft::Error::Store(StorageError::Unavailable));
            }
            let keep = (first.index - core.offset - 1) as usize;
            core.entries.truncate(keep);
            core.entries.extend(entries);
        }
        if let Some(state) = state {
            core.state.hard_state = state;
        }
        Ok(())
    }

    fn set_commit(&mut self, index: u64) -> raft::Result<()> {
        self.core.lock().state.hard_state.commit = index;
        Ok(())
    }

    fn install(&mut self, snapshot: Snapshot) -> raft::Result<()> {
        let mut core = self.core.lock();
        let core = &mut *core;
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        if core.snapshot.as_ref().is_some_and(|newest| newest.get_metadata().index >= index) {
            return Err(raft::Error::Store(StorageError::SnapshotOutOfDate));
        }
        if core.term(index).is_ok_and(|own| own == term) {
            core.drop_to(index.saturating_sub(KEEP))?;
        } else {
            core.entries.clear();
            (core.offset, core.offset_term) = (index, term);
            core.state.hard_state.term = core.state.hard_state.term.max(term);
        }
        core.state.hard_state.commit = core.state.hard_state.commit.max(index);
        core.state.conf_state = snapshot.get_metadata().get_conf_state().clone();
        core.snapshot = Some(snapshot);
        Ok(())
    }

    fn newest_snapshot(&self) -> Option<Snapshot> {
        self.core.lock().snapshot.clone()
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.core.lock().state.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let core = self.core.lock();
        if low <= core.offset {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > core.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let (from, to) = ((low - core.offset - 1) as usize, (high - core.offset - 1) as usize);
        let mut entries = core.entries[from..to].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.core.lock().term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.core.lock().offset + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.core.lock().last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        match &self.core.lock().snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => Ok(snapshot.clone()),
            _ => Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        range.map(|index| Entry { index, term, ..Entry::default() }).collect()
    }

    fn snapshot(index: u64, term: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = index;
        snapshot.mut_metadata().term = term;
        snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2];
        snapshot
    }

    fn indexes(log: &MemoryLog, low: u64, high: u64) -> raft::Result<Vec<(u64, u64)>> {
        let entries = log.entries(low, high, None, GetEntriesContext::empty(false))?;
        Ok(entries.iter().map(|entry| (entry.index, entry.term)).collect())
    }

    #[test]
    fn later_entries_replace_those_that_conflict() {
        let mut log = MemoryLog::new(&[1, 2]);
        log.append(entries(1..=4, 1), None).unwrap();
        log.append(entries(3..=3, 2), Some(HardState { term: 2, ..HardState::default() })).unwrap();
        assert_eq!(indexes(&log, 1, 4).unwrap(), [(1, 1), (2, 1), (3, 2)]);
        assert_eq!((log.last_index().unwrap(), log.initial_state().unwrap().hard_state.term), (3, 2));
        assert!(log.append(entries(6..=6, 2), None).is_err(), "a gap");
    }

    #[test]
    fn a_snapshot_drops_old_entries_and_keeps_some() {
        let mut log = MemoryLog::new(&[1, 2]);
        log.append(entries(1..=KEEP + 10, 1), None).unwrap();
        log.install(snapshot(KEEP + 5, 1)).unwrap();
        assert_eq!(log.first_index().unwrap(), 6);
        assert_eq!(log.last_index().unwrap(), KEEP + 10);
        assert_eq!(log.term(5).unwrap(), 1);
        assert!(log.term(4).is_err());
        assert!(indexes(&log, 5, 7).is_err());
        assert!(log.install(snapshot(KEEP, 1)).is_err(), "an older snapshot");
    }

    #[test]
    fn a_snapshot_from_elsewhere_replaces_the_log() {
        let mut log = MemoryLog::new(&[1, 2]);
        log.append(entries(1..=4, 1), None).unwrap();
        log.install(snapshot(9, 3)).unwrap();
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap(), log.term(9).unwrap()), (10, 9, 3));
        assert_eq!(log.initial_state().unwrap().hard_state.commit, 9);
        assert_eq!(log.snapshot(0, 2).unwrap().get_metadata().index, 9);
    }
}
