//! The contract of a store.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Alarm, DeleteRequest, Error, HashKv, KeyRange, KeyValue, Lease, LeaseId, Op, OpResponse, PutRequest, RangeRequest,
    RangeResponse, Revision, SnapshotStream, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
};

/// An ordered, versioned, watchable map of bytes: etcd's data model.
///
/// # Guarantees
/// An implementation keeps these; the suite in `rk_store::testing` (feature `testing`) checks each.
/// 1. **Order**: transactions have one order, and [`Revision`] counts those that changed something.
/// 2. **Atomicity**: a txn takes effect at one revision or not at all.
/// 3. **Linearizability**: a read at revision 0 sees every txn acknowledged before it began.
/// 4. **Durability**: what was acknowledged is there after a crash, as far as the store is durable at all.
/// 5. **History**: a read at a past revision gives what was there then, until compacted.
/// 6. **Watch**: from revision r, every change since r, in order, exactly once, whole revisions at a time, or
///    [`Error::Compacted`]. Only changes that are durable are delivered.
/// 7. **Slow watchers** neither block writers nor grow memory without bound: the stream ends with an error
///    ([`Error::Unavailable`] or [`Error::Compacted`]) from which the watcher may resume at the revision it reached.
/// 8. **Leases** never expire early: not by a restart and not by a change of leader.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads keys in order.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error>;

    /// Runs a transaction; when this returns `Ok`, it is durable.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error>;

    /// Watches a range from a revision.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error>;

    /// Forgets history before `revision`: the state at `revision` stays readable and watches may start at
    /// `revision + 1`; anything older fails with [`Error::Compacted`].
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Grants a lease of `ttl` seconds, [`MIN_LEASE_TTL`](crate::MIN_LEASE_TTL) at least. `id` 0 lets the store choose.
    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error>;

    /// Ends a lease and deletes its keys at one revision.
    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error>;

    /// Gives a lease its whole time to live again.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error>;

    /// A lease's remaining time, and its keys if asked for.
    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<Lease, Error>;

    /// The ids of the leases alive.
    async fn leases(&self) -> Result<Vec<LeaseId>, Error>;

    /// A number for the content of the copy at hand up to a revision, 0 being now.
    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Error>;

    /// The whole state of the copy at hand, history and leases included, as it is now, while requests are served. The bytes are
    /// the implementation's own, with checksums; the same implementation restores them.
    async fn snapshot(&self) -> Result<SnapshotStream, Error>;

    /// The alarms that are active, in order.
    async fn alarms(&self) -> Result<Vec<Alarm>, Error>;

    /// Raises an alarm; one that is active stays.
    async fn activate_alarm(&self, alarm: Alarm) -> Result<(), Error>;

    /// Ends an alarm, if it is active.
    async fn deactivate_alarm(&self, alarm: Alarm) -> Result<(), Error>;

    /// Gives the space that compaction has freed back to the file system, as far as the copy at hand can.
    async fn defragment(&self) -> Result<(), Error>;

    /// The store's numbers now.
    async fn status(&self) -> Result<StoreStatus, Error>;

    /// One key, now.
    async fn get(&self, key: Bytes) -> Result<Option<KeyValue>, Error> {
        Ok(self.range(RangeRequest::new(KeyRange::key(key))).await?.kvs.pop())
    }

    /// Puts one key with no guard; the revision it made.
    async fn put(&self, key: Bytes, value: Bytes) -> Result<Revision, Error> {
        let put = Op::Put(PutRequest::new(key, value));
        Ok(self.txn(Txn { success: vec![put], ..Txn::default() }).await?.revision)
    }

    /// Deletes a range with no guard; how many keys there were.
    async fn delete(&self, range: KeyRange) -> Result<u64, Error> {
        let delete = Op::Delete(DeleteRequest { range, prev_kv: false });
        let answer = self.txn(Txn { success: vec![delete], ..Txn::default() }).await?;
        Ok(answer
            .responses
            .into_iter()
            .map(|r| if let OpResponse::Delete { deleted, .. } = r { deleted } else { 0 })
            .sum())
    }
}
