//! The store in memory.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::{
    Alarm, Command, DEFAULT_WATCH_BUFFER, Error, HashKv, Lease, LeaseId, Limits, Machine, MemoryEngine, Outcome, Quota,
    RangeRequest, RangeResponse, Replica, Revision, SnapshotStream, Store, StoreStatus, Txn, TxnResponse, WatchRequest,
    WatchStream, is_read_only,
    lease::{choose_id, end_leases},
    restore_snapshot,
};

/// A [`Store`] in memory, gone with its last handle. Clones are handles of one store.
///
/// It keeps every guarantee of a store except that nothing survives the process. Leases end by tokio's clock, on the
/// runtime that granted the first one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rk_store::Error> {
/// use rk_store::{MemoryStore, Store};
///
/// let store = MemoryStore::new();
/// store.put("greeting".into(), "hello".into()).await?;
/// assert_eq!(store.get("greeting".into()).await?.map(|kv| kv.value), Some("hello".into()));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    replica: Arc<Replica>,
    quota: Quota,
    limits: Limits,
    expiry: Mutex<Option<JoinHandle<()>>>,
}

/// How a [`MemoryStore`] works.
#[derive(Debug, Clone, Copy)]
pub struct MemoryOptions {
    /// Revisions that watchers may fall behind before they read history again.
    pub watch_buffer: usize,
    /// Most bytes to hold.
    pub quota: Quota,
    /// Most that a txn may have.
    pub limits: Limits,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { watch_buffer: DEFAULT_WATCH_BUFFER, quota: Quota::default(), limits: Limits::default() }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.replica.close("the store was closed");
        if let Some(task) = self.expiry.get_mut().take() {
            task.abort();
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_options(MemoryOptions::default())
    }

    /// An empty store.
    pub fn with_options(options: MemoryOptions) -> Self {
        let machine = Machine::new(Arc::new(MemoryEngine::new())).expect("an engine in memory does not fail");
        Self::of(machine, options)
    }

    /// A store with the state of a snapshot of any replica. Its leases have their whole time before them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the stream is not one whole snapshot; the stream's own errors.
    pub async fn restore(snapshot: SnapshotStream, options: MemoryOptions) -> Result<Self, Error> {
        let machine = restore_snapshot(Arc::new(MemoryEngine::new()), snapshot).await?;
        let store = Self::of(machine, options);
        store.start_expiry();
        Ok(store)
    }

    fn of(machine: Machine, options: MemoryOptions) -> Self {
        let replica = Replica::new(machine, options.watch_buffer);
        let inner = Inner { replica, quota: options.quota, limits: options.limits, expiry: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    fn replica(&self) -> &Arc<Replica> {
        &self.inner.replica
    }

    async fn apply(&self, command: Command) -> Result<Outcome, Error> {
        let apply = |command| std::future::ready(self.replica().apply(&command));
        self.inner.quota.propose(self.replica(), command, apply).await
    }

    /// Starts the task that ends leases, if it does not run: it stops with the runtime it was started on.
    fn start_expiry(&self) {
        let mut expiry = self.inner.expiry.lock();
        if expiry.as_ref().is_none_or(JoinHandle::is_finished) {
            let replica = self.replica().clone();
            let feed = replica.clone();
            *expiry = Some(tokio::spawn(end_leases(replica, move |command| {
                let result = feed.apply(&command);
                async move { result }
            })));
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.replica().range(&request)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.replica().machine().revision())
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        self.inner.limits.check(&txn)?;
        if is_read_only(&txn) {
            return self.replica().read_txn(&txn);
        }
        match self.apply(Command::Txn(txn)).await? {
            Outcome::Txn(response) => Ok(response),
            Outcome::Done => Err(Error::Invalid("a txn had no answer".into())),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error> {
        self.replica().watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.apply(Command::Compact(revision)).await?;
        self.replica().sweep_all().await
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error> {
        self.start_expiry();
        let id = if id == 0 { choose_id() } else { id };
        self.apply(Command::LeaseGrant { id, ttl }).await?;
        Ok(Lease::granted(id, ttl))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.apply(Command::LeaseRevoke { id }).await.map(drop)
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.replica().lease_keep_alive(id)
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<Lease, Error> {
        self.replica().lease_time_to_live(id, keys)
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.replica().leases())
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Error> {
        self.replica().hash_kv(revision).await
    }

    async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        Ok(self.replica().snapshot_stream())
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        Ok(self.replica().alarms())
    }

    async fn activate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.apply(Command::Alarm { alarm, active: true }).await.map(drop)
    }

    async fn deactivate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.apply(Command::Alarm { alarm, active: false }).await.map(drop)
    }

    async fn defragment(&self) -> Result<(), Error> {
        self.replica().defragment()
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        Ok(self.replica().status())
    }
}
