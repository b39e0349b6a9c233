//! The index of history: which revisions changed a key. It is in memory; the values are in the engine.
//!
//! Memory for a key with one version: its bytes and 16 more, rounded up by the allocator, and 32 in the map, of whose space
//! a half to two thirds are in use. So 1 million keys of 32 bytes take about 115 MB, here; a further version takes 12 bytes and, until
//! it is compacted away, 24 more; a key that was put more than once takes 64 more.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
};

use super::Position;
use crate::{KeyRange, KeyValue, Revision};

/// A change in 12 bytes: the halves of the revision, and the rank with a bit for a delete.
#[derive(Debug, Clone, Copy)]
struct Change {
    revision: [u32; 2],
    rank: u32,
}

const DELETED: u32 = 1 << 31;

impl Change {
    fn new(at: Position, deleted: bool) -> Self {
        // A txn has far fewer changes than 2^31: its bytes are bounded, and so are the keys in memory that it may delete.
        let rank = at.rank | if deleted { DELETED } else { 0 };
        Self { revision: [(at.revision >> 32) as u32, at.revision as u32], rank }
    }

    fn revision(&self) -> Revision {
        u64::from(self.revision[0]) << 32 | u64::from(self.revision[1])
    }

    fn at(&self) -> Position {
        Position { revision: self.revision(), rank: self.rank & !DELETED }
    }

    fn is_delete(&self) -> bool {
        self.rank & DELETED != 0
    }
}

/// Since when a pair has been there, and which put since then it is, counted from 1: what the next put needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Birth {
    pub created: Revision,
    pub version: u64,
}

impl Birth {
    pub(crate) fn of(kv: &KeyValue) -> Self {
        Self { created: kv.create_revision, version: kv.version }
    }
}

/// A key's changes, oldest first. Most keys have one.
#[derive(Debug)]
enum Changes {
    /// A put that made the key, or a delete.
    One(Change),
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
    /// One at least.
    changes: VecDeque<Change>,
    /// That of the last change; of no meaning if it is a delete.
    birth: Birth,
}

impl Changes {
    fn new(change: Change, birth: Birth) -> Self {
        if change.is_delete() || birth == (Birth { created: change.revision(), version: 1 }) {
            return Self::One(change);
        }
        Self::Many(Box::new(Many { changes: VecDeque::from([change]), birth }))
    }

    fn last(&self) -> &Change {
        match self {
            Self::One(change) => change,
            Self::Many(many) => many.changes.back().expect("there is one at least"),
        }
    }

    fn birth(&self) -> Birth {
        match self {
            Self::One(change) => Birth { created: change.revision(), version: 1 },
            Self::Many(many) => many.birth,
        }
    }

    fn push(&mut self, change: Change, birth: Birth) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new(Many { changes: VecDeque::from([*first, change]), birth })),
            Self::Many(many) => {
                many.changes.push_back(change);
                many.birth = birth;
            }
        }
    }

    /// Takes the oldest change away; whether there are others.
    fn forget(&mut self) -> (Change, bool) {
        let many = match self {
            Self::One(change) => return (*change, false),
            Self::Many(many) => many,
        };
        let oldest = many.changes.pop_front().expect("there is one at least");
        match many.changes.len() {
            0 => return (oldest, false),
            1 => *self = Self::new(many.changes[0], many.birth),
            left if left * 4 < many.changes.capacity() => many.changes.shrink_to_fit(),
            _ => {}
        }
        (oldest, true)
    }

    fn visible(&self, revision: Revision) -> Option<Position> {
        // Most reads are of now: the last change is the one.
        let last = self.last();
        let change = match self {
            _ if last.revision() <= revision => last,
            Self::One(_) => return None,
            Self::Many(many) => {
                let seen = many.changes.partition_point(|change| change.revision() <= revision);
                &many.changes[seen.checked_sub(1)?]
            }
        };
        (!change.is_delete()).then(|| change.at())
    }
}

/// Keys, each with its changes since the compact revision.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Arc<[u8]>, Changes>,
    /// Keys whose oldest change is of no more use once history is compacted up to the revision beside it, in order
    /// of revision. So compaction costs what has become garbage, not what exists.
    obsolete: VecDeque<(Revision, Arc<[u8]>)>,
    /// The same for deletes, which are of use as long as a watch may begin at their own revision.
    tombstones: VecDeque<(Revision, Arc<[u8]>)>,
    live: u64,
}

impl Index {
    /// Notes a put with what it makes of the key, or a delete. Positions come in rising order.
    pub(crate) fn insert(&mut self, key: &[u8], at: Position, put: Option<Birth>) {
        let (deleted, birth) = (put.is_none(), put.unwrap_or_default());
        let change = Change::new(at, deleted);
        // A copy, so that a small key never keeps a whole request or record in memory.
        match self.keys.entry(key.into()) {
            Entry::Vacant(entry) => {
                if deleted {
                    self.tombstones.push_back((at.revision + 1, entry.key().clone()));
                }
                entry.insert(Changes::new(change, birth));
                self.live += u64::from(!deleted);
            }
            Entry::Occupied(mut entry) => {
                let was_live = !entry.get().last().is_delete();
                entry.get_mut().push(change, birth);
                if was_live {
                    self.obsolete.push_back((at.revision, entry.key().clone()));
                }
                if deleted {
                    self.tombstones.push_back((at.revision + 1, entry.key().clone()));
                }
                match (was_live, deleted) {
                    (false, false) => self.live += 1,
                    (true, true) => self.live -= 1,
                    _ => {}
                }
            }
        }
    }

    /// What the key's pair is now, if it is there.
    pub(crate) fn birth(&self, key: &[u8]) -> Option<Birth> {
        let changes = self.keys.get(key)?;
        (!changes.last().is_delete()).then(|| changes.birth())
    }

    /// Where the key's value at `revision` is, if it was there then.
    pub(crate) fn find(&self, key: &[u8], revision: Revision) -> Option<Position> {
        self.keys.get(key)?.visible(revision)
    }

    /// The keys of a range that were there at `revision`.
    pub(crate) fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = (&'a [u8], Position)> + 'a {
        // One key is found faster by itself. And an ordered map refuses bounds the wrong way round by a panic.
        let one = range.as_key();
        let bounds = (one.is_none() && !range.is_empty()).then(|| range.bounds());
        let several = bounds.into_iter().flat_map(|bounds| self.keys.range::<[u8], _>(bounds));
        one.and_then(|key| self.keys.get_key_value(&key[..]))
            .into_iter()
            .chain(several)
            .filter_map(move |(key, changes)| Some((&**key, changes.visible(revision)?)))
    }

    /// Forgets what neither a read nor a watch from `revision` on sees; the positions forgotten.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<Position> {
        let mut forgotten = Vec::new();
        // Which of a key's entries stand for which of its changes does not matter: as many of the oldest go as there are.
        for obsolete in [&mut self.obsolete, &mut self.tombstones] {
            while obsolete.front().is_some_and(|(at, _)| *at <= revision) {
                let Some((_, key)) = obsolete.pop_front() else { break };
                let Some(changes) = self.keys.get_mut(&key) else { continue };
                let (oldest, more) = changes.forget();
                forgotten.push(oldest.at());
                if !more {
                    self.keys.remove(&key);
                }
            }
            if obsolete.len() * 4 < obsolete.capacity() {
                obsolete.shrink_to_fit();
            }
        }
        forgotten
    }

    /// Keys there now.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn at(revision: Revision) -> Position {
        Position::first(revision)
    }

    fn put(index: &mut Index, key: &str, revision: Revision) {
        let before = index.birth(key.as_bytes());
        let birth = Birth {
            created: before.map_or(revision, |before| before.created),
            version: before.map_or(0, |before| before.version) + 1,
        };
        index.insert(key.as_bytes(), at(revision), Some(birth));
    }

    #[test]
    fn reads_at_every_revision_between_changes() {
        let mut index = Index::default();
        put(&mut index, "a", 2);
        put(&mut index, "a", 4);
        index.insert(b"a", at(6), None);
        put(&mut index, "a", 8);
        let seen: Vec<_> = (1..=9).map(|revision| index.find(b"a", revision).map(|p| p.revision)).collect();
        assert_eq!(seen, [None, Some(2), Some(2), Some(4), Some(4), None, None, Some(8), Some(8)]);
        assert_eq!(index.live(), 1);
    }

    #[test]
    fn compaction_keeps_the_state_at_the_compact_revision() {
        let mut index = Index::default();
        put(&mut index, "a", 2);
        put(&mut index, "b", 3);
        put(&mut index, "a", 4);
        index.insert(b"b", at(5), None);
        assert_eq!(index.compact(3), []);
        assert_eq!(index.compact(4), [at(2)]);
        assert_eq!(index.find(b"a", 4), Some(at(4)));
        assert_eq!(index.find(b"b", 4), Some(at(3)));
        assert_eq!(index.compact(5), [at(3)], "a watch from the delete on still sees it");
        assert_eq!(index.find(b"b", 5), None);
        assert_eq!(index.compact(6), [at(5)]);
        assert_eq!(index.keys.len(), 1);
    }

    #[test]
    fn an_inverted_range_is_empty() {
        let mut index = Index::default();
        put(&mut index, "a", 2);
        let range = KeyRange { start: Bytes::from_static(b"b"), end: Some(Bytes::from_static(b"a")) };
        assert_eq!(index.range(&range, 2).count(), 0);
    }

    #[test]
    fn a_key_with_very_many_versions_is_compacted_in_no_time() {
        let mut index = Index::default();
        for revision in 2..300_000 {
            put(&mut index, "a", revision);
        }
        assert_eq!(index.compact(299_999).len(), 299_997);
        assert_eq!(index.find(b"a", 299_999), Some(at(299_999)));
        assert_eq!(index.birth(b"a"), Some(Birth { created: 2, version: 299_998 }));
        let Some(Changes::Many(many)) = index.keys.values().next() else { panic!("it was put many times") };
        assert!(many.changes.capacity() < 10, "the space is given back");
    }

    #[test]
    fn a_put_knows_since_when_the_key_is_there() {
        let mut index = Index::default();
        put(&mut index, "a", 2);
        put(&mut index, "a", 3);
        assert_eq!(index.birth(b"a"), Some(Birth { created: 2, version: 2 }));
        index.compact(3);
        assert_eq!(index.birth(b"a"), Some(Birth { created: 2, version: 2 }));
        index.insert(b"a", at(4), None);
        assert_eq!(index.birth(b"a"), None);
        put(&mut index, "a", 5);
        assert_eq!(index.birth(b"a"), Some(Birth { created: 5, version: 1 }));
        index.compact(5);
        assert!(matches!(index.keys.values().next(), Some(Changes::One(_))), "that it was put once needs no space");
        let mut index = Index::default();
        index.insert(b"a", at(9), Some(Birth { created: 4, version: 3 }));
        assert_eq!(index.birth(b"a"), Some(Birth { created: 4, version: 3 }), "what was before is compacted");
        assert_eq!((index.find(b"a", 9), index.find(b"a", 8)), (Some(at(9)), None));
    }

    #[test]
    fn a_change_is_small_and_whole() {
        assert_eq!((size_of::<Change>(), size_of::<Changes>()), (12, 16));
        let at = Position { revision: 0x0123_4567_89ab_cdef, rank: 0x7654_3210 };
        let change = Change::new(at, true);
        assert_eq!((change.at(), change.revision(), change.is_delete()), (at, at.revision, true));
    }
}
