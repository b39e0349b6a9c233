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
/// An implementation keeps these; the suite in `rk_store::testing` (feature `testing`) checks each, by checks named after its
/// number.
/// 1. **Order**: transactions have one order, and [`Revision`] counts those that changed something. Each pair tells the
///    revisions of its creation and last change and the number of its puts.
/// 2. **Atomicity**: a txn takes effect at one revision or not at all.
/// 3. **Transactions**: the branches a txn takes, those of nested txns too, are decided by the state before it; its operations see
///    what those before them did. A put keeps the value or the lease the key has, if told so.
/// 4. **Refusals** change nothing and say what is wrong by the variant of [`Error`].
/// 5. **Linearizability**: a read at revision 0 that is not [serializable](RangeRequest::serializable) sees every
///    txn acknowledged before it began.
/// 6. **Durability**: what was acknowledged is there after a crash, as far as the store is durable at all.
/// 7. **History**: a read at a past revision gives what was there then, until it is compacted.
/// 8. **Ranges** are filtered, sorted, cut and counted as [`RangeRequest`] says.
/// 9. **Compaction** forgets what was there before the compact revision and nothing else, and makes no revision.
/// 10. **Watch**: from revision r, every change since r, in order, exactly once, by whole revisions. Only changes that are
///     durable are delivered.
/// 11. **Watch from the past**: from any revision behind the compact revision, and from that itself where the store still has every
///     change made at it; else [`Error::Compacted`] with the compact revision. From a revision in the future: nothing before it.
/// 12. **What a watch tells**: the pair before, if asked for and not compacted; no puts or no deletes, if so wanted.
/// 13. **Progress**: a watch that has delivered everything up to a revision tells so, on request and, if it was asked for,
///     now and then.
/// 14. **Slow watchers** neither block writers nor grow memory without bound. Their stream goes on from history, or ends with
///     [`Error::Unavailable`] or [`Error::Compacted`] and may be resumed at the revision it reached.
/// 15. **Leases** never end early: not by a restart and not by a change of leader. When one ends, or is revoked, its keys go at
///     one revision.
/// 16. **Keys and leases**: a put binds the key to the lease it names, or to none, instead of the one before; a delete
///     unbinds it.
/// 17. **Alarms** stay active until they are deactivated. While one of [space](crate::AlarmKind::NoSpace) is, puts and new leases are
///     refused, and deletes and compaction work; while one of [corruption](crate::AlarmKind::Corrupt) is, every change is refused.
/// 18. **Hashes** of one revision and compact revision are equal just if the content is.
/// 19. **Snapshots** hold one state, leases and history included, whatever is written while they are read.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads keys in order.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error>;

    /// The newest revision, as a linearizable read tells it (guarantee 5).
    async fn revision(&self) -> Result<Revision, Error> {
        let nothing = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key(&b"/"[..])) };
        Ok(self.range(nothing).await?.revision)
    }

    /// Runs a transaction; when this returns `Ok`, it is durable.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error>;

    /// Watches a range from a revision.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error>;

    /// Forgets history before `revision`: the state at `revision` stays readable; anything older fails with
    /// [`Error::Compacted`].
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
