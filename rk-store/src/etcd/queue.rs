//! Waiting in line by keys: what locks and elections have in common.
//!
//! Whoever waits puts a key of its own, bound to its lease, below the line's name. The key created first has its
//! turn; the others wait until those created before them are gone. This is the recipe of etcd's `client/v3/concurrency`.

use bytes::Bytes;
use futures::StreamExt;
use tonic::Status;

use super::{service::Shared, status};
use crate::{
    Compare, CompareOp, CompareTarget, DeleteRequest, Error, EventKind, KeyRange, KeyValue, LeaseId, Op, OpResponse,
    PutRequest, RangeRequest, Revision, SortOrder, SortTarget, Txn, WatchRequest,
};

/// Seconds that a place without a lease of its own lasts: the time to live of etcd's client sessions.
const SESSION_TTL: i64 = 60;

/// An error as the Lock and Election services tell it: etcd's have it from a client of their own, who takes the code off.
pub(crate) fn status(error: Error) -> Status {
    without_code(&status::status(error))
}

pub(crate) fn without_code(status: &Status) -> Status {
    Status::unknown(status.message())
}

/// A place in a line.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) key: Bytes,
    /// The revision that created the key.
    pub(crate) created: Revision,
    /// The store's revision when the place was taken or found.
    pub(crate) revision: Revision,
    pub(crate) lease: LeaseId,
    /// The value of a key that was there already.
    pub(crate) found: Option<Bytes>,
}

/// All places of a line.
pub(crate) fn line(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The guard that a place is still there.
fn still(key: &Bytes, created: Revision) -> Compare {
    let target = CompareTarget::CreateRevision(created);
    Compare { range: KeyRange::key(key.clone()), op: CompareOp::Equal, target }
}

impl Shared {
    /// Takes a place in a line, or finds the one that the lease has there.
    pub(crate) async fn enqueue(&self, name: &[u8], lease: LeaseId, value: Bytes) -> Result<Place, Status> {
        let lease = match lease {
            0 => self.store.lease_grant(0, SESSION_TTL).await.map_err(status)?.id,
            lease => lease,
        };
        let key = Bytes::from([&line(name)[..], format!("{lease:x}").as_bytes()].concat());
        let put = PutRequest { lease, ..PutRequest::new(key.clone(), value) };
        let get = RangeRequest::new(KeyRange::key(key.clone()));
        let txn = Txn { compare: vec![still(&key, 0)], success: vec![Op::Put(put)], failure: vec![Op::Range(get)] };
        let mut answer = self.store.txn(txn).await.map_err(status)?;
        let found = match answer.responses.pop() {
            Some(OpResponse::Range(mut range)) => range.kvs.pop(),
            _ => None,
        };
        let created = found.as_ref().map_or(answer.revision, |kv| kv.create_revision);
        Ok(Place { key, created, revision: answer.revision, lease, found: found.map(|kv| kv.value) })
    }

    /// Waits until a place is the first of its line; the revision at which it is. Its lease is kept alive meanwhile.
    pub(crate) async fn turn(&self, name: &[u8], place: &Place) -> Result<Revision, Status> {
        let waiting = self.wait_for_those_before(name, place.created);
        tokio::pin!(waiting);
        loop {
            let ttl = self.store.lease_keep_alive(place.lease).await.map_err(status)?.ttl;
            let renewal = std::time::Duration::from_secs(u64::try_from(ttl / 3).unwrap_or(0).max(1));
            tokio::select! {
                revision = &mut waiting => return revision,
                () = tokio::time::sleep(renewal) => {}
            }
        }
    }

    async fn wait_for_those_before(&self, name: &[u8], created: Revision) -> Result<Revision, Status> {
        loop {
            let newest_before = RangeRequest {
                limit: 1,
                sort_order: SortOrder::Descend,
                sort_target: SortTarget::CreateRevision,
                max_create_revision: created.saturating_sub(1),
                ..RangeRequest::new(KeyRange::prefix(line(name)))
            };
            let mut found = self.store.range(newest_before).await.map_err(status)?;
            let Some(before) = found.kvs.pop() else { return Ok(found.revision) };
            self.wait_for_delete(before.key, found.revision).await?;
        }
    }

    /// Waits until a key that is there at `revision` is deleted.
    async fn wait_for_delete(&self, key: Bytes, revision: Revision) -> Result<(), Status> {
        let request = WatchRequest { no_put: true, ..WatchRequest::new(KeyRange::key(key), revision + 1) };
        let mut watch = self.store.watch(request).await.map_err(status)?;
        while let Some(batch) = watch.next().await {
            if batch.map_err(status)?.events.iter().any(|event| event.kind == EventKind::Delete) {
                break;
            }
        }
        Ok(())
    }

    /// Gives a place another value, if it is still there.
    pub(crate) async fn replace(
        &self,
        key: Bytes,
        created: Revision,
        lease: LeaseId,
        value: Bytes,
    ) -> Result<Option<Revision>, Status> {
        let put = PutRequest { lease, ..PutRequest::new(key.clone(), value) };
        let txn = Txn { compare: vec![still(&key, created)], success: vec![Op::Put(put)], failure: Vec::new() };
        let answer = self.store.txn(txn).await.map_err(status)?;
        Ok(answer.succeeded.then_some(answer.revision))
    }

    /// Gives a place up, if it is still there; the store's revision then.
    pub(crate) async fn leave(&self, key: Bytes, created: Revision) -> Result<Revision, Status> {
        let delete = DeleteRequest { range: KeyRange::key(key.clone()), prev_kv: false };
        let txn = Txn { compare: vec![still(&key, created)], success: vec![Op::Delete(delete)], failure: Vec::new() };
        Ok(self.store.txn(txn).await.map_err(status)?.revision)
    }

    /// The pair of the first place of a line, and the store's revision.
    pub(crate) async fn first(&self, name: &[u8]) -> Result<(Option<KeyValue>, Revision), Status> {
        let oldest = RangeRequest {
            limit: 1,
            sort_order: SortOrder::Ascend,
            sort_target: SortTarget::CreateRevision,
            ..RangeRequest::new(KeyRange::prefix(line(name)))
        };
        let mut found = self.store.range(oldest).await.map_err(status)?;
        Ok((found.kvs.pop(), found.revision))
    }
}
