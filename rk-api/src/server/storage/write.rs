//! Writes: one object, guarded by the version that was read, with what it alone may hold.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use rk_store::{
    Compare, CompareOp, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, OpResponse, PutRequest, RangeRequest,
    Revision, Txn,
};

use super::{Cache, Collection, encode, key, store_error};
use crate::{Error, Object};

/// What a guarded write came to.
pub(crate) enum Write {
    /// It is stored (or, after a deletion, this was the last version, at the revision of the deletion).
    Done(Arc<Object>),
    /// Somebody was faster; the cache shows their version now.
    Raced,
    /// Another object holds what this one claims, or one that was to be written too has changed; the cache shows that object now.
    Held,
}

/// What a write changes of what its object alone holds: see [`Strategy::claims`](crate::server::Strategy::claims).
#[derive(Default)]
pub(crate) struct Claims {
    taken: Vec<String>,
    given_back: Vec<String>,
    beside: Vec<Beside>,
    /// Other objects that go, by collection and item.
    gone: Vec<(String, String)>,
    /// Dropped once the write is on its way to the store.
    until_sent: Option<Box<dyn Any + Send + Sync>>,
}

/// Another object that is written with one, if it is what is expected.
#[derive(Debug, Clone)]
pub(crate) struct Beside {
    pub(crate) collection: String,
    pub(crate) item: String,
    pub(crate) json: Bytes,
    pub(crate) expected: Expected,
    /// What becomes of it.
    pub(crate) written: Written,
}

/// What another object must be, so that it is written with one.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// At the revision at which it was read.
    At(Revision),
    /// What this write leaves, which may still be under way.
    Left(Written),
}

/// A write of another object, as those know it who follow it.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<(OnceLock<Bytes>, AtomicBool)>);

impl Written {
    /// Its bytes; `None` before it is sent.
    fn bytes(&self) -> Option<&Bytes> {
        self.0.0.get()
    }

    /// Whether it is done.
    pub(crate) fn is_done(&self) -> bool {
        self.0.1.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("sent", &self.bytes().is_some()).field("done", &self.is_done()).finish()
    }
}

impl Beside {
    /// One that is to be at a revision; 0 if it is to be absent.
    pub(crate) fn new(collection: String, item: String, json: Bytes, expected: Revision) -> Self {
        Self { collection, item, json, expected: Expected::At(expected), written: Written::default() }
    }
}

impl Claims {
    /// From what the object held to what it will hold.
    pub(crate) fn change(held: Vec<String>, mut wanted: Vec<String>) -> Self {
        wanted.sort_unstable();
        wanted.dedup();
        let given_back = held.iter().filter(|claim| !wanted.contains(claim)).cloned().collect();
        wanted.retain(|claim| !held.contains(claim));
        Self { taken: wanted, given_back, ..Self::default() }
    }

    /// And changes these objects too.
    #[must_use]
    pub(crate) fn with(mut self, beside: Vec<Beside>) -> Self {
        self.beside.extend(beside);
        self
    }

    /// And removes these, named by their collections and items.
    #[must_use]
    pub(crate) fn without(mut self, gone: Vec<(String, String)>) -> Self {
        self.gone.extend(gone);
        self
    }

    /// Whether a write with these may come to [`Write::Held`].
    pub(crate) fn may_be_held(&self) -> bool {
        !self.taken.is_empty() || !self.beside.is_empty()
    }

    /// And keeps a value until all is on its way to the store.
    #[must_use]
    pub(crate) fn until_sent(self, value: impl Any + Send + Sync) -> Self {
        Self { until_sent: Some(Box::new(value)), ..self }
    }
}

/// How a guarded transaction ended.
enum Guarded {
    /// At this revision.
    Done(Revision),
    Raced,
    Held,
}

impl Cache {
    /// Whether an object is to be written anew though it does not change: another key than the first has encrypted it.
    pub(crate) fn is_stale(&self, collection: &Collection, item: &str) -> bool {
        self.encryption.is_in_use() && self.encryption.is_stale(&key::full(&collection.name, item))
    }

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
        claims: Claims,
    ) -> Result<Write, Error> {
        let key = key::full(&collection.name, item);
        let value = self.encryption.seal(&collection.name, &key, json.clone())?;
        let put = Op::Put(PutRequest { lease, ..PutRequest::new(key.clone(), value) });
        let revision = match self.guarded(collection, &key, expected, put, claims).await? {
            Guarded::Done(revision) => revision,
            Guarded::Raced => return Ok(Write::Raced),
            Guarded::Held => return Ok(Write::Held),
        };
        self.encryption.replaced(&key);
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
        claims: Claims,
    ) -> Result<Write, Error> {
        let key = key::full(&collection.name, item);
        let delete = delete(key.clone());
        match self.guarded(collection, &key, expected, delete, claims).await? {
            Guarded::Done(revision) => {
                self.encryption.replaced(&key);
                Ok(Write::Done(Arc::new(encode::decode(&key, json, revision)?)))
            }
            Guarded::Raced => Ok(Write::Raced),
            Guarded::Held => Ok(Write::Held),
        }
    }

    /// Runs `op` if the key is at `expected` and nobody holds what is claimed, and waits until the cache shows what is there
    /// then.
    async fn guarded(
        &self,
        collection: &Collection,
        key: &Bytes,
        expected: Revision,
        op: Op,
        claims: Claims,
    ) -> Result<Guarded, Error> {
        let claim = |what: &String| key::claim(&collection.name, what);
        let taken: Vec<Bytes> = claims.taken.iter().map(claim).collect();
        let mut compare = vec![is_at(key.clone(), expected)];
        compare.extend(taken.iter().map(|claim| is_at(claim.clone(), 0)));
        let mut success = vec![op];
        success.extend(taken.into_iter().map(|claim| Op::Put(PutRequest::new(claim, key.clone()))));
        success.extend(claims.given_back.iter().map(|what| delete(claim(what))));
        let mut beside = Vec::with_capacity(claims.beside.len());
        for other in claims.beside {
            let key = key::full(&other.collection, &other.item);
            compare.push(match &other.expected {
                Expected::At(revision) => is_at(key.clone(), *revision),
                Expected::Left(before) => match before.bytes() {
                    Some(bytes) => is(key.clone(), bytes.clone()),
                    // It was given up, so nobody finds what it would have left.
                    None => return Ok(Guarded::Held),
                },
            });
            let value = self.encryption.seal(&other.collection, &key, other.json)?;
            let value = other.written.0.0.get_or_init(|| value).clone();
            success.push(Op::Put(PutRequest::new(key.clone(), value)));
            beside.push((key, other.written));
        }
        for (collection, item) in &claims.gone {
            let key = key::full(collection, item);
            success.push(delete(key.clone()));
            beside.push((key, Written::default()));
        }
        // Which of the guards failed: the object's own, or that of a claim?
        let failure = if compare.len() == 1 {
            Vec::new()
        } else {
            vec![Op::Range(RangeRequest::new(KeyRange::key(key.clone())))]
        };
        let mut answer = self.store.txn(Txn { compare, success, failure });
        // A store takes up what it is asked at once, one after the other.
        let at_once = futures::poll!(&mut answer);
        drop(claims.until_sent);
        let answer = match at_once {
            Poll::Ready(answer) => answer,
            Poll::Pending => answer.await,
        };
        let answer = answer.map_err(store_error)?;
        self.wait_for(answer.revision).await?;
        if answer.succeeded {
            for (key, written) in beside {
                self.encryption.replaced(&key);
                written.0.1.store(true, Ordering::Release);
            }
            return Ok(Guarded::Done(answer.revision));
        }
        Ok(match answer.responses.first() {
            Some(OpResponse::Range(found)) if found.kvs.first().map_or(0, |kv| kv.mod_revision) == expected => {
                Guarded::Held
            }
            _ => Guarded::Raced,
        })
    }
}

fn is_at(key: Bytes, revision: Revision) -> Compare {
    Compare { range: KeyRange::key(key), op: CompareOp::Equal, target: CompareTarget::ModRevision(revision) }
}

fn is(key: Bytes, value: Bytes) -> Compare {
    Compare { range: KeyRange::key(key), op: CompareOp::Equal, target: CompareTarget::Value(value) }
}

fn delete(key: Bytes) -> Op {
    Op::Delete(DeleteRequest { range: KeyRange::key(key), prev_kv: false })
}
