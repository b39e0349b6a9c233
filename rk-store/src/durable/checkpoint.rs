//! Checkpoints: the whole state before the command of some number. An engine that persists is told to, with the number as its
//! note; for the others there are files `checkpoint-<next>`.
//!
//! In such a file the first frame holds the head, those in between records, the last one their count. A checkpoint gets its
//! name when it is whole and synced, so one that lacks its end was damaged.

use std::{path::Path, sync::Arc};

use bytes::{BufMut, Bytes};

use crate::{
    Engine, Error, Machine, Position, SnapshotGuard, SnapshotHead,
    codec::{Reader, put_bytes},
    disk::{Disk, numbered, numbers, remove},
    log::frame::{self, FrameWriter, Frames},
};

const PREFIX: &str = "checkpoint-";
const HEAD: u8 = 0;
const RECORDS: u8 = 1;
const END: u8 = 2;
/// Bytes of records in a frame, about.
const FRAME_BYTES: usize = 256 << 10;

/// Writes the checkpoint of a snapshot taken before command `next`, and removes older ones. The bytes it takes.
pub(crate) fn write(dir: &Path, disk: &dyn Disk, next: u64, snapshot: &SnapshotGuard) -> Result<u64, Error> {
    let path = numbered(dir, PREFIX, next);
    let io = |error: std::io::Error| Error::io(format!("writing {}", path.display()), &error);
    let mut file = FrameWriter::create(disk, &path, next).map_err(io)?;
    if let Err(error) = fill(&mut file, snapshot, &io).and_then(|()| file.finish().map_err(io)) {
        file.discard(disk);
        return Err(error);
    }
    file.publish(disk).map_err(io)?;
    remove_before(dir, disk, next)?;
    Ok(file.len())
}

fn remove_before(dir: &Path, disk: &dyn Disk, next: u64) -> Result<(), Error> {
    for older in numbers(disk, dir, PREFIX)?.into_iter().filter(|&older| older < next) {
        remove(disk, &numbered(dir, PREFIX, older))?;
    }
    Ok(())
}

/// Has the engine persist a snapshot taken before command `next`. The bytes that this takes besides the engine's.
pub(crate) fn persist(
    dir: &Path,
    disk: &dyn Disk,
    next: u64,
    snapshot: &SnapshotGuard,
    thorough: bool,
) -> Result<u64, Error> {
    snapshot.persist(&next.to_le_bytes(), thorough)?;
    remove_before(dir, disk, u64::MAX)?;
    Ok(0)
}

/// Has the engine persist a snapshot as the state before the first command.
pub(crate) fn note_first(snapshot: &SnapshotGuard) -> Result<(), Error> {
    snapshot.persist(&1u64.to_le_bytes(), false)
}

fn fill(file: &mut FrameWriter, snapshot: &SnapshotGuard, io: &impl Fn(std::io::Error) -> Error) -> Result<(), Error> {
    let mut append = |fill: &dyn Fn(&mut Vec<u8>)| file.append(fill).map(drop).map_err(|(error, _)| io(error));
    append(&|out| {
        out.put_u8(HEAD);
        snapshot.head().encode(out);
    })?;
    let (mut count, mut from) = (0, Some(Position::first(0)));
    while let Some(position) = from {
        let chunk = snapshot.records(position, FRAME_BYTES)?;
        append(&|out| {
            out.put_u8(RECORDS);
            for (key, record) in &chunk.pairs {
                put_bytes(out, key);
                put_bytes(out, record);
            }
        })?;
        count += chunk.pairs.len() as u64;
        from = chunk.next;
    }
    append(&|out| {
        out.put_u8(END);
        out.put_u64_le(count);
    })
}

/// The state of the newest checkpoint and its size in bytes, and the number of the command that comes next.
pub(crate) fn load(dir: &Path, disk: &dyn Disk, engine: Arc<dyn Engine>) -> Result<(Machine, u64, u64), Error> {
    let file = numbers(disk, dir, PREFIX)?.pop();
    if let Some((machine, note)) = Machine::recover(engine.clone())? {
        let next = Reader::new(note).u64()?;
        // A file is there beside it if the store had another engine for a while.
        if file.is_none_or(|file| file < next) {
            return Ok((machine, next, 0));
        }
    }
    let Some(next) = file else { return Ok((Machine::new(engine)?, 1, 0)) };
    let path = numbered(dir, PREFIX, next);
    let frames = frame::read(disk, &path)?;
    let machine = restore(engine, &frames, next).map_err(|error| match error {
        Error::Corrupt { offset, reason, .. } => Error::Corrupt { file: path.display().to_string(), offset, reason },
        error => error,
    })?;
    Ok((machine, next, frames.end))
}

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::Corrupt { file: String::new(), offset, reason: reason.into() }
}

fn restore(engine: Arc<dyn Engine>, frames: &Frames, next: u64) -> Result<Machine, Error> {
    if frames.number != next {
        return Err(corrupt(8, "its head does not say what its name says"));
    }
    if let Some(reason) = frames.torn {
        return Err(corrupt(frames.end, reason));
    }
    let [(head_at, head), records @ .., (end_at, end)] = &frames.payloads[..] else {
        return Err(corrupt(frames.end, "its end is missing"));
    };
    let part = |offset: u64, payload: &Bytes, kind: u8| {
        let mut reader = Reader::new(payload.clone());
        match reader.u8() {
            Ok(found) if found == kind => Ok(reader),
            _ => Err(corrupt(offset, "a frame is not of the kind that belongs here")),
        }
    };
    let malformed = |offset: u64| move |error: crate::DecodeError| corrupt(offset, error.to_string());
    let head = SnapshotHead::decode(part(*head_at, head, HEAD)?.rest()).map_err(malformed(*head_at))?;
    let wanted = part(*end_at, end, END)?.u64().map_err(malformed(*end_at))?;
    let mut pairs = Vec::new();
    for (offset, payload) in records {
        let mut reader = part(*offset, payload, RECORDS)?;
        while !reader.is_empty() {
            let pair = reader.bytes().and_then(|key| Ok((key, reader.bytes()?)));
            pairs.push(pair.map_err(malformed(*offset))?);
        }
    }
    if pairs.len() as u64 != wanted {
        return Err(corrupt(*end_at, format!("it says {wanted} records, and {} are there", pairs.len())));
    }
    // Copied, so that a record that outlives the others does not keep the whole file in memory.
    let copied =
        pairs.into_iter().map(|(key, record)| Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&record))));
    Machine::restore(engine, &head, copied)
}
