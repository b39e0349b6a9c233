//! Records that were read lately, so that those that are read again and again cost no system call.

use std::sync::OnceLock;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::Position;

/// Most records held. Each has one place, by its position, so those of one stretch of history hardly drive each other out.
const SLOTS: usize = 16 << 10;
/// Records that are larger are not held: together they are 32 MiB at most, and it is the small ones whose reading costs more than their
/// bytes.
const LARGEST: usize = 2 << 10;

#[derive(Debug)]
struct Held {
    segment: u64,
    at: Position,
    bytes: Bytes,
}

/// Records by segment and position. What a segment holds at a position never changes, and no segment has the number of another.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Made for the first record: a store of which nothing is read needs no space for it.
    slots: OnceLock<Box<[Mutex<Option<Held>>]>>,
}

fn slot(at: Position) -> usize {
    at.revision.wrapping_add(u64::from(at.rank)) as usize % SLOTS
}

impl Recent {
    pub fn get(&self, segment: u64, at: Position) -> Option<Bytes> {
        let held = self.slots.get()?[slot(at)].lock();
        held.as_ref().filter(|held| (held.segment, held.at) == (segment, at)).map(|held| held.bytes.clone())
    }

    /// Holds a record in the place of another one. The bytes must be all of what they share memory with.
    pub fn hold(&self, segment: u64, at: Position, bytes: &Bytes) {
        if bytes.len() <= LARGEST {
            let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| Mutex::new(None)).collect());
            *slots[slot(at)].lock() = Some(Held { segment, at, bytes: bytes.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_held_is_found_and_only_small_records_are() {
        let recent = Recent::default();
        let at = |revision, rank| Position { revision, rank };
        assert_eq!(recent.get(1, at(5, 0)), None);
        recent.hold(1, at(5, 0), &"five".into());
        assert_eq!(recent.get(1, at(5, 0)), Some("five".into()));
        assert_eq!(recent.get(2, at(5, 0)), None, "of another segment");
        assert_eq!(recent.get(1, at(4, 1)), None, "another position with the same place");
        recent.hold(1, at(5 + SLOTS as u64, 0), &"other".into());
        assert_eq!(recent.get(1, at(5, 0)), None, "its place was taken");
        recent.hold(1, at(6, 0), &vec![0; LARGEST + 1].into());
        assert_eq!(recent.get(1, at(6, 0)), None);
    }
}
