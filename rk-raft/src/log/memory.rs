//! A log and its states in memory, for tests and simulations.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::{Entry, HardState};
use rk_store::{Error, Machine, MemoryEngine, Position, SnapshotGuard, SnapshotHead};

use super::{Batch, Checkpoints, Incoming, Point, RaftLog, Recovered, Staged};
use crate::{MemberId, membership::Membership};

/// A raft log and its states in memory. Clones share them, so that a member can be stopped and started on what it had, as
/// on a disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    core: Arc<Mutex<Core>>,
}

type Records = Vec<(Bytes, Bytes)>;

#[derive(Debug, Default)]
struct Core {
    life: u64,
    state: HardState,
    entries: Vec<Entry>,
    saved: Option<(Point, SnapshotHead, Records)>,
}

impl MemoryLog {
    /// The log of a new group with these members.
    pub fn new(members: &[MemberId]) -> Self {
        Self::bootstrap(Membership::numbered(members))
    }

    /// The log of a new group.
    pub fn bootstrap(membership: Membership) -> Self {
        let head =
            Machine::new(Arc::new(MemoryEngine::new())).expect("an engine in memory does not fail").snapshot_head();
        let saved = Some((Point::bootstrap(membership), head, Vec::new()));
        Self { core: Arc::new(Mutex::new(Core { saved, ..Core::default() })) }
    }

    /// Entries that the log holds.
    pub fn entries(&self) -> usize {
        self.core.lock().entries.len()
    }
}

#[async_trait]
impl RaftLog for MemoryLog {
    async fn load(&mut self) -> Result<Recovered, Error> {
        let mut core = self.core.lock();
        core.life += 1;
        Ok(Recovered { life: core.life, state: core.state.clone(), entries: core.entries.clone() })
    }

    async fn write(&mut self, batch: Batch) -> Result<(), Error> {
        let mut core = self.core.lock();
        if let Some(first) = batch.entries.first() {
            let keep = core.entries.partition_point(|entry| entry.index < first.index);
            core.entries.truncate(keep);
            core.entries.extend(batch.entries);
        }
        if let Some(state) = batch.state {
            core.state = state;
        }
        Ok(())
    }

    async fn drop_to(&mut self, index: u64) -> Result<(), Error> {
        let mut core = self.core.lock();
        let gone = core.entries.partition_point(|entry| entry.index <= index);
        core.entries.drain(..gone);
        Ok(())
    }

    async fn reset(&mut self, _: u64, state: HardState) -> Result<(), Error> {
        let mut core = self.core.lock();
        core.entries.clear();
        core.state = state;
        Ok(())
    }

    fn size(&self) -> u64 {
        0
    }
}

/// The records of a snapshot.
fn records(state: &SnapshotGuard) -> Result<Records, Error> {
    let (mut records, mut from) = (Vec::new(), Some(Position::first(0)));
    while let Some(position) = from {
        let chunk = state.records(position, 1 << 20)?;
        records.extend(chunk.pairs);
        from = chunk.next;
    }
    Ok(records)
}

fn machine(head: &SnapshotHead, records: &Records) -> Result<Machine, Error> {
    Machine::restore(Arc::new(MemoryEngine::new()), head, records.iter().cloned().map(Ok))
}

#[async_trait]
impl Checkpoints for MemoryLog {
    async fn load(&self) -> Result<Option<(Point, Machine)>, Error> {
        match &self.core.lock().saved {
            Some((point, head, records)) => Ok(Some((point.clone(), machine(head, records)?))),
            None => Ok(None),
        }
    }

    async fn empty(&self) -> Result<Machine, Error> {
        Machine::new(Arc::new(MemoryEngine::new()))
    }

    async fn save(&self, point: Point, state: SnapshotGuard, _: bool) -> Result<(), Error> {
        let saved = (point, state.head().clone(), records(&state)?);
        self.core.lock().saved = Some(saved);
        Ok(())
    }

    async fn receive(&self, point: Point, head: SnapshotHead) -> Result<Box<dyn Incoming>, Error> {
        Ok(Box::new(Pending { log: self.clone(), point, head, records: Vec::new() }))
    }

    fn size(&self) -> u64 {
        0
    }
}

struct Pending {
    log: MemoryLog,
    point: Point,
    head: SnapshotHead,
    records: Records,
}

#[async_trait]
impl Incoming for Pending {
    async fn push(&mut self, records: Records) -> Result<(), Error> {
        self.records.extend(records);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(Machine, Box<dyn Staged>), Error> {
        Ok((machine(&self.head, &self.records)?, self))
    }
}

#[async_trait]
impl Staged for Pending {
    async fn publish(self: Box<Self>) -> Result<(), Error> {
        self.log.core.lock().saved = Some((self.point, self.head, self.records));
        Ok(())
    }
}
