//! A machine's whole state as a head and a run of records, for checkpoints and for followers that lag behind.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{Machine, Position, record};
use crate::{
    Alarm, Batch, Engine, Error, LeaseId, Revision, Write,
    codec::{DecodeError, Reader},
    command::{put_alarm, put_count, read_alarm},
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
    batch: Batch,
}

impl Restoring {
    /// Empties the engine.
    pub(crate) fn begin(engine: Arc<dyn Engine>, head: SnapshotHead) -> Result<Self, Error> {
        let mut machine = Machine::new(engine)?;
        machine.alarms.extend(&head.alarms);
        for (id, ttl) in &head.leases {
            machine.leases.grant(*id, *ttl)?;
        }
        Ok(Self { machine, head, batch: Batch::default() })
    }

    /// Takes the next record.
    pub(crate) fn push(&mut self, key: Bytes, record: Bytes) -> Result<(), Error> {
        let at = Position::from_key(&key)?;
        self.machine.note(at, &record::decode(at, &record)?);
        self.batch.writes.push(Write::Put(key, record));
        if self.batch.writes.len() >= 1024 {
            self.machine.engine.apply(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    /// The machine, once all records are taken.
    pub(crate) fn finish(mut self) -> Result<Machine, Error> {
        self.machine.engine.apply(self.batch)?;
        self.machine.revision = self.head.revision;
        if self.head.compacted > 0 {
            self.machine.compact(self.head.compacted)?;
        }
        Ok(self.machine)
    }
}

/// A stretch of the records of a snapshot.
#[derive(Debug)]
pub struct SnapshotChunk {
    /// Pairs of the engine, in order.
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
    let end = Position::first(head.revision + 1).to_key();
    let (mut pairs, mut size, mut next) = (Vec::new(), 0, None);
    engine.scan(&from.to_key(), Some(&end), &mut |key, record| {
        if size >= bytes {
            next = Some(key.clone());
            return false;
        }
        size += key.len() + record.len();
        pairs.push((key.clone(), record.clone()));
        true
    })?;
    Ok(SnapshotChunk { pairs, next: next.map(|key| Position::from_key(&key)).transpose()? })
}
