//! One copy of a store's state and all that serves from it: the state machine, the watch hub and the clock of leases.
//!
//! Every store of this kind is a replica plus a way for commands to get to it: straight (in memory), through a
//! write-ahead log, or through raft. Whoever feeds a replica gives it only commands that are durable; by the time
//! `apply` returns, readers and watchers see what it changed.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::{
    Alarm, Clock, Command, Engine, Error, HashKv, Lease, LeaseClock, LeaseId, Machine, Outcome, Revision,
    SnapshotChunk, SnapshotHead, SnapshotStream, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream, backup,
    codec::put_bytes,
    hash,
    hub::Hub,
    mvcc::{Applied, Position, remove_records},
    watch,
};

/// Revisions that watchers may fall behind before they read history again.
pub const DEFAULT_WATCH_BUFFER: usize = 16_384;

/// See the module's description.
#[derive(Debug)]
pub struct Replica {
    machine: RwLock<Machine>,
    hub: Hub,
    leases: LeaseClock,
    garbage: Mutex<Garbage>,
    /// The engine's bytes in use, to be had without a lock.
    size_in_use: AtomicU64,
}

#[derive(Debug, Default)]
struct Garbage {
    /// Records that no read sees any more, and that are still in the engine.
    positions: VecDeque<Position>,
    /// Snapshots being read, which garbage must wait for.
    snapshots: usize,
}

/// Garbage removed along with each command, so that it goes even if no one else sees to it.
const SWEEP_PER_COMMAND: usize = 64;

/// Garbage removed in one go.
const SWEEP: usize = 512;

/// A snapshot that may be read: while it lives, no record leaves the engine.
pub struct SnapshotGuard {
    replica: Arc<Replica>,
    engine: Arc<dyn Engine>,
    head: SnapshotHead,
    /// What the engine holds beyond the state.
    garbage: HashSet<Position>,
}

impl std::fmt::Debug for SnapshotGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotGuard").field("head", &self.head).finish_non_exhaustive()
    }
}

impl SnapshotGuard {
    /// The state's head.
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// About `bytes` bytes of the records from `from` on, and where to go on: see [`snapshot_records`](crate::snapshot_records).
    pub fn records(&self, from: Position, bytes: usize) -> Result<SnapshotChunk, Error> {
        let mut chunk = crate::snapshot_records(&*self.engine, &self.head, from, bytes)?;
        if !self.garbage.is_empty() {
            chunk.pairs.retain(|(key, _)| Position::from_key(key).is_ok_and(|at| !self.garbage.contains(&at)));
        }
        Ok(chunk)
    }

    /// Persists the state in an engine that [keeps it](Engine::persists), with a note for whoever recovers it:
    /// [`Machine::recover`]. It waits for the disk. `thorough` as in [`Engine::persist`].
    pub fn persist(&self, note: &[u8], thorough: bool) -> Result<(), Error> {
        let (mut head, mut kept) = (Vec::new(), Vec::new());
        self.head.encode(&mut head);
        put_bytes(&mut kept, &head);
        kept.extend_from_slice(note);
        Ok(self.engine.persist(self.head.revision, &kept, thorough)?)
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        self.replica.garbage.lock().snapshots -= 1;
        if let Err(error) = self.replica.sweep(SWEEP) {
            // Only space is lost; an engine that fails shows itself to the next writer.
            tracing::warn!(%error, "records that were compacted away stay in the engine");
        }
    }
}

impl Replica {
    /// A replica of this state. Its leases get their whole time from now on.
    pub fn new(machine: Machine, watch_buffer: usize) -> Arc<Self> {
        Self::with_clock(machine, watch_buffer, Clock::default())
    }

    /// A replica whose leases end by this clock.
    pub fn with_clock(machine: Machine, watch_buffer: usize, clock: Clock) -> Arc<Self> {
        let leases = LeaseClock::new(clock);
        leases.replace(machine.leases());
        let hub = Hub::new(machine.revision(), watch_buffer);
        let size_in_use = AtomicU64::new(machine.engine().size_in_use());
        Arc::new(Self { machine: RwLock::new(machine), hub, leases, garbage: Mutex::default(), size_in_use })
    }

    /// Applies a durable command and shows what it changed. After [`Error::Unavailable`] the engine has failed and
    /// no more commands may follow (see [`Machine::apply`]).
    pub fn apply(&self, command: &Command) -> Result<Outcome, Error> {
        let mut machine = self.machine.write();
        let Applied { result, commit } = machine.apply(command);
        // Published before the lock is given up: whoever reads a revision can watch from the next one.
        let publish = |commit| self.hub.publish(&commit, |commit| machine.with_before(commit));
        let touched = commit.map(publish).transpose().map_err(|error| Error::Unavailable(error.to_string()))?;
        match (command, &result) {
            (Command::LeaseGrant { id, ttl }, Ok(_)) => {
                self.leases.start(*id, Lease::granted(*id, *ttl).granted_ttl);
            }
            (Command::LeaseRevoke { id }, Ok(_)) => self.leases.remove(*id),
            _ => {}
        }
        let new = machine.take_garbage();
        let mut garbage = self.garbage.lock();
        garbage.positions.extend(new);
        let any = !garbage.positions.is_empty();
        drop(garbage);
        self.measure(&machine);
        drop(machine);
        if let Some(touched) = touched {
            touched.wake();
        }
        if any {
            self.sweep(SWEEP_PER_COMMAND)?;
        }
        result
    }

    /// Removes from the engine up to about `most` records that compaction has left there, unless a snapshot is being read. Whether
    /// there are more to remove.
    fn sweep(&self, most: usize) -> Result<bool, Error> {
        let machine = self.machine.read();
        let mut garbage = self.garbage.lock();
        if garbage.snapshots > 0 {
            return Ok(false);
        }
        let some: Vec<_> = {
            let count = most.min(garbage.positions.len());
            garbage.positions.drain(..count).collect()
        };
        // Under the lock: what is neither noted nor removed yet would look to a snapshot as part of the state.
        remove_records(&**machine.engine(), &some)?;
        self.measure(&machine);
        Ok(!garbage.positions.is_empty())
    }

    fn measure(&self, machine: &Machine) {
        self.size_in_use.store(machine.engine().size_in_use(), Ordering::Relaxed);
    }

    /// Bytes in use, as after the last command.
    pub(crate) fn size_in_use(&self) -> u64 {
        self.size_in_use.load(Ordering::Relaxed)
    }

    /// Removes from the engine what compaction has left there, a little at a time, so that no one waits long. What
    /// is left when a snapshot is being read goes after it.
    pub async fn sweep_all(&self) -> Result<(), Error> {
        while self.sweep(SWEEP)? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The state after the last command, for reading at leisure while more commands are applied.
    pub fn snapshot(self: &Arc<Self>) -> SnapshotGuard {
        let machine = self.machine.read();
        let mut garbage = self.garbage.lock();
        garbage.snapshots += 1;
        SnapshotGuard {
            head: machine.snapshot_head(),
            engine: machine.engine().clone(),
            garbage: garbage.positions.iter().copied().collect(),
            replica: self.clone(),
        }
    }

    /// The bytes of the state now, for [`restore_snapshot`](crate::restore_snapshot).
    pub fn snapshot_stream(self: &Arc<Self>) -> SnapshotStream {
        let snapshot = self.snapshot();
        backup::stream(snapshot.head().clone(), move |from, bytes| snapshot.records(from, bytes))
    }

    /// Puts another state in the place of this one. Watches are cut; their watchers may resume where they are.
    pub fn restore(&self, machine: Machine) {
        let mut current = self.machine.write();
        self.garbage.lock().positions.clear();
        self.leases.replace(machine.leases());
        self.hub.reset(machine.revision());
        self.measure(&machine);
        *current = machine;
    }

    /// The state, for reading. Nothing is applied while the guard lives.
    pub fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read()
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The deadlines of leases.
    pub fn lease_clock(&self) -> &LeaseClock {
        &self.leases
    }

    /// Runs a txn that [`is_read_only`](crate::is_read_only).
    pub fn read_txn(&self, txn: &Txn) -> Result<TxnResponse, Error> {
        self.machine.read().read_txn(txn)
    }

    /// Watches a range from a revision.
    pub fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<WatchStream, Error> {
        watch::watch(self.clone(), request)
    }

    /// Gives a lease its whole time again.
    pub fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        let ttl = self.leases.renew(id)?;
        Ok(Lease { id, granted_ttl: ttl, ttl, keys: Vec::new() })
    }

    /// A lease's remaining time, and its keys if asked for.
    pub fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<Lease, Error> {
        let machine = self.machine.read();
        Ok(Lease {
            id,
            granted_ttl: machine.lease_ttl(id)?,
            ttl: self.leases.remaining(id).ok_or(Error::LeaseNotFound(id))?,
            keys: if keys { machine.lease_keys(id)? } else { Vec::new() },
        })
    }

    /// The ids of the leases alive.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.machine.read().leases().map(|(id, _)| id).collect()
    }

    /// The alarms that are active, in order.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.machine.read().alarms().collect()
    }

    /// Gives unused space of the engine back.
    pub fn defragment(&self) -> Result<(), Error> {
        let engine = self.machine.read().engine().clone();
        Ok(engine.defragment()?)
    }

    /// A number for the content up to a revision, 0 being now.
    pub async fn hash_kv(self: &Arc<Self>, revision: Revision) -> Result<HashKv, Error> {
        hash::hash_kv(self.snapshot(), revision).await
    }

    /// The numbers of the state now; the sizes are the engine's.
    pub fn status(&self) -> StoreStatus {
        let machine = self.machine.read();
        StoreStatus {
            revision: machine.revision(),
            compact_revision: machine.compacted(),
            keys: machine.keys(),
            disk_size: machine.engine().disk_size(),
            size_in_use: machine.engine().size_in_use(),
        }
    }

    /// Ends all watches with [`Error::Unavailable`], once they have delivered what they have.
    pub fn close(&self, reason: &str) {
        self.hub.close(reason);
    }
}
