//! The durable store: a write-ahead log and checkpoints on disk, the state machine in front of them.
//!
//! ```text
//! txn ─► queue ─► writer: one frame, one sync for all that wait ─► apply ─► watchers, answers
//!                              │
//!             the log ─────────┴──── checkpoint-<next>, then the log before it goes
//! ```
//!
//! What is on disk:
//! - `log-*`, `spare-*`: the [log](crate::log); `lock`: the holder's process id.
//! - `values/`: history, as of the last checkpoint; in its place, with an engine that keeps nothing, `checkpoint-*`.
//! - a file ending in `tmp` is one whose writing was interrupted; the next start removes it.
//!
//! The log and the newest checkpoint alone decide what the store holds. The engine is filled from them at every start.

mod checkpoint;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};

use self::writer::{Request, Writer};
use crate::{
    Alarm, Command, DEFAULT_WATCH_BUFFER, Disk, Engine, EngineError, Error, HashKv, Lease, LeaseId, Limits, Machine,
    MemoryEngine, OsDisk, Outcome, Quota, RangeRequest, RangeResponse, Replica, Revision, SegmentEngine,
    SegmentOptions, SnapshotStream, Store, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
    disk::remove_temporary,
    is_read_only,
    lease::{choose_id, end_leases},
    log::{Log, LogOptions},
    restore_snapshot,
    serial::Serial,
};

/// Most writes that wait for their turn; more wait for those.
const QUEUE: usize = 4096;
/// Bytes of garbage for which a compaction asks for a checkpoint.
const GARBAGE_BYTES: u64 = 64 << 20;
/// Bytes of log that are read in one go at the start.
const REPLAY_BYTES: usize = 4 << 20;

/// How a [`DurableStore`] works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DurableOptions {
    /// The size in bytes from which on the log goes on in a new segment.
    pub segment_bytes: u64,
    /// How many bytes the log grows before a checkpoint replaces it; more once the checkpoint itself is larger.
    pub checkpoint_bytes: u64,
    /// Revisions that watchers may fall behind before they read history again.
    pub watch_buffer: usize,
    /// Most bytes to hold; none by default.
    pub quota: Quota,
    /// Most that a txn may have.
    pub limits: Limits,
    /// Where log files are made.
    pub disk: Arc<dyn Disk>,
}

impl Default for DurableOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            checkpoint_bytes: 32 << 20,
            watch_buffer: DEFAULT_WATCH_BUFFER,
            quota: Quota::default(),
            limits: Limits::default(),
            disk: Arc::new(OsDisk),
        }
    }
}

/// A [`Store`] in a directory of its own: what it has acknowledged survives `kill -9` and power loss.
///
/// - Writers that wait at the same time share one sync.
/// - A full disk fails writes with [`Error::NoSpace`]; reads go on, and writes work again once there is space. After
///   a failed sync no one knows what is on disk, so every later write fails with [`Error::Unavailable`].
/// - Damaged files fail the opening with [`Error::Corrupt`]; only the torn end of the log, which was never acknowledged, is cut.
/// - Dropping the store closes it, once the writes under way are done; [`DurableStore::close`] waits for that.
#[derive(Debug)]
pub struct DurableStore {
    replica: Arc<Replica>,
    requests: Requests,
    quota: Quota,
    limits: Limits,
    disk_size: Arc<AtomicU64>,
    expiry: JoinHandle<()>,
}

/// The way to the writer.
#[derive(Clone)]
struct Requests {
    serial: Serial<Writer>,
    turns: Arc<Semaphore>,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("turns", &self.turns).finish_non_exhaustive()
    }
}

impl Requests {
    async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        self.serial.push(Request::Write { command, reply, _turn: turn });
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

impl DurableStore {
    /// Opens the store in `dir`, made if it is missing, with values in files in its subdirectory `values`: a [`SegmentEngine`].
    ///
    /// # Errors
    /// [`Error::InUse`] if another store has the directory open, [`Error::Corrupt`], [`Error::NoSpace`], [`Error::Io`].
    pub async fn open(dir: impl AsRef<Path>, options: DurableOptions) -> Result<Self, Error> {
        let disk = options.disk.clone();
        Self::open_with(dir, options, move |dir| {
            Ok(Arc::new(SegmentEngine::open(&dir.join("values"), disk, SegmentOptions::default())?))
        })
        .await
    }

    /// Opens the store in `dir` with values in memory. A start reads all of them, and a checkpoint writes all of them.
    ///
    /// # Errors
    /// As [`DurableStore::open`].
    pub async fn open_in_memory(dir: impl AsRef<Path>, options: DurableOptions) -> Result<Self, Error> {
        Self::open_with(dir, options, |_| Ok(Arc::new(MemoryEngine::new()))).await
    }

    /// Opens the store in `dir` with values in sled, in the subdirectory `sled`. sled does not persist, so a start and a checkpoint are
    /// as with values in memory.
    #[cfg(feature = "sled")]
    pub async fn open_sled(dir: impl AsRef<Path>, options: DurableOptions) -> Result<Self, Error> {
        Self::open_with(dir, options, |dir| {
            let dir = dir.join("sled");
            // Filled again below, so whatever a crash has left of it does not matter.
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("clearing {}", dir.display()), &error));
                }
                _ => {}
            }
            OsDisk.make_dir(&dir).map_err(|error| Error::io(format!("making {}", dir.display()), &error))?;
            Ok(Arc::new(crate::SledEngine::open(&dir)?))
        })
        .await
    }

    /// Opens the store in `dir` with values in the engine that `engine` makes once the directory is locked. If the
    /// engine does not [persist](Engine::persists), or has persisted nothing, it is emptied and filled.
    pub async fn open_with(
        dir: impl AsRef<Path>,
        options: DurableOptions,
        engine: impl FnOnce(&Path) -> Result<Arc<dyn Engine>, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let dir = dir.as_ref().to_owned();
        let (disk, quota, limits) = (options.disk.clone(), options.quota, options.limits);
        let (reply, opened) = oneshot::channel();
        // Whoever asked may have stopped waiting.
        let open = move || drop(reply.send(open_blocking(&dir, &options, engine)));
        disk.run(Box::new(open));
        let writer = opened.await.map_err(|_| Error::Unavailable("opening was stopped".into()))??;
        let (replica, disk_size) = (writer.replica.clone(), writer.disk_size.clone());
        let requests = Requests { serial: Serial::new(writer, disk), turns: Arc::new(Semaphore::new(QUEUE)) };
        // A weak handle, so that the task does not keep the writer alive.
        let (weak, turns) = (requests.serial.downgrade(), requests.turns.clone());
        let expiry = tokio::spawn(end_leases(replica.clone(), move |command| {
            let requests = weak.upgrade().map(|serial| Requests { serial, turns: turns.clone() });
            async move { requests.ok_or_else(closed)?.propose(command).await }
        }));
        Ok(Self { replica, requests, quota, limits, disk_size, expiry })
    }

    /// Makes a store in `dir`, which must hold none, with the state of a snapshot of any replica, and opens it as [`DurableStore::open`]
    /// does. Its leases have their whole time before them. One that is interrupted leaves an empty store.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the stream is not one whole snapshot, [`Error::Invalid`] if there is a store in `dir`; the stream's own
    /// errors, and those of [`DurableStore::open`].
    pub async fn restore(
        dir: impl AsRef<Path>,
        snapshot: SnapshotStream,
        options: DurableOptions,
    ) -> Result<Self, Error> {
        let (path, disk) = (dir.as_ref(), &options.disk);
        let lock = make_and_lock(path, &**disk)?;
        let engine = Arc::new(SegmentEngine::open(&path.join("values"), disk.clone(), SegmentOptions::default())?);
        let io = |error: std::io::Error| Error::io(format!("listing {}", path.display()), &error);
        let names = disk.list(path).map_err(io)?;
        let used = names.iter().any(|name| name.starts_with("log-") || name.starts_with("checkpoint-"));
        if used || engine.persisted()?.is_some() {
            return Err(Error::Invalid(format!("{} holds a store already", path.display())));
        }
        let machine = restore_snapshot(engine, snapshot).await?;
        let state = Replica::new(machine, options.watch_buffer).snapshot();
        let (reply, persisted) = oneshot::channel();
        let persist = move || {
            let result = checkpoint::note_first(&state);
            // Given up before whoever waits goes on and opens it.
            drop(state);
            // Whoever asked may have stopped waiting.
            drop(reply.send(result));
        };
        disk.run(Box::new(persist));
        persisted.await.map_err(|_| Error::Unavailable("restoring was stopped".into()))??;
        drop(lock);
        Self::open(dir, options).await
    }

    /// What to read from: nothing once the store is closed, for whoever opens the directory next writes on without this one.
    fn open_replica(&self) -> Result<&Arc<Replica>, Error> {
        self.replica.hub().closed().map_or(Ok(&self.replica), Err)
    }

    async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        self.quota.propose(&self.replica, command, |command| self.requests.propose(command)).await
    }

    /// Writes a checkpoint of the state and drops the log before it, without waiting until it is due.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.serial.push(Request::Checkpoint { thorough: false, reply: Some(reply) });
        answer.await.map_err(|_| closed())?
    }

    /// Finishes the writes under way, gives up the directory and ends all watches. Later requests fail.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        self.requests.serial.push(Request::Close(reply));
        if answer.await.is_err() {
            tracing::debug!("the store's writer had ended before it was closed");
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

fn make_and_lock(dir: &Path, disk: &dyn Disk) -> Result<Box<dyn Send + Sync>, Error> {
    let made = disk.make_dir(dir).and_then(|()| dir.parent().map_or(Ok(()), |parent| disk.sync_dir(parent)));
    made.map_err(|error| Error::io(format!("making {}", dir.display()), &error))?;
    disk.lock(dir)
}

fn open_blocking(
    dir: &Path,
    options: &DurableOptions,
    engine: impl FnOnce(&Path) -> Result<Arc<dyn Engine>, Error>,
) -> Result<Writer, Error> {
    let disk = &options.disk;
    let lock = make_and_lock(dir, &**disk)?;
    remove_temporary(&**disk, dir)?;
    let (mut machine, next, checkpoint_size) = checkpoint::load(dir, &**disk, engine(dir)?)?;
    let log_options = LogOptions { segment_bytes: options.segment_bytes, ..LogOptions::default() };
    let log = Log::open(dir, disk.clone(), log_options)?;
    replay(&log, next, &mut machine)?;
    Ok(Writer {
        next: log.reader().next(),
        replica: Replica::new(machine, options.watch_buffer),
        checkpoint_at: options.checkpoint_bytes.max(checkpoint_size),
        disk_size: Arc::new(AtomicU64::new(log.reader().size() + checkpoint_size)),
        log,
        dir: dir.to_owned(),
        checkpoint_bytes: options.checkpoint_bytes,
        checkpoint_size,
        running: None,
        wanted: None,
        waiting: Vec::new(),
        closing: Vec::new(),
        broken: None,
        lock: Some(lock),
    })
}

/// Applies the commands of the log from number `from` on.
fn replay(log: &Log, mut from: u64, machine: &mut Machine) -> Result<(), Error> {
    let reader = log.reader();
    let (first, next) = (reader.first(), reader.next());
    if !(first..=next).contains(&from) {
        return Err(Error::Corrupt {
            file: log.dir().display().to_string(),
            offset: 0,
            reason: format!("the log holds the commands {first} to {next}, and {from} is the one to go on with"),
        });
    }
    while from < next {
        for command in reader.entries(from..next, REPLAY_BYTES)? {
            let result = machine.apply(&Command::decode(command)?).result;
            let garbage = machine.take_garbage();
            crate::remove_records(&**machine.engine(), &garbage)?;
            // Only a failing engine makes the state differ from the one before; a refusal is repeated as it was.
            if let Err(error @ Error::Unavailable(_)) = result {
                return Err(error);
            }
            from += 1;
        }
        match machine.engine().make_room() {
            // It waits in memory until there is space: to read what is there needs none.
            Ok(()) | Err(EngineError::NoSpace(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Those of the checkpoint, if no command came behind it.
    let garbage = machine.take_garbage();
    crate::remove_records(&**machine.engine(), &garbage)
}

#[async_trait]
impl Store for DurableStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.open_replica()?.range(&request)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.open_replica()?.machine().revision())
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        self.limits.check(&txn)?;
        if is_read_only(&txn) {
            return self.open_replica()?.read_txn(&txn);
        }
        match self.propose(Command::Txn(txn)).await? {
            Outcome::Txn(response) => Ok(response),
            Outcome::Done => Err(Error::Invalid("a txn had no answer".into())),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error> {
        self.replica.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.propose(Command::Compact(revision)).await?;
        self.replica.sweep_all().await?;
        let status = self.replica.status();
        if status.disk_size > 2 * status.size_in_use + GARBAGE_BYTES {
            // Gives the space back; nobody waits for it.
            self.requests.serial.push(Request::Checkpoint { thorough: false, reply: None });
        }
        Ok(())
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error> {
        let id = if id == 0 { choose_id() } else { id };
        self.propose(Command::LeaseGrant { id, ttl }).await?;
        Ok(Lease::granted(id, ttl))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.propose(Command::LeaseRevoke { id }).await.map(drop)
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.open_replica()?.lease_keep_alive(id)
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<Lease, Error> {
        self.open_replica()?.lease_time_to_live(id, keys)
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.open_replica()?.leases())
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Error> {
        self.open_replica()?.hash_kv(revision).await
    }

    async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        Ok(self.open_replica()?.snapshot_stream())
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        Ok(self.open_replica()?.alarms())
    }

    async fn activate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.propose(Command::Alarm { alarm, active: true }).await.map(drop)
    }

    async fn deactivate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.propose(Command::Alarm { alarm, active: false }).await.map(drop)
    }

    async fn defragment(&self) -> Result<(), Error> {
        self.replica.defragment()?;
        let (reply, answer) = oneshot::channel();
        self.requests.serial.push(Request::Checkpoint { thorough: true, reply: Some(reply) });
        answer.await.map_err(|_| closed())?
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let mut status = self.open_replica()?.status();
        status.disk_size += self.disk_size.load(Ordering::Relaxed);
        Ok(status)
    }
}
