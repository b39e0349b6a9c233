//! The newest stretch of the log in memory, from which raft reads.
//!
//! Entries are here before they are durable and until no follower that keeps up needs them. A follower that needs older
//! ones gets the state itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parking_lot::Mutex;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{Entry, HardState, Snapshot},
};

use super::Point;
use crate::MemberId;

pub(crate) struct LogCache {
    state: HardState,
    /// Entries from `offset + 1` on.
    entries: VecDeque<Entry>,
    offset: u64,
    /// The term of the entry at `offset`.
    offset_term: u64,
    /// Bytes of the entries, about.
    bytes: u64,
    /// The members when raft starts, and those of a state that is being installed.
    point: Point,
    snapshots: Mutex<Snapshots>,
}

/// States for followers that need entries from before the cache.
#[derive(Default)]
struct Snapshots {
    /// Who needs one.
    wanted: BTreeSet<MemberId>,
    /// Those that are ready to be sent.
    ready: BTreeMap<MemberId, Point>,
}

fn size(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 64) as u64
}

impl LogCache {
    /// A cache of the entries behind the point at which the member's state stands.
    pub(crate) fn new(point: Point, mut state: HardState, entries: Vec<Entry>) -> Self {
        let last = entries.last().map_or(point.index, |entry| entry.index);
        // The state is that of committed entries, whatever the log has noted; and what it has noted may be of entries whose
        // writing did not end.
        state.commit = state.commit.clamp(point.index, last);
        state.term = state.term.max(point.term);
        Self {
            state,
            offset: point.index,
            offset_term: point.term,
            bytes: entries.iter().map(size).sum(),
            entries: entries.into(),
            point,
            snapshots: Mutex::default(),
        }
    }

    /// The index of the last entry before those that are here.
    pub(crate) fn begin(&self) -> u64 {
        self.offset
    }

    fn last(&self) -> u64 {
        self.offset + self.entries.len() as u64
    }

    /// Adds entries in place of those from the first one's index on.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> raft::Result<()> {
        let Some(first) = entries.first() else { return Ok(()) };
        if first.index <= self.offset {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if first.index > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        while self.last() >= first.index {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, size);
        }
        self.bytes += entries.iter().map(size).sum::<u64>();
        self.entries.extend(entries);
        Ok(())
    }

    /// Starts behind a state that came from elsewhere.
    pub(crate) fn install(&mut self, point: Point) {
        self.entries.clear();
        (self.offset, self.offset_term, self.bytes) = (point.index, point.term, 0);
        self.point = point;
    }

    /// Drops old entries until those up to `index` are gone.
    pub(crate) fn drop_to(&mut self, index: u64) {
        while self.offset < index {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= size(&entry);
            (self.offset, self.offset_term) = (entry.index, entry.term);
        }
    }

    /// The index up to which entries would have to go for the rest to take at most so many bytes.
    pub(crate) fn index_for(&self, most: u64) -> u64 {
        let (mut left, mut index) = (self.bytes, self.offset);
        for entry in &self.entries {
            if left <= most {
                break;
            }
            left -= size(entry);
            index = entry.index;
        }
        index
    }

    /// Takes the members that need a state.
    pub(crate) fn take_wanted(&self) -> BTreeSet<MemberId> {
        std::mem::take(&mut self.snapshots.lock().wanted)
    }

    /// A state for a member is ready, or gone.
    pub(crate) fn set_ready(&self, member: MemberId, point: Option<Point>) {
        let mut snapshots = self.snapshots.lock();
        match point {
            Some(point) => snapshots.ready.insert(member, point),
            None => snapshots.ready.remove(&member),
        };
    }
}

impl Storage for LogCache {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.state.clone(), self.point.membership.conf_state()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.offset {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let (from, to) = ((low - self.offset - 1) as usize, (high - self.offset - 1) as usize);
        let most = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        // At least one, however large.
        for entry in self.entries.range(from..to) {
            bytes += size(entry);
            if bytes > most && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.offset {
            return Ok(self.offset_term);
        }
        if index < self.offset {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let entry = self.entries.get((index - self.offset - 1) as usize);
        entry.map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.offset + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let mut snapshots = self.snapshots.lock();
        match snapshots.ready.get(&to) {
            // Entries must follow it here.
            Some(point) if point.index >= request_index && point.index >= self.offset => Ok(point.snapshot()),
            _ => {
                snapshots.wanted.insert(to);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Membership;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        range.map(|index| Entry { index, term, ..Entry::default() }).collect()
    }

    fn point(index: u64, term: u64) -> Point {
        Point { index, term, membership: Membership::numbered(&[1, 2]) }
    }

    fn indexes(cache: &LogCache, low: u64, high: u64) -> raft::Result<Vec<(u64, u64)>> {
        let entries = cache.entries(low, high, None, GetEntriesContext::empty(false))?;
        Ok(entries.iter().map(|entry| (entry.index, entry.term)).collect())
    }

    #[test]
    fn later_entries_replace_those_that_conflict() {
        let mut cache = LogCache::new(point(0, 0), HardState::default(), entries(1..=4, 1));
        cache.append(entries(3..=3, 2)).unwrap();
        assert_eq!(indexes(&cache, 1, 4).unwrap(), [(1, 1), (2, 1), (3, 2)]);
        assert_eq!((cache.last_index().unwrap(), cache.bytes), (3, 3 * 64));
        assert!(cache.append(entries(6..=6, 2)).is_err(), "a gap");
    }

    #[test]
    fn old_entries_go_by_index_and_by_size() {
        let mut cache = LogCache::new(point(0, 0), HardState::default(), entries(1..=10, 1));
        cache.drop_to(5);
        assert_eq!((cache.first_index().unwrap(), cache.last_index().unwrap()), (6, 10));
        assert_eq!((cache.term(5).unwrap(), cache.term(4).is_err()), (1, true));
        assert!(indexes(&cache, 5, 7).is_err());
        assert_eq!(cache.index_for(2 * 64), 8);
        assert_eq!(cache.index_for(u64::MAX), 5);
    }

    #[test]
    fn a_state_from_elsewhere_replaces_the_log() {
        let mut cache = LogCache::new(point(0, 0), HardState::default(), entries(1..=4, 1));
        cache.install(point(9, 3));
        assert_eq!((cache.first_index().unwrap(), cache.last_index().unwrap(), cache.term(9).unwrap()), (10, 9, 3));
    }

    #[test]
    fn a_state_is_asked_for_and_then_given() {
        let mut cache = LogCache::new(point(3, 1), HardState::default(), entries(4..=9, 1));
        assert!(cache.snapshot(0, 2).is_err());
        assert_eq!(cache.take_wanted(), BTreeSet::from([2]));
        cache.set_ready(2, Some(point(6, 1)));
        assert_eq!(cache.snapshot(0, 2).unwrap().get_metadata().index, 6);
        assert!(cache.snapshot(7, 2).is_err(), "one that is too old");
        cache.drop_to(7);
        assert!(cache.snapshot(0, 2).is_err(), "one that no entries follow");
    }

    #[test]
    fn what_was_noted_as_committed_is_what_is_there() {
        let noted = HardState { term: 2, vote: 1, commit: 9, ..HardState::default() };
        let cache = LogCache::new(point(3, 1), noted, entries(4..=6, 1));
        assert_eq!(cache.initial_state().unwrap().hard_state.commit, 6);
        let cache = LogCache::new(point(3, 4), HardState::default(), Vec::new());
        let state = cache.initial_state().unwrap().hard_state;
        assert_eq!((state.commit, state.term), (3, 4), "the state of an entry of a term was agreed on in that term");
    }
}
