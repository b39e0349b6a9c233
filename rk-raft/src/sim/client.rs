//! Clients that read and write.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{
    Compare, CompareOp, CompareTarget, DeleteRequest, KeyRange, KeyValue, Op, OpResponse, PutRequest, RangeRequest,
    Store, Txn,
};

use super::scene::Scene;

/// Milliseconds after which clients go on to other keys: it keeps the history of each object short, and the search for its order too.
const EPOCH: u64 = 2500;

struct Client {
    group: Arc<Scene>,
    number: u64,
    random: StdRng,
    values: u64,
}

/// A client that works until `until` in milliseconds of the run.
pub(crate) async fn client(group: Arc<Scene>, number: u64, seed: u64, until: u64) {
    let mut client = Client { group, number, random: StdRng::seed_from_u64(seed), values: 0 };
    let mut store = None;
    while client.group.trace.now() < until {
        // It stays with one member for a while.
        if store.is_none() || client.random.random_bool(0.05) {
            store = client.group.any(&mut client.random);
        }
        let done = match &store {
            Some(store) => client.work(&**store).await,
            None => None,
        };
        if done.is_none() {
            store = None;
        }
        let pause = client.random.random_range(if done.is_some() { 1..60 } else { 20..200 });
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

fn get(range: KeyRange) -> Op {
    Op::Range(RangeRequest::new(range))
}

fn txn(op: Op) -> Txn {
    Txn { success: vec![op], ..Txn::default() }
}

fn guard(key: &Bytes, target: CompareTarget) -> Compare {
    Compare { range: KeyRange::key(key.clone()), op: CompareOp::Equal, target }
}

impl Client {
    fn value(&mut self) -> Bytes {
        self.values += 1;
        format!("{}-{}", self.number, self.values).into()
    }

    fn put(&mut self, key: &Bytes) -> Op {
        let value = self.value();
        Op::Put(PutRequest::new(key.clone(), value))
    }

    /// A key that is used alone.
    fn alone(&mut self) -> Bytes {
        format!("{}/alone/{}", self.group.trace.now() / EPOCH, self.random.random_range(0..4)).into()
    }

    /// Keys that are used together, and what they begin with.
    fn together(&mut self) -> (Bytes, Bytes, Bytes) {
        let prefix = format!("{}/together/", self.group.trace.now() / EPOCH);
        let first = self.random.random_range(0..3);
        let key = |i| format!("{prefix}{i}").into();
        (key(first), key((first + 1) % 3), prefix.clone().into())
    }

    /// Does one thing; `None` if it failed.
    async fn work(&mut self, store: &dyn Store) -> Option<()> {
        let choice = self.random.random_range(0..100);
        let txn = match choice {
            0..25 => {
                let key = self.alone();
                return self.read(store, key).await.map(drop);
            }
            25..50 => {
                let key = self.alone();
                txn(self.put(&key))
            }
            50..56 => txn(Op::Delete(DeleteRequest { range: KeyRange::key(self.alone()), prev_kv: false })),
            56..75 => return self.swap(store).await,
            75..85 => txn(get(KeyRange::prefix(self.together().2))),
            85..95 => {
                let (one, other, prefix) = self.together();
                let version = self.random.random_range(0..4);
                let compare = vec![guard(&one, CompareTarget::Version(version))];
                let success = vec![self.put(&one), get(KeyRange::key(other.clone()))];
                let failure = vec![self.put(&other), get(KeyRange::prefix(prefix))];
                Txn { compare, success, failure }
            }
            95..98 => {
                let (one, other, _) = self.together();
                Txn { success: vec![self.put(&one), self.put(&other)], ..Txn::default() }
            }
            _ => txn(Op::Delete(DeleteRequest { range: KeyRange::prefix(self.together().2), prev_kv: false })),
        };
        self.record(store, txn.clone(), txn).await.map(drop)
    }

    async fn record(&self, store: &dyn Store, said: Txn, done: Txn) -> Option<rk_store::TxnResponse> {
        self.group.history.record(self.number, said, &self.group.trace, store.txn(done)).await
    }

    async fn read(&self, store: &dyn Store, key: Bytes) -> Option<Option<KeyValue>> {
        let read = txn(get(KeyRange::key(key)));
        let answer = self.record(store, read.clone(), read).await?;
        match answer.responses.into_iter().next() {
            Some(OpResponse::Range(found)) => Some(found.kvs.into_iter().next()),
            _ => None,
        }
    }

    /// Reads a key and changes it if nobody else has since.
    async fn swap(&mut self, store: &dyn Store) -> Option<()> {
        let key = self.alone();
        let found = self.read(store, key.clone()).await?;
        let pause = self.random.random_range(0..30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let revision = found.as_ref().map_or(0, |kv| kv.mod_revision);
        // Each value is put once, so the model may compare values where the store compares revisions.
        let same = match &found {
            Some(kv) => CompareTarget::Value(kv.value.clone()),
            None => CompareTarget::CreateRevision(0),
        };
        let success = vec![self.put(&key)];
        let failure = vec![get(KeyRange::key(key.clone()))];
        let said = Txn { compare: vec![guard(&key, same)], success: success.clone(), failure: failure.clone() };
        let done = Txn { compare: vec![guard(&key, CompareTarget::ModRevision(revision))], success, failure };
        self.record(store, said, done).await.map(drop)
    }
}

/// A client that compacts now and then.
pub(crate) async fn compactor(group: Arc<Scene>, seed: u64, until: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while group.trace.now() < until {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..3000))).await;
        let Some(store) = group.any(&mut random) else { continue };
        let Ok(status) = store.status().await else { continue };
        let keep = random.random_range(0..80);
        let revision = status.revision.saturating_sub(keep);
        if revision <= status.compact_revision {
            continue;
        }
        group.note_compaction(revision);
        let result = store.compact(revision).await;
        group.trace.tell(|| format!("compaction at {revision}: {result:?}"));
    }
}
