//! The engine on files of its own: history as it comes, appended to segments, and its places in memory.
//!
//! ```text
//! append ─► pending ─► (1 MiB) ─► data-<id> and index-<id>, not synced
//!              │                          │
//!          get, scan ◄── slots: position → segment, offset: 16 bytes for each record
//!                                         │
//! persist: sync, rewrite segments that are mostly garbage ─► manifest ─► files of no more use go
//! ```
//! History only grows, so nothing is ever changed in place and a record is written once, and once more for each time
//! that its segment is mostly garbage. What the manifest says is whole: the records up to its revision, in files that were synced before
//! it got its name. What lies behind is made again from the store's log, so a start ignores it. A start reads the
//! indexes, not the values. What was read lately is in memory too, within bounds (`recent.rs`).

mod manifest;
mod recent;
mod segment;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::{
    manifest::Manifest,
    recent::Recent,
    segment::{DATA, Entry, Extent, Files, INDEX, Place, RECORD_HEAD, Segment},
};
use super::{Engine, EngineError, Record};
use crate::{
    Disk, Error, Position, Revision,
    disk::{numbered, numbers, remove_quietly, remove_temporary},
};

/// Records that are looked up in one go where there are many, and the bytes that are read in one go.
const SCAN: usize = 256;
const SCAN_BYTES: u64 = 256 << 10;
/// Consecutive small segments from which on they are made one.
const MERGE: usize = 4;

/// How a [`SegmentEngine`] uses the disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SegmentOptions {
    /// The size in bytes from which on history goes on in a new segment. At most 2 GiB.
    pub segment_bytes: u64,
    /// Bytes of records that are held in memory before they are written to files.
    pub pending_bytes: usize,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, pending_bytes: 1 << 20 }
    }
}

/// An engine that keeps values on disk. In memory are 16 bytes of each record and, once some were read one by one, the small ones read
/// lately, up to 32 MiB of them. It [persists](Engine::persist). See the module's
/// description.
#[derive(Debug)]
pub struct SegmentEngine {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    options: SegmentOptions,
    state: RwLock<State>,
    /// The files of the segment that is being written, once it has any. Whoever holds this may write records.
    files: Mutex<Option<(u64, Files)>>,
    /// What is on disk. Whoever holds this may change it.
    kept: Mutex<Kept>,
    recent: Recent,
}

#[derive(Debug)]
struct State {
    /// In order. The last one is being written.
    segments: Vec<Segment>,
    /// The last records of the last segment, which are not written yet.
    pending: VecDeque<Record>,
    pending_bytes: usize,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Kept {
    manifest: Option<Manifest>,
    manifest_bytes: u64,
    /// Segments whose files go with the next manifest.
    retired: Vec<u64>,
}

fn failed(error: &Error) -> EngineError {
    match error {
        Error::NoSpace(reason) => EngineError::NoSpace(reason.clone()),
        Error::Corrupt { file, offset, reason } => {
            EngineError::Corrupt { file: file.clone(), offset: *offset, reason: reason.clone() }
        }
        error => EngineError::Failed(error.to_string()),
    }
}

impl State {
    fn empty(next_id: u64) -> Self {
        Self { segments: vec![Segment::new(next_id)], pending: VecDeque::new(), pending_bytes: 0, next_id: next_id + 1 }
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("one segment is being written")
    }

    fn begin_segment(&mut self) {
        self.active().shrink();
        self.segments.push(Segment::new(self.next_id));
        self.next_id += 1;
    }

    /// The segment and slot of a record that was not removed.
    fn find(&self, at: Position) -> Option<(usize, usize)> {
        let segment = self.segments.partition_point(|segment| segment.first() <= at).checked_sub(1)?;
        let slot = self.segments[segment].find(at)?;
        (!self.segments[segment].is_dead(slot)).then_some((segment, slot))
    }

    fn place(&self, segment: usize, slot: usize) -> Place {
        let segment = &self.segments[segment];
        match slot.checked_sub(segment.written) {
            Some(pending) => Place::Here(self.pending[pending].bytes.clone()),
            None => segment.place(slot),
        }
    }

    /// The places of up to [`SCAN`] records of a range, and where to go on.
    fn places(&self, from: Position, end: Position) -> (Vec<(Position, Place)>, Option<Position>) {
        let mut places = Vec::new();
        let begin = self.segments.partition_point(|segment| segment.first() <= from).saturating_sub(1);
        for (i, segment) in self.segments.iter().enumerate().skip(begin) {
            if segment.first() >= end {
                break;
            }
            for slot in segment.range(from, end) {
                if segment.is_dead(slot) {
                    continue;
                }
                if places.len() == SCAN {
                    return (places, Some(segment.position(slot)));
                }
                places.push((segment.position(slot), self.place(i, slot)));
            }
        }
        (places, None)
    }
}

/// Calls `visit` with these records until it returns `false`; whether it never did.
fn load_all(
    places: Vec<(Position, Place)>,
    visit: &mut dyn FnMut(Position, &Bytes) -> bool,
) -> Result<bool, EngineError> {
    let mut places = places.into_iter().peekable();
    while let Some((at, place)) = places.next() {
        let Place::There { file, path, offset, len } = place else {
            if !visit(at, &place.load(at)?) {
                return Ok(false);
            }
            continue;
        };
        // Records that lie behind one another are read at once.
        let mut together = vec![(at, offset, len)];
        let mut read_to = offset + (RECORD_HEAD + len) as u64;
        while let Some((at, Place::There { path: other, offset: next, len, .. })) = places.peek()
            && Arc::ptr_eq(other, &path)
            && *next == read_to
            && read_to - offset < SCAN_BYTES
        {
            together.push((*at, *next, *len));
            read_to += (RECORD_HEAD + len) as u64;
            places.next();
        }
        let whole = Place::There { file, path: path.clone(), offset, len: 0 };
        let bytes = whole.read((read_to - offset) as usize)?;
        for (at, begin, len) in together {
            let begins = (begin - offset) as usize;
            let record = bytes.slice(begins..begins + RECORD_HEAD + len);
            if !visit(at, &segment::check(&path, begin, at, record)?) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

impl SegmentEngine {
    /// Opens the engine in a folder of its own, made if it is missing. What was not persisted is not there any more.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and offset, [`Error::NoSpace`], [`Error::Io`].
    pub fn open(dir: &Path, disk: Arc<dyn Disk>, options: SegmentOptions) -> Result<Self, Error> {
        let io = |error: std::io::Error| Error::io(format!("making {}", dir.display()), &error);
        disk.make_dir(dir).and_then(|()| dir.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))).map_err(io)?;
        remove_temporary(&*disk, dir)?;
        let manifest = Manifest::read(&*disk, dir)?;
        let (manifest, manifest_bytes) = manifest.map_or((None, 0), |(manifest, bytes)| (Some(manifest), bytes));
        let extents = manifest.as_ref().map_or(&[][..], |manifest| &manifest.segments[..]);
        let mut segments = Vec::new();
        for extent in extents {
            let segment = segment::open(&*disk, dir, extent)?;
            if segments.last().and_then(Segment::last).is_some_and(|last| last >= segment.first()) {
                let file = numbered(dir, INDEX, extent.id).display().to_string();
                return Err(Error::Corrupt { file, offset: 0, reason: "it overlaps the segment before it".into() });
            }
            segments.push(segment);
        }
        let mut next_id = 1;
        for prefix in [DATA, INDEX] {
            for id in numbers(&*disk, dir, prefix)? {
                next_id = next_id.max(id + 1);
                if extents.iter().all(|extent| extent.id != id) {
                    remove_quietly(&*disk, &numbered(dir, prefix, id));
                }
            }
        }
        let mut state = State::empty(next_id);
        segments.append(&mut state.segments);
        state.segments = segments;
        let kept = Kept { manifest, manifest_bytes, retired: Vec::new() };
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            options,
            state: RwLock::new(state),
            files: Mutex::new(None),
            kept: Mutex::new(kept),
            recent: Recent::default(),
        })
    }

    /// Writes what is pending to the files, without a sync.
    fn flush(&self) -> Result<(), EngineError> {
        let mut files = self.files.lock();
        let (id, at, records) = {
            let state = self.state.read();
            let active = state.segments.last().expect("one segment is being written");
            (active.id, active.data_len, state.pending.iter().cloned().collect::<Vec<_>>())
        };
        if records.is_empty() {
            return Ok(());
        }
        let files = match &mut *files {
            Some((of, files)) if *of == id => files,
            other => {
                let made = Files::create(&*self.disk, &self.dir, id).map_err(|error| failed(&error))?;
                &mut other.insert((id, made)).1
            }
        };
        files.write(at, records.iter()).map_err(|error| failed(&error))?;
        let mut state = self.state.write();
        let written = state.active().written + records.len();
        state.active().wrote(files, written);
        state.pending.drain(..records.len());
        state.pending_bytes -= records.iter().map(|record| record.bytes.len()).sum::<usize>();
        Ok(())
    }

    /// Goes on in a new segment if this one has `bytes` bytes, all of them written.
    fn rotate(&self, bytes: u64) {
        let _files = self.files.lock();
        let mut state = self.state.write();
        if state.pending.is_empty() && state.active().end() >= bytes {
            state.begin_segment();
        }
    }

    /// Runs of segments to be rewritten, as indexes into `segments`: those that are mostly garbage, or many small ones.
    fn victims(&self, segments: &[Segment], revision: Revision, thorough: bool) -> Vec<std::ops::Range<usize>> {
        let sealed = segments.len() - 1;
        let is_candidate = |segment: &Segment| {
            let garbage = segment.end().saturating_sub(segment.live_bytes + (segment.len() * RECORD_HEAD) as u64);
            let wasteful = if thorough { segment.dead_count() > 0 } else { garbage * 2 > segment.end() };
            wasteful || segment.dead_count() == segment.len()
        };
        let is_small = |segment: &Segment| segment.end() * 4 < self.options.segment_bytes;
        let is_past = |segment: &Segment| segment.last().is_none_or(|last| last.revision <= revision);
        let (mut runs, mut i) = (Vec::new(), 0);
        while i < sealed {
            let run = segments[i..sealed].iter().take_while(|s| is_past(s) && (is_candidate(s) || is_small(s))).count();
            let any = segments[i..i + run].iter().any(is_candidate);
            if any || run >= MERGE {
                runs.push(i..i + run);
            }
            i += run.max(1);
        }
        runs
    }

    /// Writes what is left of a run of segments into new ones, and syncs those.
    fn rewrite(&self, run: &[(Extent, Option<Place>)], ids: &mut Vec<u64>) -> Result<Vec<Segment>, EngineError> {
        let mut made = Vec::new();
        let mut rewriting = Rewriting { engine: self, ids, segment: None, batch: Vec::new(), batch_bytes: 0 };
        for (extent, first) in run {
            let Some(Place::There { file, path, .. }) = first else { continue };
            for (i, entry) in segment::entries(&*self.disk, &self.dir, extent)?.into_iter().enumerate() {
                if extent.is_dead(i) {
                    continue;
                }
                let Entry { at, offset, len, head } = entry;
                let bytes = Place::There { file: file.clone(), path: path.clone(), offset, len }.load(at)?;
                rewriting.push(Record { at, bytes, head: head.len() }, &mut made)?;
            }
        }
        rewriting.finish(&mut made)?;
        Ok(made)
    }

    fn new_id(&self) -> u64 {
        let mut state = self.state.write();
        state.next_id += 1;
        state.next_id - 1
    }

    fn remove_files(&self, ids: &[u64]) {
        for id in ids {
            for prefix in [DATA, INDEX] {
                remove_quietly(&*self.disk, &numbered(&self.dir, prefix, *id));
            }
        }
    }
}

/// New segments being filled with the records of old ones.
struct Rewriting<'a> {
    engine: &'a SegmentEngine,
    /// Those that were begun.
    ids: &'a mut Vec<u64>,
    segment: Option<(Segment, Files)>,
    batch: Vec<Record>,
    batch_bytes: usize,
}

impl Rewriting<'_> {
    fn push(&mut self, record: Record, made: &mut Vec<Segment>) -> Result<(), EngineError> {
        let is_full = |(segment, _): &(Segment, Files)| {
            segment.end() >= self.engine.options.segment_bytes || !segment.takes(record.at, record.bytes.len())
        };
        if self.segment.as_ref().is_some_and(is_full) {
            self.finish(made)?;
        }
        let (segment, _) = match &mut self.segment {
            Some(segment) => segment,
            none => {
                let id = self.engine.new_id();
                self.ids.push(id);
                let files = Files::create(&*self.engine.disk, &self.engine.dir, id).map_err(|error| failed(&error))?;
                none.insert((Segment::new(id), files))
            }
        };
        segment.push(record.at, record.bytes.len());
        self.batch_bytes += record.bytes.len();
        self.batch.push(record);
        if self.batch_bytes >= self.engine.options.pending_bytes { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), EngineError> {
        if let Some((segment, files)) = &mut self.segment {
            files.write(segment.data_len, self.batch.iter()).map_err(|error| failed(&error))?;
            segment.wrote(files, segment.len());
        }
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    fn finish(&mut self, made: &mut Vec<Segment>) -> Result<(), EngineError> {
        self.write()?;
        if let Some((mut segment, _)) = self.segment.take() {
            segment.shrink();
            made.push(segment);
        }
        Ok(())
    }
}

impl Engine for SegmentEngine {
    fn get(&self, at: Position) -> Result<Option<Bytes>, EngineError> {
        let (segment, place) = {
            let state = self.state.read();
            let Some((segment, slot)) = state.find(at) else { return Ok(None) };
            let id = state.segments[segment].id;
            if let Some(bytes) = self.recent.get(id, at) {
                return Ok(Some(bytes));
            }
            (id, state.place(segment, slot))
        };
        let from_file = matches!(place, Place::There { .. });
        // A file that is removed meanwhile can still be read by who has it open.
        let bytes = place.load(at)?;
        if from_file {
            self.recent.hold(segment, at, &bytes);
        }
        Ok(Some(bytes))
    }

    fn get_many(
        &self,
        places: &[Position],
        visit: &mut dyn FnMut(Position, &Bytes) -> bool,
    ) -> Result<bool, EngineError> {
        for some in places.chunks(SCAN) {
            let found: Vec<_> = {
                let state = self.state.read();
                let place = |at: &Position| state.find(*at).map(|(segment, slot)| (*at, state.place(segment, slot)));
                some.iter().map_while(place).collect()
            };
            let all = found.len() == some.len();
            if !load_all(found, visit)? || !all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn scan(
        &self,
        mut from: Position,
        end: Position,
        visit: &mut dyn FnMut(Position, &Bytes) -> bool,
    ) -> Result<(), EngineError> {
        while from < end {
            let (places, next) = self.state.read().places(from, end);
            if !load_all(places, visit)? {
                return Ok(());
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(())
    }

    fn append(&self, records: Vec<Record>) -> Result<(), EngineError> {
        let mut state = self.state.write();
        for record in records {
            if state.segments.iter().rev().find_map(Segment::last).is_some_and(|last| last >= record.at) {
                return Err(EngineError::Failed("a record does not follow those before it".into()));
            }
            if !state.active().takes(record.at, record.bytes.len()) {
                // Only if gigabytes come without a call of `make_room`.
                drop(state);
                self.flush()?;
                self.rotate(0);
                state = self.state.write();
            }
            state.active().push(record.at, record.bytes.len());
            state.pending_bytes += record.bytes.len();
            state.pending.push_back(record);
        }
        Ok(())
    }

    fn remove(&self, positions: &[Position]) -> Result<(), EngineError> {
        let mut state = self.state.write();
        for at in positions {
            if let Some((segment, slot)) = state.find(*at) {
                state.segments[segment].kill(slot);
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        let mut kept = self.kept.lock();
        let _files = self.files.lock();
        let mut state = self.state.write();
        kept.retired.extend(state.segments.iter().map(|segment| segment.id));
        *state = State::empty(state.next_id);
        Ok(())
    }

    fn disk_size(&self) -> u64 {
        let files: u64 = self.state.read().segments.iter().map(|segment| segment.data_len + segment.index_len).sum();
        files + self.kept.try_lock().map_or(0, |kept| kept.manifest_bytes)
    }

    fn size_in_use(&self) -> u64 {
        self.state.read().segments.iter().map(|segment| segment.live_bytes).sum()
    }

    fn make_room(&self) -> Result<(), EngineError> {
        if self.state.read().pending_bytes >= self.options.pending_bytes {
            self.flush()?;
            self.rotate(self.options.segment_bytes);
        }
        Ok(())
    }

    fn persists(&self) -> bool {
        true
    }

    fn persist(&self, revision: Revision, note: &[u8], thorough: bool) -> Result<(), EngineError> {
        let mut made = Vec::new();
        let persisted = self.write_all(revision, note, thorough, &mut made);
        if persisted.is_err() {
            // They only take space away.
            self.remove_files(&made);
        }
        persisted
    }

    fn persisted(&self) -> Result<Option<Bytes>, EngineError> {
        Ok(self.kept.lock().manifest.as_ref().map(|manifest| manifest.note.clone()))
    }

    fn heads(&self, visit: &mut dyn FnMut(Position, Bytes) -> Result<(), EngineError>) -> Result<(), EngineError> {
        let kept = self.kept.lock();
        for extent in kept.manifest.iter().flat_map(|manifest| &manifest.segments) {
            for (i, entry) in segment::entries(&*self.disk, &self.dir, extent)?.into_iter().enumerate() {
                if !extent.is_dead(i) {
                    visit(entry.at, entry.head)?;
                }
            }
        }
        Ok(())
    }
}

impl SegmentEngine {
    /// Persists; the numbers of the segments that were begun for it are in `ids`.
    fn write_all(
        &self,
        revision: Revision,
        note: &[u8],
        thorough: bool,
        ids: &mut Vec<u64>,
    ) -> Result<(), EngineError> {
        let mut kept = self.kept.lock();
        self.flush()?;
        if thorough {
            self.rotate(1);
        }
        let (extents, runs) = {
            let state = self.state.read();
            let extents: Vec<_> = state.segments.iter().map(|segment| segment.extent(revision)).collect();
            (extents, self.victims(&state.segments, revision, thorough))
        };
        let mut made = Vec::new();
        for run in &runs {
            let old: Vec<_> = {
                let state = self.state.read();
                let place = |i: usize| (state.segments[i].written > 0).then(|| state.segments[i].place(0));
                run.clone().map(|i| (extents[i].clone(), place(i))).collect()
            };
            made.push(self.rewrite(&old, ids)?);
        }
        let unsynced: Vec<_> = {
            let state = self.state.read();
            let in_run = |i: &usize| runs.iter().any(|run| run.contains(i));
            let old = (0..extents.len()).filter(|i| !in_run(i)).map(|i| &state.segments[i]);
            old.chain(made.iter().flatten()).filter_map(Segment::unsynced).flatten().collect()
        };
        for file in unsynced {
            file.sync().map_err(|error| EngineError::Failed(format!("syncing {}: {error}", self.dir.display())))?;
        }
        let mut segments = Vec::new();
        for (i, extent) in extents.iter().enumerate() {
            match runs.iter().position(|run| run.contains(&i)) {
                Some(run) if runs[run].start == i => segments.extend(made[run].iter().map(|s| s.extent(revision))),
                Some(_) => {}
                None if extent.count > 0 => segments.push(extent.clone()),
                None => {}
            }
        }
        let manifest = Manifest { revision, note: Bytes::copy_from_slice(note), segments };
        kept.manifest_bytes = manifest.write(&*self.disk, &self.dir).map_err(|error| failed(&error))?;
        kept.manifest = Some(manifest);
        let mut gone = std::mem::take(&mut kept.retired);
        let mut state = self.state.write();
        for (segment, extent) in state.segments.iter_mut().zip(&extents) {
            segment.synced = (extent.data_len, extent.index_len);
        }
        // The last run first, so that indexes stay right.
        for (run, mut new) in runs.into_iter().zip(made).rev() {
            for segment in &mut new {
                segment.synced = (segment.data_len, segment.index_len);
            }
            for (old, extent) in state.segments[run.clone()].iter().zip(&extents[run.clone()]) {
                // Removed while the rest was written elsewhere.
                for i in (0..old.len()).filter(|i| old.is_dead(*i) && !extent.is_dead(*i)) {
                    let at = old.position(i);
                    if let Some((segment, slot)) = new.iter_mut().find_map(|s| s.find(at).map(|slot| (s, slot))) {
                        segment.kill(slot);
                    }
                }
                gone.push(old.id);
            }
            state.segments.splice(run, new);
        }
        drop(state);
        self.remove_files(&gone);
        Ok(())
    }
}
