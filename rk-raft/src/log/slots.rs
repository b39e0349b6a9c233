//! The states in a member's folder.
//!
//! An engine that persists keeps the state itself, with the point as its note. For others a state is written as records, into the
//! slot that does not hold the newest one; the note of the raft log then changes over. A state from elsewhere is always written as
//! records first, so that it is checked as a whole before an engine is filled with it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use raft::eraftpb::HardState;
use rk_store::{
    Disk, Engine, Error, Machine, Position, Replica, SnapshotGuard, SnapshotHead,
    log::{Log, LogBatch, LogOptions},
};
use tokio::sync::OwnedMutexGuard;

use super::{
    Checkpoints, Incoming, Point, Staged,
    disk::{Core, Identity, MemberDir, on_disk},
};
use crate::codec::{put_bytes, take_bytes};

const NAMES: [&str; 2] = ["a", "b"];
/// Bytes of records in a chunk, about.
const CHUNK_BYTES: usize = 256 << 10;

/// What is known of the slots while the folder is open.
#[derive(Clone, Default)]
pub(super) struct Slots {
    shared: Arc<Mutex<Shared>>,
    /// Held while a slot is written.
    writing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Shared {
    /// Whose engine is in use, and whether it persists.
    engine: Option<u8>,
    persists: bool,
    /// A state from elsewhere that the next reset of the log goes on from. Until then nobody else writes a slot.
    published: Option<(u8, OwnedMutexGuard<()>)>,
    /// Bytes of the newest state, as records.
    size: u64,
}

impl Slots {
    /// The slot of a state that is to be the newest one, with what keeps others from writing it.
    pub(super) fn take_published(&self) -> Option<(u8, OwnedMutexGuard<()>)> {
        self.shared.lock().published.take()
    }

    /// Makes the engine of a slot the one in use.
    pub(super) fn use_engine(&self, core: &Core, slot: u8) -> Result<Arc<dyn Engine>, Error> {
        let engine = engine(core, slot)?;
        let mut shared = self.shared.lock();
        (shared.engine, shared.persists) = (Some(slot), engine.persists());
        Ok(engine)
    }
}

fn engine_dir(core: &Core, slot: u8) -> PathBuf {
    core.dir.join(format!("engine-{}", NAMES[usize::from(slot)]))
}

/// Removes all files of a folder, made if it is missing.
fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    make_dir(disk, dir)?;
    let io = |error: std::io::Error| Error::io(format!("clearing {}", dir.display()), &error);
    for name in disk.list(dir).map_err(io)? {
        disk.remove(&dir.join(name)).map_err(io)?;
    }
    disk.sync_dir(dir).map_err(io)
}

fn engine(core: &Core, slot: u8) -> Result<Arc<dyn Engine>, Error> {
    let dir = engine_dir(core, slot);
    make_dir(&*core.options.disk, &dir)?;
    (core.options.engine)(&dir, &core.options.disk)
}

pub(super) fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let made = disk.make_dir(dir).and_then(|()| dir.parent().map_or(Ok(()), |parent| disk.sync_dir(parent)));
    made.map_err(|error| Error::io(format!("making {}", dir.display()), &error))
}

fn other(slot: Option<u8>) -> u8 {
    slot.map_or(0, |slot| 1 - slot)
}

fn corrupt(dir: &Path, reason: &str) -> Error {
    Error::Corrupt { file: dir.display().to_string(), offset: 0, reason: reason.into() }
}

/// A state being written as records.
struct Records {
    log: Log,
    next: u64,
    count: u64,
}

impl Records {
    fn dir(core: &Core, slot: u8) -> PathBuf {
        core.dir.join(format!("state-{}", NAMES[usize::from(slot)]))
    }

    /// Begins in a slot, whose old records go.
    fn begin(core: &Core, slot: u8) -> Result<Self, Error> {
        let dir = Self::dir(core, slot);
        Self::clear(core, slot)?;
        let mut options = LogOptions::default();
        options.spare_segments = 0;
        let log = Log::open(&dir, core.options.disk.clone(), options)?;
        Ok(Self { log, next: 1, count: 0 })
    }

    fn clear(core: &Core, slot: u8) -> Result<(), Error> {
        clear(&*core.options.disk, &Self::dir(core, slot))
    }

    fn push(&mut self, records: &[(Bytes, Bytes)]) -> Result<(), Error> {
        let mut batch = LogBatch::default();
        batch.entry(self.next, |out| {
            for (key, record) in records {
                put_bytes(out, key);
                put_bytes(out, record);
            }
        });
        self.log.append(&[batch])?;
        self.next += 1;
        self.count += records.len() as u64;
        Ok(())
    }

    /// Says which state it is, now that all of it is there. The bytes it takes.
    fn end(mut self, point: &Point, head: &SnapshotHead) -> Result<u64, Error> {
        let (mut state, mut bytes) = (Vec::new(), Vec::new());
        state.put_u64(self.count);
        point.encode(&mut bytes);
        put_bytes(&mut state, &bytes);
        head.encode(&mut state);
        let mut batch = LogBatch::default();
        batch.state(&state);
        self.log.append(&[batch])?;
        let finished = self.log.finish();
        finished.map_err(|error| Error::io(format!("writing {}", self.log.dir().display()), &error))?;
        Ok(self.log.reader().size())
    }

    /// A machine with the state in a slot.
    fn restore(core: &Core, slot: u8, engine: Arc<dyn Engine>) -> Result<(Point, Machine, u64), Error> {
        let dir = Self::dir(core, slot);
        let log = Log::open(&dir, core.options.disk.clone(), LogOptions::default())?;
        let reader = log.reader();
        let malformed = || corrupt(&dir, "it does not hold a whole state");
        let mut state = reader.state().ok_or_else(malformed)?;
        if state.len() < 8 {
            return Err(malformed());
        }
        let count = bytes::Buf::get_u64(&mut state);
        let point = take_bytes(&mut state).and_then(|mut bytes| Point::decode(&mut bytes)).ok_or_else(malformed)?;
        let head = SnapshotHead::decode(state)?;
        let mut found = 0;
        let chunks = (reader.first()..reader.next()).map(|index| {
            let chunk = reader.entries(index..index + 1, usize::MAX)?.pop().ok_or_else(malformed)?;
            records(chunk).ok_or_else(malformed)
        });
        let pairs = chunks.flat_map(|chunk| match chunk {
            Ok(records) => records.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        });
        let machine = Machine::restore(engine, &head, pairs.inspect(|_| found += 1))?;
        if found != count {
            return Err(malformed());
        }
        Ok((point, machine, reader.size()))
    }
}

fn records(mut chunk: Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let mut records = Vec::new();
    while !chunk.is_empty() {
        // Copied, so that a record that outlives the others does not keep the whole chunk in memory.
        let (key, record) = (take_bytes(&mut chunk)?, take_bytes(&mut chunk)?);
        records.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&record)));
    }
    Some(records)
}

fn note(point: &Point) -> Vec<u8> {
    let mut note = Vec::new();
    point.encode(&mut note);
    note
}

impl MemberDir {
    /// Makes a state durable; with `anew` also who the member is, and the log empty behind that entry.
    pub(super) async fn save_state(
        &self,
        point: Point,
        state: SnapshotGuard,
        thorough: bool,
        anew: Option<(Identity, HardState, u64)>,
    ) -> Result<(), Error> {
        let busy = |_| Error::Unavailable("another state is being written".into());
        let writing = self.slots.writing.clone().try_lock_owned().map_err(busy)?;
        let this = self.clone();
        let (slot, writing) = on_disk(&self.core.options.disk, move || {
            let (engine, persists) = {
                let shared = this.slots.shared.lock();
                (shared.engine, shared.persists)
            };
            if persists {
                state.persist(&note(&point), thorough)?;
                return Ok((engine, writing));
            }
            let slot = other(this.core.note.lock().slot);
            let mut records = Records::begin(&this.core, slot)?;
            let mut from = Some(Position::first(0));
            while let Some(position) = from {
                let chunk = state.records(position, CHUNK_BYTES)?;
                records.push(&chunk.pairs)?;
                from = chunk.next;
            }
            let size = records.end(&point, state.head())?;
            this.slots.shared.lock().size = size;
            Ok((Some(slot), writing))
        })
        .await?;
        let old = self.core.note.lock().slot;
        let mut batch = LogBatch::default();
        if let Some((.., index)) = &anew {
            batch.reset(index + 1);
        }
        if old != slot || anew.is_some() {
            self.submit(batch, |note| {
                note.slot = slot;
                if let Some((identity, vote, _)) = anew {
                    (note.identity, note.vote) = (identity, vote);
                }
            })
            .await?;
        }
        // The records of the state before it are of no more use.
        let this = self.clone();
        on_disk(&self.core.options.disk, move || {
            let _writing = writing;
            let slot = other(this.core.note.lock().slot);
            Records::clear(&this.core, slot)
        })
        .await
    }
}

#[async_trait]
impl Checkpoints for MemberDir {
    async fn load(&self) -> Result<Option<(Point, Machine)>, Error> {
        let Some(slot) = self.core.note.lock().slot else { return Ok(None) };
        let this = self.clone();
        on_disk(&self.core.options.disk, move || {
            // What the engine before a state from elsewhere has left.
            let disk = &*this.core.options.disk;
            clear(disk, &engine_dir(&this.core, other(Some(slot))))?;
            let engine = this.slots.use_engine(&this.core, slot)?;
            if engine.persists() {
                let lost = || corrupt(&this.core.dir, "its engine holds no state");
                let (machine, mut note) = Machine::recover(engine)?.ok_or_else(lost)?;
                return Ok(Some((Point::decode(&mut note).ok_or_else(lost)?, machine)));
            }
            let (point, machine, size) = Records::restore(&this.core, slot, engine)?;
            this.slots.shared.lock().size = size;
            Ok(Some((point, machine)))
        })
        .await
    }

    async fn empty(&self) -> Result<Machine, Error> {
        Machine::new(self.first_engine().await?)
    }

    async fn save(&self, point: Point, state: SnapshotGuard, thorough: bool) -> Result<(), Error> {
        self.save_state(point, state, thorough, None).await
    }

    async fn receive(&self, point: Point, head: SnapshotHead) -> Result<Box<dyn Incoming>, Error> {
        let writing = self.slots.writing.clone().lock_owned().await;
        let this = self.clone();
        let slot = other(self.core.note.lock().slot);
        let records = on_disk(&self.core.options.disk, move || Records::begin(&this.core, slot)).await?;
        let engine_slot = other(self.slots.shared.lock().engine);
        let dir = self.clone();
        Ok(Box::new(Pending { dir, slot, engine_slot, size: 0, point, head, records: Some(records), writing }))
    }

    fn size(&self) -> u64 {
        self.slots.shared.lock().size
    }
}

/// A state from elsewhere.
struct Pending {
    dir: MemberDir,
    /// Where its records are; in the end where the state is.
    slot: u8,
    /// The engine that is to hold it.
    engine_slot: u8,
    size: u64,
    point: Point,
    head: SnapshotHead,
    records: Option<Records>,
    writing: OwnedMutexGuard<()>,
}

#[async_trait]
impl Incoming for Pending {
    async fn push(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), Error> {
        let Some(mut records) = self.records.take() else {
            return Err(Error::Unavailable("an earlier part of the state could not be written".into()));
        };
        let pushed = on_disk(&self.dir.core.options.disk, move || records.push(&pairs).map(|()| records));
        self.records = Some(pushed.await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(Machine, Box<dyn Staged>), Error> {
        let Some(records) = self.records.take() else {
            return Err(Error::Unavailable("a part of the state could not be written".into()));
        };
        let (dir, slot, point, head) = (self.dir.clone(), self.slot, self.point.clone(), self.head.clone());
        let engine_slot = self.engine_slot;
        let (machine, size) = on_disk(&self.dir.core.options.disk, move || {
            records.end(&point, &head)?;
            let engine = engine(&dir.core, engine_slot)?;
            let (_, machine, size) = Records::restore(&dir.core, slot, engine.clone())?;
            if !engine.persists() {
                return Ok((machine, size));
            }
            Replica::new(machine, 1).snapshot().persist(&note(&point), false)?;
            let lost = || corrupt(&dir.core.dir, "its engine has not kept a state");
            Ok((Machine::recover(engine)?.ok_or_else(lost)?.0, 0))
        })
        .await?;
        self.size = size;
        if machine.engine().persists() {
            self.slot = engine_slot;
        }
        Ok((machine, self))
    }
}

#[async_trait]
impl Staged for Pending {
    async fn publish(self: Box<Self>) -> Result<(), Error> {
        let mut shared = self.dir.slots.shared.lock();
        shared.engine = Some(self.engine_slot);
        shared.size = self.size;
        shared.published = Some((self.slot, self.writing));
        Ok(())
    }
}
