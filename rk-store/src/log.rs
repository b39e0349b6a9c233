//! A log of its own concern: numbered entries and a state beside them, in checksummed segment files. What was
//! acknowledged survives `kill -9` and power loss.
//!
//! ```text
//! LogBatch ─► LogWriter: batches that wait share a write and a sync ─► Log: one frame ─► done
//!                                                                       │
//!                                                   LogReader ◄── table: index → segment, offset
//! ```
//! - [`Log`] writes, and waits for the disk. [`LogWriter`] is its front for async code: it never blocks its caller.
//! - A batch is taken whole or not at all: entries, the removal of a suffix and the state with one sync.
//! - Segments `log-<number>` are numbered from 1 without gaps. Each begins with the index of its first entry and the state, so those
//!   before it can go once their entries are of no more use. A few of them stay as `spare-<number>`: to write where something was
//!   written before needs no new metadata, so its sync is about half as long as one of a growing file.
//! - Only the last frame of the last segment can be torn by a crash; it was never acknowledged, and is cut.
//!   Other damage is [`Error::Corrupt`] with file and offset.
//!
//! Every file is reached through a [`Disk`].

mod batch;
pub(crate) mod frame;
mod table;
mod writer;

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;

pub use self::{batch::LogBatch, writer::LogWriter};
use self::{
    frame::{FRAME_HEAD, FrameWriter, HEAD},
    table::{Segment, Table},
};
use crate::{
    Error,
    disk::{Disk, numbered, numbers, remove, remove_temporary},
};

const PREFIX: &str = "log-";
const SPARE: &str = "spare-";

/// How a [`Log`] uses the disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogOptions {
    /// The size in bytes from which on the log goes on in a new segment. At most 2 GiB.
    pub segment_bytes: u64,
    /// How many segments that are of no more use are kept to be written again.
    pub spare_segments: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, spare_segments: 3 }
    }
}

/// A log that is being written. See the module's description.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    options: LogOptions,
    segment: FrameWriter,
    /// The segment's number.
    number: u64,
    spares: Vec<PathBuf>,
    table: Arc<RwLock<Table>>,
    broken: Option<String>,
}

/// Reads a log while it is written. Clones are cheap.
#[derive(Debug, Clone)]
pub struct LogReader {
    table: Arc<RwLock<Table>>,
}

impl LogReader {
    /// The index of the first entry, or the one that the next entry gets.
    pub fn first(&self) -> u64 {
        self.table.read().first
    }

    /// The index behind the last entry that is synced.
    pub fn next(&self) -> u64 {
        self.table.read().next()
    }

    /// The state last set.
    pub fn state(&self) -> Option<Bytes> {
        self.table.read().state.clone()
    }

    /// Bytes that the log takes on disk, spare segments left out.
    pub fn size(&self) -> u64 {
        self.table.read().size()
    }

    /// The entries of `range` that are there, in order, up to about `max_bytes` bytes, at least one. It waits for the disk, though
    /// what was written a short while ago is in the system's cache.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and offset, [`Error::Io`].
    pub fn entries(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Bytes>, Error> {
        let found = self.table.read().find(range, max_bytes);
        found.into_iter().map(|(segment, at, len, crc)| table::load(&segment, at, len, crc)).collect()
    }
}

fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Error {
    Error::Corrupt { file: path.display().to_string(), offset, reason: reason.into() }
}

/// Whether an error says that there is no room, now, for what was to be written.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl Log {
    /// Opens the log in a folder that is there, or begins one whose first entry has the index 1. A torn end is cut off. Nobody
    /// else may have the folder: see [`Disk::lock`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and offset, [`Error::NoSpace`], [`Error::Io`].
    pub fn open(dir: &Path, disk: Arc<dyn Disk>, options: LogOptions) -> Result<Self, Error> {
        remove_temporary(&*disk, dir)?;
        let spares = numbers(&*disk, dir, SPARE)?.into_iter().map(|number| numbered(dir, SPARE, number)).collect();
        let found = numbers(&*disk, dir, PREFIX)?;
        let Some((&last, earlier)) = found.split_last() else {
            let mut table = Table { first: 1, ..Table::default() };
            let made = make_segment(dir, &*disk, 1, &mut Vec::new(), &opening(&table));
            let segment = made.map_err(|(error, _)| error)?;
            table.segments.insert(1, Segment::of(&segment));
            return Ok(Self::of(dir, disk, options, segment, 1, spares, table));
        };
        let mut table = Table::default();
        let mut segment = None;
        let first = earlier.first().copied().unwrap_or(last);
        for (number, wanted) in found.iter().copied().zip(first..) {
            let path = numbered(dir, PREFIX, number);
            if number != wanted {
                return Err(corrupt(&numbered(dir, PREFIX, wanted), 0, "it is missing, and later segments are there"));
            }
            let frames = frame::read(&*disk, &path)?;
            if frames.number != number {
                return Err(corrupt(&path, 8, "its head does not say what its name says"));
            }
            if frames.payloads.is_empty() {
                return Err(corrupt(&path, HEAD as u64, frames.torn.unwrap_or("it says not where it begins")));
            }
            replay(&path, number, &frames, number == first, &mut table)?;
            let io = |error: io::Error| Error::io(format!("opening {}", path.display()), &error);
            let file = if number == last {
                if let Some(reason) = frames.torn {
                    let (file, offset) = (path.display(), frames.end);
                    tracing::info!(%file, offset, reason, "cut off what follows the last whole write");
                }
                let resumed = FrameWriter::resume(&*disk, &path, &frames).map_err(io)?;
                segment.insert(resumed).file().clone()
            } else {
                if let Some(reason) = frames.torn {
                    return Err(corrupt(&path, frames.end, format!("{reason}, and a later segment follows")));
                }
                disk.open(&path).map_err(io)?
            };
            table.segments.insert(number, Segment { file, path, len: frames.end });
        }
        let segment = segment.expect("there is a last segment");
        Ok(Self::of(dir, disk, options, segment, last, spares, table))
    }

    fn of(
        dir: &Path,
        disk: Arc<dyn Disk>,
        options: LogOptions,
        segment: FrameWriter,
        number: u64,
        spares: Vec<PathBuf>,
        table: Table,
    ) -> Self {
        let table = Arc::new(RwLock::new(table));
        Self { dir: dir.to_owned(), disk, options, segment, number, spares, table, broken: None }
    }

    /// A reader of this log.
    pub fn reader(&self) -> LogReader {
        LogReader { table: self.table.clone() }
    }

    /// The log's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Writes batches in order, all or none, and returns once they would survive a power cut.
    ///
    /// # Errors
    /// - [`Error::NoSpace`]: the log is as before; the same may work later.
    /// - [`Error::Invalid`]: an index that does not fit; the log is as before.
    /// - [`Error::Unavailable`]: what is on disk is not known any more, and nothing may be written behind it, ever.
    pub fn append(&mut self, batches: &[LogBatch]) -> Result<(), Error> {
        if let Some(reason) = &self.broken {
            return Err(Error::Unavailable(reason.clone()));
        }
        let items = || batches.iter().flat_map(LogBatch::items);
        self.table.read().check(items()).map_err(|error| Error::Invalid(error.0.into()))?;
        if items().next().is_none() {
            return Ok(());
        }
        let path = self.segment.path().display().to_string();
        let appended = self.segment.append(|out| batches.iter().for_each(|batch| out.extend(batch.bytes())));
        let mut payload = match appended {
            Ok(payload) => payload,
            Err((error, None)) if is_no_space(&error) => {
                return Err(Error::NoSpace(format!("writing {path}: {error}")));
            }
            Err((error, _)) => return Err(self.fail(format!("writing {path} failed: {error}"))),
        };
        if let Err(error) = self.segment.sync() {
            return Err(self.fail(format!("syncing {path} failed: {error}")));
        }
        let mut table = self.table.write();
        for batch in batches {
            table.apply(self.number, payload, batch.items());
            payload += batch.bytes().len() as u64;
        }
        table.segments.get_mut(&self.number).expect("the segment being written is there").len = self.segment.len();
        drop(table);
        if self.segment.len() >= self.options.segment_bytes
            && let Err(error) = self.rotate()
        {
            // Nothing is lost: the segment grows on, and the next batch tries again.
            tracing::warn!(%error, "a new log segment could not be made");
        }
        Ok(())
    }

    /// Goes on in a new segment, if this one holds anything, so that [`Log::drop_before`] can remove it.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn rotate(&mut self) -> Result<(), Error> {
        if let Some(reason) = &self.broken {
            return Err(Error::Unavailable(reason.clone()));
        }
        let opening = opening(&self.table.read());
        if self.segment.len() <= (HEAD + FRAME_HEAD + opening.size()) as u64 {
            return Ok(());
        }
        // The old segment ends where its frames end, before there is a new one behind it.
        if let Err(error) = self.segment.finish() {
            return Err(self.fail(format!("closing {} failed: {error}", self.segment.path().display())));
        }
        match make_segment(&self.dir, &*self.disk, self.number + 1, &mut self.spares, &opening) {
            Ok(segment) => {
                self.number += 1;
                self.table.write().segments.insert(self.number, Segment::of(&segment));
                self.segment = segment;
                Ok(())
            }
            Err((error, false)) => Err(error),
            // The new segment may have its name, so nothing may follow in the old one.
            Err((error, true)) => Err(self.fail(error.to_string())),
        }
    }

    /// Removes the entries before `index`, as far as whole segments hold nothing else. They may be there again after a restart.
    ///
    /// # Errors
    /// [`Error::Io`]; what could not be removed is removed the next time.
    pub fn drop_before(&mut self, index: u64) -> Result<(), Error> {
        let gone: Vec<_> = {
            let mut table = self.table.write();
            let keep = table.drop_before(index);
            table.segments.range(..keep).map(|(&number, segment)| (number, segment.path.clone())).collect()
        };
        // The oldest first: what stays is without gaps whenever the power is cut.
        for (number, path) in gone {
            let spare = numbered(&self.dir, SPARE, number);
            if self.spares.len() < self.options.spare_segments {
                let renamed = self.disk.rename(&path, &spare);
                renamed.map_err(|error| Error::io(format!("renaming {}", path.display()), &error))?;
                self.spares.push(spare);
            } else {
                remove(&*self.disk, &path)?;
            }
            self.table.write().segments.remove(&number);
        }
        Ok(())
    }

    /// Gives back the space that was taken ahead. The log can still be written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.segment.finish()
    }

    /// Refuses everything from now on.
    fn fail(&mut self, reason: String) -> Error {
        let error = Error::Unavailable(reason.clone());
        self.broken = Some(reason);
        error
    }
}

/// What a segment begins with: the index of its first entry, and the state.
fn opening(table: &Table) -> LogBatch {
    let mut batch = LogBatch::default();
    batch.cut(table.next());
    if let Some(state) = &table.state {
        batch.state(state);
    }
    batch
}

/// Makes a segment behind those there. The second value of an error says whether it may be there all the same.
fn make_segment(
    dir: &Path,
    disk: &dyn Disk,
    number: u64,
    spares: &mut Vec<PathBuf>,
    opening: &LogBatch,
) -> Result<FrameWriter, (Error, bool)> {
    let path = numbered(dir, PREFIX, number);
    let io = |error: io::Error| Error::io(format!("making {}", path.display()), &error);
    let created = match spares.pop() {
        Some(spare) => FrameWriter::reuse(disk, &spare, &path, number),
        None => FrameWriter::create(disk, &path, number),
    };
    let mut segment = created.map_err(|error| (io(error), false))?;
    if let Err((error, _)) = segment.append(|out| out.extend(opening.bytes())) {
        segment.discard(disk);
        return Err((io(error), false));
    }
    if let Err(error) = segment.publish(disk) {
        let there = disk.open(&path).is_ok();
        return Err((io(error), there));
    }
    Ok(segment)
}

/// Takes up what a segment says.
fn replay(path: &Path, number: u64, frames: &frame::Frames, is_first: bool, table: &mut Table) -> Result<(), Error> {
    for (i, (offset, payload)) in frames.payloads.iter().enumerate() {
        let malformed = |error: crate::DecodeError| corrupt(path, *offset, error.0);
        let mut items = batch::items(payload).map_err(malformed)?;
        if i == 0 {
            match items.first_mut() {
                // The segments before it are gone with their entries.
                Some(item @ batch::Item::Cut(_)) if is_first => {
                    if let batch::Item::Cut(next) = *item {
                        *item = batch::Item::Reset(next);
                    }
                }
                Some(batch::Item::Cut(next)) if *next == table.next() => {}
                _ => return Err(corrupt(path, *offset, "it does not begin where the segment before it ends")),
            }
        }
        table.check_replayed(&items).map_err(malformed)?;
        table.apply(number, offset + FRAME_HEAD as u64, &items);
    }
    Ok(())
}
