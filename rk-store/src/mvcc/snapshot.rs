//! A machine's whole state as a head and a run of records, for checkpoints and for followers that lag behind.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{Machine, Position, record};
use crate::{
    Alarm, Engine, EngineError, Error, LeaseId, Record, Revision,
    codec::{DecodeError, Reader},
    command::{put_alarm, put_count, read_alarm},
    planted::{Bug, is_planted},
};

/// What a snapshot holds besides records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The revision of the state.
    pub revision: Revision,
    /// Its compact revision.
    pub compacted: Revision,
    /// Its leases, each with the time to live it was granted, in seconds.
    pub leases: Vec<(LeaseId, i64)>,
    /// Its active alarms.
    pub alarms: Vec<Alarm>,
}

impl SnapshotHead {
    /// Appends the head's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.revision);
        out.put_u64_le(self.compacted);
        put_count(out, self.leases.len());
        for (id, ttl) in &self.leases {
            out.put_i64_le(*id);
            out.put_i64_le(*ttl);
        }
        put_count(out, self.alarms.len());
        for alarm in &self.alarms {
            put_alarm(out, *alarm);
        }
    }

    /// Reads a head from exactly its bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (revision, compacted) = (reader.u64()?, reader.u64()?);
        if revision == 0 || revision >= i64::MAX as u64 || compacted > revision {
            return Err(DecodeError("a snapshot's revisions make no sense"));
        }
        let (mut leases, mut alarms) = (Vec::new(), Vec::new());
        for _ in 0..reader.count()? {
            leases.push((reader.i64()?, reader.i64()?));
        }
        for _ in 0..reader.count()? {
            alarms.push(read_alarm(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { revision, compacted, leases, alarms })
    }
}

impl Machine {
    /// The head of a snapshot of the state now. Its records are those of [`snapshot_records`], which may be read later and
    /// while commands are applied, provided that garbage taken after this call is not removed meanwhile.
    pub fn snapshot_head(&self) -> SnapshotHead {
        SnapshotHead {
            revision: self.revision,
            compacted: self.compacted,
            leases: self.leases().collect(),
            alarms: self.alarms().collect(),
        }
    }

    /// The machine that an engine has persisted with [`SnapshotGuard::persist`](crate::SnapshotGuard::persist), and the note beside it;
    /// `None` if it has none.
    pub fn recover(engine: Arc<dyn Engine>) -> Result<Option<(Self, Bytes)>, Error> {
        let Some(kept) = engine.persisted()? else { return Ok(None) };
        let mut reader = Reader::new(kept);
        let head = SnapshotHead::decode(reader.bytes()?)?;
        let mut machine = Self::over(engine.clone());
        machine.begin(&head)?;
        engine.heads(&mut |at, bytes| {
            let event = record::decode(at, &bytes).map_err(|error| EngineError::Failed(error.to_string()))?;
            machine.note(at, &event);
            Ok(())
        })?;
        machine.end(&head)?;
        Ok(Some((machine, reader.rest())))
    }

    /// Takes from a head what must be there before the records.
    fn begin(&mut self, head: &SnapshotHead) -> Result<(), Error> {
        self.alarms.extend(&head.alarms);
        head.leases.iter().try_for_each(|(id, ttl)| self.leases.grant(*id, *ttl))
    }

    /// Takes the rest of a head.
    fn end(&mut self, head: &SnapshotHead) -> Result<(), Error> {
        self.revision = head.revision - Revision::from(is_planted(Bug::ReuseRevision) && head.revision > 1);
        if head.compacted > 0 { self.compact(head.compacted) } else { Ok(()) }
    }

    /// A machine with the state of a snapshot, over an engine that is emptied and filled.
    pub fn restore(
        engine: Arc<dyn Engine>,
        head: &SnapshotHead,
        records: impl IntoIterator<Item = Result<(Bytes, Bytes), Error>>,
    ) -> Result<Self, Error> {
        let mut restoring = Restoring::begin(engine, head.clone())?;
        for pair in records {
            let (key, record) = pair?;
            restoring.push(key, record)?;
        }
        restoring.finish()
    }
}

/// A machine that is being filled with a snapshot's records.
pub(crate) struct Restoring {
    machine: Machine,
    head: SnapshotHead,
    batch: Vec<Record>,
}

impl Restoring {
    /// Empties the engine.
    pub(crate) fn begin(engine: Arc<dyn Engine>, head: SnapshotHead) -> Result<Self, Error> {
        let mut machine = Machine::new(engine)?;
        machine.begin(&head)?;
        Ok(Self { machine, head, batch: Vec::new() })
    }

    /// Takes the next record.
    pub(crate) fn push(&mut self, key: Bytes, record: Bytes) -> Result<(), Error> {
        let at = Position::from_key(&key)?;
        self.machine.note(at, &record::decode(at, &record)?);
        self.batch.push(record::from_bytes(at, record)?);
        if self.batch.len() >= 1024 {
            self.machine.engine.append(std::mem::take(&mut self.batch))?;
            self.machine.engine.make_room()?;
        }
        Ok(())
    }

    /// The machine, once all records are taken.
    pub(crate) fn finish(mut self) -> Result<Machine, Error> {
        self.machine.engine.append(self.batch)?;
        self.machine.end(&self.head)?;
        Ok(self.machine)
    }
}

/// A stretch of the records of a snapshot.
#[derive(Debug)]
pub struct SnapshotChunk {
    /// Records in order: the bytes of their positions, and their own.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// Where the next chunk begins, `None` at the end.
    pub next: Option<Position>,
}

/// Reads up to about `bytes` bytes of the records of a snapshot, from the position `from` on.
pub fn snapshot_records(
    engine: &dyn Engine,
    head: &SnapshotHead,
    from: Position,
    bytes: usize,
) -> Result<SnapshotChunk, Error> {
    let (mut pairs, mut size, mut next) = (Vec::new(), 0, None);
    engine.scan(from, Position::first(head.revision + 1), &mut |at, record| {
        if size >= bytes {
            next = Some(at);
            return false;
        }
        let key = Bytes::copy_from_slice(&at.to_key());
        size += key.len() + record.len();
        pairs.push((key, record.clone()));
        true
    })?;
    if next.is_none() && is_planted(Bug::SnapshotMissesLast) {
        pairs.pop();
    }
    Ok(SnapshotChunk { pairs, next })
}
