//! The durable store: a write-ahead log and checkpoints on disk, the state machine in front of them.
//!
//! ```text
//! txn ─► queue ─► writer: one frame, one sync for all that wait ─► apply ─► watchers, answers
//!                              │
//!              log-<first> ────┴──── checkpoint-<next>, then older segments go
//! ```
//!
//! What is on disk:
//! - `log-*`: segments of the log; `checkpoint-*`: the state from which the log is replayed; `lock`: the holder's process id.
//! - a file ending in `tmp` is one whose writing was interrupted; the next start removes it.
//!
//! The log and the newest checkpoint alone decide what the store holds. The engine is filled from them at every start.

mod checkpoint;
mod disk;
mod frame;
mod lock;
mod log;
mod writer;

use std::{
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub use self::disk::{Disk, LogFile, OsDisk};
use self::{
    lock::DirLock,
    log::Log,
    writer::{QUEUE, Request, Writer},
};
use crate::{
    Command, DEFAULT_WATCH_BUFFER, Engine, Error, Lease, LeaseId, MemoryEngine, Outcome, RangeRequest, RangeResponse,
    Replica, Revision, Store, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream, is_read_only,
    lease::{choose_id, end_leases},
    validate,
};

/// How a [`DurableStore`] works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DurableOptions {
    /// The size in bytes from which on the log goes on in a new segment.
    pub segment_bytes: u64,
    /// How many bytes the log grows before a checkpoint replaces it; more once the checkpoint itself is larger.
    pub checkpoint_bytes: u64,
    /// Revisions that a watcher may fall behind before it is cut.
    pub watch_buffer: usize,
    /// Where log files are made.
    pub disk: Arc<dyn Disk>,
}

impl Default for DurableOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            checkpoint_bytes: 64 << 20,
            watch_buffer: DEFAULT_WATCH_BUFFER,
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
/// - Dropping the last handle closes the store in the background; [`DurableStore::close`] waits for it.
#[derive(Debug)]
pub struct DurableStore {
    replica: Arc<Replica>,
    requests: mpsc::Sender<Request>,
    disk_size: Arc<AtomicU64>,
    expiry: JoinHandle<()>,
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

impl DurableStore {
    /// Opens the store in `dir`, made if it is missing, with values in memory.
    ///
    /// # Errors
    /// [`Error::InUse`] if another store has the directory open, [`Error::Corrupt`], [`Error::NoSpace`], [`Error::Io`].
    pub async fn open(dir: impl AsRef<Path>, options: DurableOptions) -> Result<Self, Error> {
        Self::open_with(dir, options, |_| Ok(Arc::new(MemoryEngine::new()))).await
    }

    /// Opens the store in `dir` with values in sled, in the subdirectory `sled`: for data larger than memory.
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
            make_dir(&dir)?;
            Ok(Arc::new(crate::SledEngine::open(&dir)?))
        })
        .await
    }

    /// Opens the store in `dir` with values in the engine that `engine` makes once the directory is locked. The
    /// engine is emptied first.
    pub async fn open_with(
        dir: impl AsRef<Path>,
        options: DurableOptions,
        engine: impl FnOnce(&Path) -> Result<Arc<dyn Engine>, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let dir = dir.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || open_blocking(&dir, &options, engine));
        let writer = opened.await.map_err(|error| Error::Unavailable(format!("opening was stopped: {error}")))??;
        let (replica, disk_size) = (writer.replica.clone(), writer.disk_size.clone());
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(writer::run(writer, queue));
        // A weak handle, so that the task does not keep the writer alive.
        let weak = requests.downgrade();
        let expiry = tokio::spawn(end_leases(replica.clone(), move |command| {
            let requests = weak.upgrade();
            async move { propose(requests.as_ref(), command).await }
        }));
        Ok(Self { replica, requests, disk_size, expiry })
    }

    async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        propose(Some(&self.requests), command).await
    }

    /// Writes a checkpoint of the state and drops the log before it, without waiting until it is due.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Checkpoint(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Finishes the writes under way, gives up the directory and ends all watches. Later requests fail.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_ok() && answer.await.is_err() {
            tracing::debug!("the store was closed by someone else");
        }
    }
}

async fn propose(requests: Option<&mpsc::Sender<Request>>, command: Command) -> Result<Outcome, Error> {
    let (reply, answer) = oneshot::channel();
    requests.ok_or_else(closed)?.send(Request::Write(command, reply)).await.map_err(|_| closed())?;
    answer.await.map_err(|_| closed())?
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Error::io(format!("making {}", dir.display()), &error))
}

fn open_blocking(
    dir: &Path,
    options: &DurableOptions,
    engine: impl FnOnce(&Path) -> Result<Arc<dyn Engine>, Error>,
) -> Result<Writer, Error> {
    make_dir(dir)?;
    let lock = DirLock::take(dir)?;
    remove_temporary(dir)?;
    let (mut machine, next, checkpoint_size) = checkpoint::load(dir, engine(dir)?)?;
    let log = Log::open(dir, options.disk.clone(), next, |command| {
        let result = machine.apply(&command).result;
        let garbage = machine.take_garbage();
        crate::remove_records(&**machine.engine(), &garbage)?;
        match result {
            // Only a failing engine makes the state differ from the one before; a refusal is repeated as it was.
            Err(error @ Error::Unavailable(_)) => Err(error),
            _ => Ok(()),
        }
    })?;
    let garbage = machine.take_garbage();
    crate::remove_records(&**machine.engine(), &garbage)?;
    Ok(Writer {
        replica: Replica::new(machine, options.watch_buffer),
        checkpoint_at: options.checkpoint_bytes.max(checkpoint_size),
        disk_size: Arc::new(AtomicU64::new(log.size() + checkpoint_size)),
        log,
        dir: dir.to_owned(),
        disk: options.disk.clone(),
        segment_bytes: options.segment_bytes,
        checkpoint_bytes: options.checkpoint_bytes,
        checkpoint_size,
        broken: None,
        _lock: lock,
    })
}

fn remove_temporary(dir: &Path) -> Result<(), Error> {
    let io = |error: std::io::Error| Error::io(format!("listing {}", dir.display()), &error);
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            log::remove(&path)?;
        }
    }
    Ok(())
}

#[async_trait]
impl Store for DurableStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.replica.range(&request)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        if is_read_only(&txn) {
            return self.replica.read_txn(&txn);
        }
        validate(&txn)?;
        match self.propose(Command::Txn(txn)).await? {
            Outcome::Txn(response) => Ok(response),
            Outcome::Done => Err(Error::Invalid("a txn had no answer".into())),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error> {
        self.replica.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.propose(Command::Compact(revision)).await.map(drop)
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error> {
        let id = if id == 0 { choose_id() } else { id };
        self.propose(Command::LeaseGrant { id, ttl }).await?;
        Ok(Lease { id, granted_ttl: ttl, ttl, keys: Vec::new() })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.propose(Command::LeaseRevoke { id }).await.map(drop)
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.replica.lease_keep_alive(id)
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<Lease, Error> {
        self.replica.lease_time_to_live(id, keys)
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.replica.leases())
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let mut status = self.replica.status();
        status.disk_size += self.disk_size.load(Ordering::Relaxed);
        Ok(status)
    }
}
