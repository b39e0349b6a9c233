//! Where a log's entries are: one small slot in memory for each.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;

use super::{batch::Item, frame::FrameWriter};
use crate::{Error, codec::DecodeError, disk::DiskFile};

/// A file of the log.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    pub len: u64,
}

impl Segment {
    pub fn of(writer: &FrameWriter) -> Self {
        Self { file: writer.file().clone(), path: writer.path().to_owned(), len: writer.len() }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// Low half of the segment's number: far fewer than 2^32 are there at once.
    segment: u32,
    at: u32,
    len: u32,
    crc: u32,
}

/// The state of a log as its synced files have it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub first: u64,
    pub slots: VecDeque<Slot>,
    pub segments: BTreeMap<u64, Segment>,
    pub state: Option<Bytes>,
}

impl Table {
    /// The index behind the last entry.
    pub fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Why items don't fit behind what is there, if they don't.
    pub fn check<'a>(&self, items: impl Iterator<Item = &'a Item>) -> Result<(), DecodeError> {
        check(self.first, self.next(), items)
    }

    /// As [`Table::check`], for items of a log whose first segments are gone: entries that were in those may be replaced in one that
    /// is there.
    pub fn check_replayed(&self, items: &[Item]) -> Result<(), DecodeError> {
        check(0, self.next(), items.iter())
    }

    /// Takes up items that were checked, whose payload lies at an offset of a segment.
    pub fn apply(&mut self, segment: u64, payload: u64, items: &[Item]) {
        for item in items {
            match item {
                Item::Entry { index, at, len, crc } => {
                    self.cut(*index);
                    let at = u32::try_from(payload + u64::from(*at)).expect("a segment is shorter than 4 GiB");
                    self.slots.push_back(Slot { segment: segment as u32, at, len: *len, crc: *crc });
                }
                Item::Cut(next) => self.cut(*next),
                Item::Reset(next) => {
                    self.slots.clear();
                    self.first = *next;
                }
                Item::State(state) => self.state = Some(state.clone()),
            }
        }
    }

    fn cut(&mut self, next: u64) {
        if next < self.first {
            self.slots.clear();
            self.first = next;
        }
        self.slots.truncate(usize::try_from(next - self.first).expect("a count of entries in memory"));
    }

    /// Forgets the entries before `index`; the number of the first segment that is still of use.
    pub fn drop_before(&mut self, index: u64) -> u64 {
        let gone = index.clamp(self.first, self.next()) - self.first;
        self.slots.drain(..gone as usize);
        self.first += gone;
        if self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to_fit();
        }
        let current = *self.segments.keys().next_back().expect("a log has a segment");
        match self.slots.front() {
            Some(slot) => *self.segments.keys().find(|&&number| number as u32 == slot.segment).unwrap_or(&current),
            None => current,
        }
    }

    /// Bytes in segments.
    pub fn size(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).sum()
    }

    /// Where entries of a range are, as many as fit into `max_bytes`, at least one: file, path, offset, length and checksum of each.
    pub fn find(&self, range: Range<u64>, max_bytes: usize) -> Vec<(Segment, u64, usize, u32)> {
        let (from, to) = (range.start.max(self.first), range.end.min(self.next()));
        let mut found = Vec::new();
        let mut size = 0;
        for index in from..to {
            let slot = self.slots[(index - self.first) as usize];
            size += slot.len as usize;
            if size > max_bytes && !found.is_empty() {
                break;
            }
            let segment = self.segments.iter().rev().find(|(number, _)| **number as u32 == slot.segment);
            let (_, segment) = segment.expect("a segment is there as long as its entries");
            found.push((segment.clone(), u64::from(slot.at), slot.len as usize, slot.crc));
        }
        found
    }
}

fn check<'a>(mut first: u64, mut next: u64, items: impl Iterator<Item = &'a Item>) -> Result<(), DecodeError> {
    for item in items {
        match item {
            Item::Entry { index, .. } if (first..=next).contains(index) => next = index + 1,
            Item::Entry { .. } => return Err(DecodeError("an entry does not follow those before it")),
            Item::Cut(at) if (first..=next).contains(at) => next = *at,
            Item::Cut(_) => return Err(DecodeError("a cut lies outside of the entries")),
            Item::Reset(at) => (first, next) = (*at, *at),
            Item::State(_) => {}
        }
    }
    Ok(())
}

/// Reads the bytes of an entry and checks them.
pub(crate) fn load(segment: &Segment, at: u64, len: usize, crc: u32) -> Result<Bytes, Error> {
    let mut bytes = vec![0; len];
    let read = segment.file.read_at(at, &mut bytes);
    let read = read.map_err(|error| Error::io(format!("reading {}", segment.path.display()), &error))?;
    if read < len || crc32c::crc32c(&bytes) != crc {
        let reason = "an entry does not match its checksum".to_owned();
        return Err(Error::Corrupt { file: segment.path.display().to_string(), offset: at, reason });
    }
    Ok(bytes.into())
}
