//! One segment: a stretch of history in two files, and where its records are.
//!
//! ```text
//! data-<id>    (crc u32 | bytes)*                                                            crc over position and bytes
//! index-<id>   framed; a frame holds (revision u64 | rank u32 | offset u32 | length u32 | head)*    head: length u32, bytes
//! ```

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{BufMut, Bytes};

use super::super::{EngineError, Record};
use crate::{
    Disk, DiskFile, Error, Position, Revision,
    codec::{DecodeError, Reader, put_bytes},
    disk::numbered,
    log::frame::{self, FrameWriter},
};

pub(crate) const DATA: &str = "data-";
pub(crate) const INDEX: &str = "index-";
/// Bytes of a record before its own.
pub(crate) const RECORD_HEAD: usize = 4;
/// The most bytes that a segment can have: offsets are kept in 32 bits.
const MOST_BYTES: u64 = u32::MAX as u64;

/// Where a record is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Its revision less the segment's first.
    revision: u32,
    rank: u32,
    offset: u32,
    len: u32,
}

/// The files of a segment.
#[derive(Debug)]
pub(crate) struct Files {
    pub data: Arc<dyn DiskFile>,
    pub data_path: PathBuf,
    pub index: FrameWriter,
}

/// The files of a segment that has any, for reading and to sync them.
#[derive(Debug)]
struct Opened {
    data: Arc<dyn DiskFile>,
    data_path: Arc<Path>,
    index: Arc<dyn DiskFile>,
}

/// Where to read a record.
#[derive(Debug)]
pub(crate) enum Place {
    /// Not written yet.
    Here(Bytes),
    /// In a file.
    There { file: Arc<dyn DiskFile>, path: Arc<Path>, offset: u64, len: usize },
}

/// A segment in memory.
#[derive(Debug)]
pub(crate) struct Segment {
    pub id: u64,
    base: Revision,
    slots: Vec<Slot>,
    /// One bit for each slot: whether the record was removed.
    dead: Vec<u64>,
    dead_count: usize,
    /// Bytes of records that were not removed.
    pub live_bytes: u64,
    /// How many of the slots are written, and where data and index end then.
    pub written: usize,
    pub data_len: u64,
    pub index_len: u64,
    /// `data_len` and `index_len` when they were last synced.
    pub synced: (u64, u64),
    opened: Option<Opened>,
}

impl Segment {
    pub fn new(id: u64) -> Self {
        Self {
            id,
            base: 0,
            slots: Vec::new(),
            dead: Vec::new(),
            dead_count: 0,
            live_bytes: 0,
            written: 0,
            data_len: 0,
            index_len: 0,
            synced: (0, 0),
            opened: None,
        }
    }

    fn at(&self, slot: &Slot) -> Position {
        Position { revision: self.base + u64::from(slot.revision), rank: slot.rank }
    }

    /// The place of its first record; those after it are in this segment as far as they lie before the next segment's.
    pub fn first(&self) -> Position {
        self.slots.first().map_or(Position::first(Revision::MAX), |slot| self.at(slot))
    }

    pub fn last(&self) -> Option<Position> {
        self.slots.last().map(|slot| self.at(slot))
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Records up to a revision.
    fn count_to(&self, revision: Revision) -> usize {
        self.slots.partition_point(|slot| self.at(slot).revision <= revision)
    }

    pub fn dead_count(&self) -> usize {
        self.dead_count
    }

    /// What is written of it, for a manifest that goes up to a revision.
    pub fn extent(&self, revision: Revision) -> Extent {
        let count = self.count_to(revision).min(self.written);
        let mut dead = self.dead[..count.div_ceil(64)].to_vec();
        if let Some(last) = dead.last_mut()
            && !count.is_multiple_of(64)
        {
            *last &= (1 << (count % 64)) - 1;
        }
        if dead.iter().all(|word| *word == 0) {
            dead.clear();
        }
        Extent { id: self.id, count, data_len: self.data_len, index_len: self.index_len, dead }
    }

    pub fn is_dead(&self, i: usize) -> bool {
        self.dead[i / 64] >> (i % 64) & 1 == 1
    }

    /// Bytes that it takes, or will take, with all its records.
    pub fn end(&self) -> u64 {
        self.slots.last().map_or(0, |slot| u64::from(slot.offset) + (RECORD_HEAD + slot.len as usize) as u64)
    }

    /// Whether a record of this size and revision can be added.
    pub fn takes(&self, at: Position, len: usize) -> bool {
        self.slots.is_empty()
            || (self.end() + (RECORD_HEAD + len) as u64 <= MOST_BYTES && at.revision - self.base <= u64::from(u32::MAX))
    }

    /// Adds a record behind the others.
    pub fn push(&mut self, at: Position, len: usize) {
        if self.slots.is_empty() {
            self.base = at.revision;
        }
        let slot = Slot {
            revision: u32::try_from(at.revision - self.base).expect("checked by `takes`"),
            rank: at.rank,
            offset: u32::try_from(self.end()).expect("checked by `takes`"),
            len: u32::try_from(len).expect("a record is shorter than 4 GiB"),
        };
        self.slots.push(slot);
        self.dead.resize(self.slots.len().div_ceil(64), 0);
        self.live_bytes += len as u64;
    }

    pub fn find(&self, at: Position) -> Option<usize> {
        let (first, last) = (self.first(), self.last()?);
        if !(first..=last).contains(&at) {
            return None;
        }
        // Revisions come one after the other, so a record is mostly near where its revision says: a few slots are looked at, not
        // one in each half of a large table.
        let (part, whole) = (at.revision - first.revision, last.revision - first.revision + 1);
        let guess = (u128::from(part) * self.slots.len() as u128 / u128::from(whole)) as usize;
        let (mut low, mut high, mut step) = (guess, guess, 4);
        while low > 0 && self.at(&self.slots[low]) > at {
            low = low.saturating_sub(step);
            step *= 4;
        }
        step = 4;
        while high < self.slots.len() && self.at(&self.slots[high]) <= at {
            high = (high + step).min(self.slots.len());
            step *= 4;
        }
        self.slots[low..high].binary_search_by(|slot| self.at(slot).cmp(&at)).ok().map(|i| low + i)
    }

    /// The slots of `from..end`.
    pub fn range(&self, from: Position, end: Position) -> Range<usize> {
        let first = self.slots.partition_point(|slot| self.at(slot) < from);
        first..self.slots.partition_point(|slot| self.at(slot) < end).max(first)
    }

    pub fn position(&self, i: usize) -> Position {
        self.at(&self.slots[i])
    }

    pub fn kill(&mut self, i: usize) {
        if !self.is_dead(i) {
            self.dead[i / 64] |= 1 << (i % 64);
            self.dead_count += 1;
            self.live_bytes -= u64::from(self.slots[i].len);
        }
    }

    /// Where record `i` is, which is written.
    pub fn place(&self, i: usize) -> Place {
        let opened = self.opened.as_ref().expect("what is written has a file");
        let (file, path) = (opened.data.clone(), opened.data_path.clone());
        let slot = self.slots[i];
        Place::There { file, path, offset: u64::from(slot.offset), len: slot.len as usize }
    }

    /// Notes that records were written: all up to `count`.
    pub fn wrote(&mut self, files: &Files, count: usize) {
        self.opened.get_or_insert_with(|| Opened {
            data: files.data.clone(),
            data_path: files.data_path.as_path().into(),
            index: files.index.file().clone(),
        });
        self.written = count;
        self.data_len = self.slots[..count]
            .last()
            .map_or(0, |slot| u64::from(slot.offset) + (RECORD_HEAD + slot.len as usize) as u64);
        self.index_len = files.index.len();
    }

    /// Its files, if anything of it is written and not synced.
    pub fn unsynced(&self) -> Option<[Arc<dyn DiskFile>; 2]> {
        let Opened { data, index, .. } = self.opened.as_ref()?;
        (self.synced != (self.data_len, self.index_len)).then(|| [data.clone(), index.clone()])
    }

    /// Gives up room for more.
    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
        self.dead.shrink_to_fit();
    }
}

impl Files {
    /// Makes the files of a new segment.
    pub fn create(disk: &dyn Disk, dir: &Path, id: u64) -> Result<Self, Error> {
        let (data_path, index_path) = (numbered(dir, DATA, id), numbered(dir, INDEX, id));
        let io = |error: std::io::Error| Error::io(format!("making {}", data_path.display()), &error);
        let data = disk.create(&data_path).map_err(io)?;
        let mut index = FrameWriter::create(disk, &index_path, id).map_err(io)?.growing();
        // This makes both names last.
        index.publish(disk).map_err(io)?;
        Ok(Self { data, data_path, index })
    }

    /// Writes records behind those of a segment that are written. Nothing is noted in the segment.
    pub fn write<'a>(&mut self, at: u64, records: impl Iterator<Item = &'a Record> + Clone) -> Result<(), Error> {
        let mut data = Vec::with_capacity(records.clone().map(|record| RECORD_HEAD + record.bytes.len()).sum());
        for record in records.clone() {
            data.put_u32_le(checksum(record.at, &record.bytes));
            data.put_slice(&record.bytes);
        }
        let io = |error: std::io::Error| Error::io(format!("writing {}", self.data_path.display()), &error);
        self.data.write_at(at, &data).map_err(io)?;
        let mut offset = at;
        let appended = self.index.append(|out| {
            for record in records {
                out.put_u64_le(record.at.revision);
                out.put_u32_le(record.at.rank);
                out.put_u32_le(u32::try_from(offset).expect("a segment is shorter than 4 GiB"));
                out.put_u32_le(u32::try_from(record.bytes.len()).expect("a record is shorter than 4 GiB"));
                put_bytes(out, &record.bytes[..record.head]);
                offset += (RECORD_HEAD + record.bytes.len()) as u64;
            }
        });
        appended.map(drop).map_err(|(error, _)| io(error))
    }
}

fn checksum(at: Position, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&at.to_key()), bytes)
}

fn corrupt(path: &Path, offset: u64, reason: &str) -> EngineError {
    EngineError::Corrupt { file: path.display().to_string(), offset, reason: reason.to_owned() }
}

impl Place {
    /// Reads the record, which must be that of a position.
    pub fn load(self, at: Position) -> Result<Bytes, EngineError> {
        match &self {
            Self::Here(bytes) => Ok(bytes.clone()),
            Self::There { path, offset, len, .. } => check(path, *offset, at, self.read(RECORD_HEAD + len)?),
        }
    }

    /// Reads this many bytes from where the record begins in its file.
    pub fn read(&self, count: usize) -> Result<Bytes, EngineError> {
        let Self::There { file, path, offset, .. } = self else { return Ok(Bytes::new()) };
        let mut bytes = vec![0; count];
        let read = file.read_at(*offset, &mut bytes);
        let read = read.map_err(|error| EngineError::Failed(format!("reading {}: {error}", path.display())))?;
        if read < count { Err(corrupt(path, *offset, "a record is cut off")) } else { Ok(bytes.into()) }
    }
}

/// The record in these bytes with their checksum.
pub(crate) fn check(path: &Path, offset: u64, at: Position, bytes: Bytes) -> Result<Bytes, EngineError> {
    let wanted = u32::from_le_bytes(bytes[..RECORD_HEAD].try_into().expect("four bytes"));
    let record = bytes.slice(RECORD_HEAD..);
    if checksum(at, &record) == wanted {
        Ok(record)
    } else {
        Err(corrupt(path, offset, "a record does not match its checksum"))
    }
}

/// An entry of an index file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub at: Position,
    pub offset: u64,
    pub len: usize,
    pub head: Bytes,
}

/// What a manifest says of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub id: u64,
    pub count: usize,
    pub data_len: u64,
    pub index_len: u64,
    /// Bits of the records that were removed; none at all if no record was.
    pub dead: Vec<u64>,
}

impl Extent {
    pub fn is_dead(&self, i: usize) -> bool {
        self.dead.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }
}

fn must_be_there(disk: &dyn Disk, path: &Path) -> Result<(), EngineError> {
    match disk.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(corrupt(path, 0, "it is missing, and the manifest names it"))
        }
        // Any other error comes again to who reads the file.
        _ => Ok(()),
    }
}

/// Reads the index of a segment: the first entries, as many as its extent says.
pub(crate) fn entries(disk: &dyn Disk, dir: &Path, extent: &Extent) -> Result<Vec<Entry>, EngineError> {
    let path = numbered(dir, INDEX, extent.id);
    must_be_there(disk, &path)?;
    let mut bytes = crate::disk::read_all(disk, &path).map_err(|error| super::failed(&error))?;
    if (bytes.len() as u64) < extent.index_len {
        return Err(corrupt(&path, bytes.len() as u64, "it ends before what was persisted"));
    }
    bytes.truncate(usize::try_from(extent.index_len).expect("a file that was read fits into memory"));
    let frames = frame::parse(&path, bytes.into()).map_err(|error| super::failed(&error))?;
    if frames.number != extent.id || frames.torn.is_some() || frames.end != extent.index_len {
        return Err(corrupt(&path, frames.end, frames.torn.unwrap_or("it is not the file that was persisted")));
    }
    let mut entries = Vec::with_capacity(extent.count);
    let mut end = 0;
    for (offset, payload) in frames.payloads {
        let mut read = || -> Result<(), DecodeError> {
            let mut reader = Reader::new(payload.clone());
            while !reader.is_empty() {
                let at = Position { revision: reader.u64()?, rank: reader.u32()? };
                let (offset, len, head) = (u64::from(reader.u32()?), reader.u32()? as usize, reader.bytes()?);
                if offset != end || entries.last().is_some_and(|last: &Entry| last.at >= at) {
                    return Err(DecodeError("an entry does not follow the one before"));
                }
                end += (RECORD_HEAD + len) as u64;
                entries.push(Entry { at, offset, len, head });
            }
            Ok(())
        };
        read().map_err(|error| corrupt(&path, offset, error.0))?;
    }
    if entries.len() < extent.count {
        return Err(corrupt(&path, extent.index_len, "records that were persisted are missing"));
    }
    entries.truncate(extent.count);
    Ok(entries)
}

/// The segment of an extent, as a start finds it.
pub(crate) fn open(disk: &dyn Disk, dir: &Path, extent: &Extent) -> Result<Segment, EngineError> {
    let path = numbered(dir, DATA, extent.id);
    let io = |error: std::io::Error| EngineError::Failed(format!("opening {}: {error}", path.display()));
    let mut segment = Segment::new(extent.id);
    for entry in entries(disk, dir, extent)? {
        if !segment.takes(entry.at, entry.len) {
            return Err(corrupt(&numbered(dir, INDEX, extent.id), 0, "it holds more than a segment can"));
        }
        segment.push(entry.at, entry.len);
    }
    if segment.end() > extent.data_len {
        return Err(corrupt(&numbered(dir, INDEX, extent.id), 0, "it does not fit to what was persisted"));
    }
    for i in (0..segment.len()).filter(|i| extent.is_dead(*i)) {
        segment.kill(i);
    }
    must_be_there(disk, &path)?;
    let data = disk.open(&path).map_err(io)?;
    let len = data.len().map_err(io)?;
    if len < extent.data_len {
        return Err(corrupt(&path, len, "it ends before what was persisted"));
    }
    segment.written = segment.len();
    (segment.data_len, segment.index_len) = (extent.data_len, extent.index_len);
    segment.synced = (extent.data_len, extent.index_len);
    let index = disk.open(&numbered(dir, INDEX, extent.id)).map_err(io)?;
    segment.opened = Some(Opened { data, data_path: path.as_path().into(), index });
    segment.shrink();
    Ok(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_records_wherever_they_are() {
        let mut segment = Segment::new(1);
        let mut places = Vec::new();
        let (mut revision, mut random) = (1_000, 7_u64);
        for _ in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Gaps that a compaction has left, and revisions with many changes.
            revision += 1 + if (random >> 33).is_multiple_of(50) { (random >> 40) % 10_000 } else { 0 };
            for rank in 0..1 + (random >> 50) % 3 * ((random >> 20) % 9) {
                places.push(Position { revision, rank: rank as u32 * 2 });
            }
        }
        for at in &places {
            segment.push(*at, 10);
        }
        for (i, at) in places.iter().enumerate() {
            assert_eq!(segment.find(*at), Some(i));
            assert_eq!(segment.find(Position { rank: at.rank + 1, ..*at }), None);
        }
        assert_eq!(segment.find(Position::first(999)), None);
        assert_eq!(segment.find(Position::first(revision + 1)), None);
        assert_eq!(Segment::new(2).find(Position::first(1)), None);
    }
}
