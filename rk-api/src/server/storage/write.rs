//! Writes: one object, guarded by the version that was read.

use std::sync::Arc;

use bytes::Bytes;
use rk_store::{Compare, CompareOp, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, PutRequest, Revision, Txn};

use super::{Cache, Collection, encode, key, store_error};
use crate::{Error, Object};

/// What a guarded write came to.
pub(crate) enum Write {
    /// It is stored (or, after a deletion, this was the last version, at the revision of the deletion).
    Done(Arc<Object>),
    /// Somebody was faster; the cache shows their version now.
    Raced,
}

impl Cache {
    /// Puts an object if its key still is at revision `expected` (0: is absent).
    ///
    /// # Errors
    /// The store refuses or fails.
    pub(crate) async fn put(
        &self,
        collection: &Collection,
        item: &str,
        json: Bytes,
        expected: Revision,
        lease: LeaseId,
    ) -> Result<Write, Error> {
        let key = key::full(&collection.name, item);
        let put = Op::Put(PutRequest { lease, ..PutRequest::new(key.clone(), json.clone()) });
        let Some(revision) = self.guarded(&key, expected, put).await? else { return Ok(Write::Raced) };
        match collection.get(item) {
            Some(cached) if cached.object.revision() == revision => Ok(Write::Done(Arc::clone(&cached.object))),
            _ => Ok(Write::Done(Arc::new(encode::decode(&key, &json, revision)?))),
        }
    }

    /// Deletes an object if it still is at revision `expected`; `json` is how it shall be remembered.
    ///
    /// # Errors
    /// The store refuses or fails.
    pub(crate) async fn remove(
        &self,
        collection: &Collection,
        item: &str,
        json: &[u8],
        expected: Revision,
    ) -> Result<Write, Error> {
        let key = key::full(&collection.name, item);
        let delete = Op::Delete(DeleteRequest { range: KeyRange::key(key.clone()), prev_kv: false });
        let Some(revision) = self.guarded(&key, expected, delete).await? else { return Ok(Write::Raced) };
        Ok(Write::Done(Arc::new(encode::decode(&key, json, revision)?)))
    }

    /// Runs `op` if the key is at `expected`, and waits until the cache shows what is there then. The revision made,
    /// `None` if the guard failed.
    async fn guarded(&self, key: &Bytes, expected: Revision, op: Op) -> Result<Option<Revision>, Error> {
        let guard = Compare {
            range: KeyRange::key(key.clone()),
            op: CompareOp::Equal,
            target: CompareTarget::ModRevision(expected),
        };
        let txn = Txn { compare: vec![guard], success: vec![op], failure: Vec::new() };
        let answer = self.store.txn(txn).await.map_err(store_error)?;
        self.wait_for(answer.revision).await?;
        Ok(answer.succeeded.then_some(answer.revision))
    }
}
