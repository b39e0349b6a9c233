//! The store in memory.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::{
    Command, DEFAULT_WATCH_BUFFER, Error, Lease, LeaseId, Machine, MemoryEngine, Outcome, RangeRequest, RangeResponse,
    Replica, Revision, Store, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream, is_read_only,
    lease::{choose_id, end_leases},
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
    expiry: Mutex<Option<JoinHandle<()>>>,
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
        Self::with_watch_buffer(DEFAULT_WATCH_BUFFER)
    }

    /// An empty store that cuts watchers which fall more than this many revisions behind.
    pub fn with_watch_buffer(revisions: usize) -> Self {
        let machine = Machine::new(Arc::new(MemoryEngine::new())).expect("an engine in memory does not fail");
        let inner = Inner { replica: Replica::new(machine, revisions), expiry: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    fn replica(&self) -> &Arc<Replica> {
        &self.inner.replica
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

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        if is_read_only(&txn) {
            return self.replica().read_txn(&txn);
        }
        match self.replica().apply(&Command::Txn(txn))? {
            Outcome::Txn(response) => Ok(response),
            Outcome::Done => Err(Error::Invalid("a txn had no answer".into())),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error> {
        self.replica().watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.replica().apply(&Command::Compact(revision)).map(drop)
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error> {
        self.start_expiry();
        let id = if id == 0 { choose_id() } else { id };
        self.replica().apply(&Command::LeaseGrant { id, ttl })?;
        Ok(Lease { id, granted_ttl: ttl, ttl, keys: Vec::new() })
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.replica().apply(&Command::LeaseRevoke { id }).map(drop)
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

    async fn status(&self) -> Result<StoreStatus, Error> {
        Ok(self.replica().status())
    }
}
