//! The index of history: which revisions changed a key. It is in memory; the values are in the engine.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Position;
use crate::{KeyRange, Revision};

#[derive(Debug, Clone, Copy)]
struct Change {
    at: Position,
    deleted: bool,
}

/// Keys, each with its changes since the compact revision, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Bytes, Vec<Change>>,
    /// Keys whose oldest change is of no more use once history is compacted up to the revision beside it, in order
    /// of revision. So compaction costs what has become garbage, not what exists.
    obsolete: VecDeque<(Revision, Bytes)>,
    /// The same for deletes, which are of use as long as a watch may begin at their own revision.
    tombstones: VecDeque<(Revision, Bytes)>,
    live: u64,
}

impl Index {
    /// Notes a change. Positions come in rising order.
    pub(crate) fn insert(&mut self, key: &[u8], at: Position, deleted: bool) {
        let known = self.keys.get_key_value(key).map(|(key, _)| key.clone());
        // A copy, so that a small key never keeps a whole request or record in memory.
        let key = known.unwrap_or_else(|| Bytes::copy_from_slice(key));
        let changes = self.keys.entry(key.clone()).or_default();
        let was_live = changes.last().is_some_and(|change| !change.deleted);
        if was_live {
            self.obsolete.push_back((at.revision, key.clone()));
        }
        if deleted {
            self.tombstones.push_back((at.revision + 1, key));
        }
        changes.push(Change { at, deleted });
        match (was_live, deleted) {
            (false, false) => self.live += 1,
            (true, true) => self.live -= 1,
            _ => {}
        }
    }

    /// Where the key's value at `revision` is, if it was there then.
    pub(crate) fn find(&self, key: &[u8], revision: Revision) -> Option<Position> {
        visible(self.keys.get(key)?, revision)
    }

    /// The keys of a range that were there at `revision`.
    pub(crate) fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = (&'a Bytes, Position)> + 'a {
        // An ordered map refuses bounds the wrong way round by a panic.
        let bounds = (!range.is_empty()).then(|| range.bounds());
        bounds
            .into_iter()
            .flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
            .filter_map(move |(key, changes)| Some((key, visible(changes, revision)?)))
    }

    /// Forgets what neither a read nor a watch from `revision` on sees; the positions forgotten.
    pub(crate) fn compact(&mut self, revision: Revision) -> Vec<Position> {
        let mut forgotten = Vec::new();
        // Which of a key's entries stand for which of its changes does not matter: as many of the oldest go as there are.
        for obsolete in [&mut self.obsolete, &mut self.tombstones] {
            while obsolete.front().is_some_and(|(at, _)| *at <= revision) {
                let Some((_, key)) = obsolete.pop_front() else { break };
                let Some(changes) = self.keys.get_mut(&key) else { continue };
                forgotten.push(changes.remove(0).at);
                if changes.is_empty() {
                    self.keys.remove(&key);
                } else if changes.len() * 4 < changes.capacity() {
                    changes.shrink_to_fit();
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

fn visible(changes: &[Change], revision: Revision) -> Option<Position> {
    // Most reads are of now: the last change is the one.
    let last = changes.last()?;
    let change = if last.at.revision <= revision {
        last
    } else {
        &changes[changes.partition_point(|change| change.at.revision <= revision).checked_sub(1)?]
    };
    (!change.deleted).then_some(change.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: Revision) -> Position {
        Position::first(revision)
    }

    #[test]
    fn reads_at_every_revision_between_changes() {
        let mut index = Index::default();
        index.insert(b"a", at(2), false);
        index.insert(b"a", at(4), false);
        index.insert(b"a", at(6), true);
        index.insert(b"a", at(8), false);
        let seen: Vec<_> = (1..=9).map(|revision| index.find(b"a", revision).map(|p| p.revision)).collect();
        assert_eq!(seen, [None, Some(2), Some(2), Some(4), Some(4), None, None, Some(8), Some(8)]);
        assert_eq!(index.live(), 1);
    }

    #[test]
    fn compaction_keeps_the_state_at_the_compact_revision() {
        let mut index = Index::default();
        index.insert(b"a", at(2), false);
        index.insert(b"b", at(3), false);
        index.insert(b"a", at(4), false);
        index.insert(b"b", at(5), true);
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
        index.insert(b"a", at(2), false);
        let range = KeyRange { start: Bytes::from_static(b"b"), end: Some(Bytes::from_static(b"a")) };
        assert_eq!(index.range(&range, 2).count(), 0);
    }
}
