//! Random histories against a naive model: a store that keeps a whole copy of itself for each revision.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
    sync::Arc,
};

use bytes::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};

use super::events;
use crate::{
    Compare, CompareOp, CompareTarget, DeleteRequest, Error, Event, EventKind, KeyRange, KeyValue, LeaseId, Op,
    OpResponse, PutRequest, RangeRequest, RangeResponse, Revision, SortOrder, SortTarget, Store, Txn, TxnResponse,
    WatchRequest,
};

/// One request of a history.
#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    Range(RangeRequest),
    Compact(Revision),
    Grant(LeaseId),
    Revoke(LeaseId),
}

/// Runs `cases` random histories, each on a new, empty store from `make`: every answer must be the model's, and so must every
/// state that can still be read and every watch that can still be started. Panics with the shortest history found that differs.
pub fn against_model<F>(cases: u32, make: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Store>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&vec(step(), 1..40), |steps| {
        runtime.block_on(async {
            let store = make().await;
            check(&*store, steps).await
        })
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => panic!("{reason}\nin the history {steps:#?}"),
        Err(error) => panic!("{error}"),
    }
}

async fn check(store: &dyn Store, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    model.states.push(BTreeMap::new());
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Txn(txn) => same(i, store.txn(txn.clone()).await, model.txn(txn))?,
            Step::Range(request) => same(i, store.range(request.clone()).await, model.range(request))?,
            Step::Compact(revision) => same(i, store.compact(*revision).await, model.compact(*revision))?,
            Step::Grant(id) => same(i, store.lease_grant(*id, 1000).await.map(drop), model.grant(*id))?,
            Step::Revoke(id) => same(i, store.lease_revoke(*id).await, model.revoke(*id))?,
        }
    }
    for revision in 1..=model.revision() {
        let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
        same(usize::MAX, store.range(request.clone()).await, model.range(&request))?;
    }
    for id in LEASES {
        let keys = store.lease_time_to_live(id, true).await.map(|lease| lease.keys);
        same(usize::MAX, keys, model.lease_keys(id).map(|keys| keys.into_iter().collect()))?;
    }
    for start in model.compacted + 1..=model.revision() {
        for (range, no_put, no_delete) in [
            (KeyRange::all(), false, false),
            (KeyRange::prefix("b"), false, false),
            (KeyRange::all(), true, false),
            (KeyRange::all(), false, true),
        ] {
            let request = WatchRequest { prev_kv: true, no_put, no_delete, ..WatchRequest::new(range, start) };
            let mut wanted = model.events(&request.range, start);
            wanted.retain(|event| if event.kind == EventKind::Put { !no_put } else { !no_delete });
            let mut watch = store.watch(request).await.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(events(&mut watch, wanted.len()).await, wanted, "in the watch from {}", start);
        }
    }
    Ok(())
}

/// Errors are the same if they are of one kind: how an implementation words them is its own affair.
fn same<T: PartialEq + std::fmt::Debug>(
    step: usize,
    found: Result<T, Error>,
    wanted: Result<T, Error>,
) -> Result<(), TestCaseError> {
    let same = match (&found, &wanted) {
        (Ok(found), Ok(wanted)) => found == wanted,
        (Err(found), Err(wanted)) => discriminant(found) == discriminant(wanted),
        _ => false,
    };
    prop_assert!(same, "step {}: the store says {:?}, the model {:?}", step, found, wanted);
    Ok(())
}

const LEASES: std::ops::RangeInclusive<LeaseId> = 1..=2;

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "b", "ba", "bb", "c"]).prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::key),
        2 => key().prop_map(KeyRange::prefix),
        1 => Just(KeyRange::all()),
        1 => (key(), key()).prop_map(|(start, end)| KeyRange { start, end: Some(end) }),
    ]
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let revision = prop_oneof![2 => Just(0), 1 => 0..30u64];
    let bound = || prop_oneof![5 => Just(0), 1 => 1..20u64];
    let order = prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::CreateRevision,
        SortTarget::ModRevision,
        SortTarget::Value,
    ]);
    let plain = (range(), revision, 0..3usize, any::<bool>(), prop::bool::weighted(0.2));
    (plain, prop::option::of((order, target)), [bound(), bound(), bound(), bound()]).prop_map(
        |((range, revision, limit, keys_only, count_only), sort, bounds)| {
            let (sort_order, sort_target) = sort.unwrap_or_default();
            let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
            RangeRequest {
                revision,
                limit,
                keys_only,
                count_only,
                sort_order,
                sort_target,
                min_mod_revision,
                max_mod_revision,
                min_create_revision,
                max_create_revision,
                ..RangeRequest::new(range)
            }
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..3u64).prop_map(CompareTarget::Version),
        (0..20u64).prop_map(CompareTarget::CreateRevision),
        (0..20u64).prop_map(CompareTarget::ModRevision),
        "[xy]".prop_map(|value| CompareTarget::Value(value.into())),
        (0..3i64).prop_map(CompareTarget::Lease),
    ];
    let op = prop::sample::select(vec![CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual]);
    (range(), op, target).prop_map(|(range, op, target)| Compare { range, op, target })
}

fn op() -> impl Strategy<Value = Op> {
    let lease = prop_oneof![4 => Just(0), 1 => LEASES];
    let put = (key(), "[xy]", lease, any::<bool>()).prop_map(|(key, value, lease, prev_kv)| PutRequest {
        lease,
        prev_kv,
        ..PutRequest::new(key, value)
    });
    let put = (put, prop_oneof![6 => Just((false, false)), 1 => any::<(bool, bool)>()]).prop_map(|(put, keep)| {
        let (ignore_value, ignore_lease) = keep;
        // Mostly as it must be, with nothing beside what is kept.
        let value = if ignore_value { Bytes::new() } else { put.value };
        let lease = if ignore_lease { 0 } else { put.lease };
        Op::Put(PutRequest { value, lease, ignore_value, ignore_lease, ..put })
    });
    let delete = (range(), any::<bool>()).prop_map(|(range, prev_kv)| Op::Delete(DeleteRequest { range, prev_kv }));
    prop_oneof![4 => put, 2 => delete, 1 => range_request().prop_map(Op::Range)].prop_recursive(2, 6, 2, |op| {
        (vec(compare(), 0..2), vec(op.clone(), 0..3), vec(op, 0..2))
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    })
}

fn step() -> impl Strategy<Value = Step> {
    let txn = (vec(compare(), 0..2), vec(op(), 0..4), vec(op(), 0..2))
        .prop_map(|(compare, success, failure)| Step::Txn(Txn { compare, success, failure }));
    prop_oneof![
        12 => txn,
        3 => range_request().prop_map(Step::Range),
        1 => (0..25u64).prop_map(Step::Compact),
        2 => LEASES.prop_map(Step::Grant),
        1 => LEASES.prop_map(Step::Revoke),
    ]
}

type State = BTreeMap<Bytes, KeyValue>;

/// See the module's description.
#[derive(Debug, Default)]
struct Model {
    /// The state at each revision from 1 on.
    states: Vec<State>,
    /// The events of each revision from 2 on.
    events: Vec<Vec<Event>>,
    compacted: Revision,
    leases: BTreeSet<LeaseId>,
}

/// A txn under way.
struct Work {
    state: State,
    events: Vec<Event>,
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn now(&self) -> &State {
        self.states.last().expect("there is a state at revision 1")
    }

    fn events(&self, range: &KeyRange, from: Revision) -> Vec<Event> {
        let all = self.events.iter().flatten();
        all.filter(|event| event.kv.mod_revision >= from && range.contains(&event.kv.key)).cloned().collect()
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let current = self.revision();
        let revision = if request.revision == 0 { current } else { request.revision };
        if revision > current {
            return Err(Error::FutureRevision { requested: revision, current });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        Ok(answer(&self.states[revision as usize - 1], request, current))
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision > self.revision() {
            return Err(Error::FutureRevision { requested: revision, current: self.revision() });
        }
        if revision <= self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        self.compacted = revision;
        Ok(())
    }

    fn grant(&mut self, id: LeaseId) -> Result<(), Error> {
        if self.leases.insert(id) { Ok(()) } else { Err(Error::LeaseExists(id)) }
    }

    fn lease_keys(&self, id: LeaseId) -> Result<BTreeSet<Bytes>, Error> {
        if !self.leases.contains(&id) {
            return Err(Error::LeaseNotFound(id));
        }
        Ok(self.now().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect())
    }

    fn revoke(&mut self, id: LeaseId) -> Result<(), Error> {
        let mut work = self.begin();
        for key in self.lease_keys(id)? {
            self.delete(&mut work, &key);
        }
        self.leases.remove(&id);
        self.commit(work);
        Ok(())
    }

    fn begin(&self) -> Work {
        Work { state: self.now().clone(), events: Vec::new() }
    }

    fn commit(&mut self, work: Work) {
        if !work.events.is_empty() {
            self.states.push(work.state);
            self.events.push(work.events);
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnResponse, Error> {
        // Wrong if some way through it changes a key twice.
        if paths(&[], &[Op::Txn(txn.clone())]).iter().any(|path| changes_twice(path)) {
            return Err(Error::DuplicateKey(Bytes::new()));
        }
        self.check(txn, &|op| match op {
            Op::Put(put) if (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key) => {
                Err(Error::KeyNotFound)
            }
            Op::Put(put) if put.lease != 0 && !self.leases.contains(&put.lease) => Err(Error::LeaseNotFound(put.lease)),
            _ => Ok(()),
        })?;
        self.check(txn, &|op| match op {
            Op::Range(request) => self.range(request).map(drop),
            _ => Ok(()),
        })?;
        let mut work = self.begin();
        let answer = self.execute(&mut work, txn)?;
        self.commit(work);
        Ok(answer)
    }

    /// Calls `check` with the operations that would be done.
    fn check(&self, txn: &Txn, check: &impl Fn(&Op) -> Result<(), Error>) -> Result<(), Error> {
        let succeeded = txn.compare.iter().all(|compare| holds(self.now(), compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        ops.iter().try_for_each(|op| if let Op::Txn(txn) = op { self.check(txn, check) } else { check(op) })
    }

    fn execute(&self, work: &mut Work, txn: &Txn) -> Result<TxnResponse, Error> {
        let succeeded = txn.compare.iter().all(|compare| holds(self.now(), compare));
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let revision = self.revision() + u64::from(!work.events.is_empty());
            responses.push(match op {
                Op::Range(request) if request.revision == 0 => {
                    OpResponse::Range(answer(&work.state, request, revision))
                }
                Op::Range(request) => OpResponse::Range(RangeResponse { revision, ..self.range(request)? }),
                Op::Put(put) => {
                    let before = self.put(work, put);
                    OpResponse::Put { prev_kv: before.filter(|_| put.prev_kv) }
                }
                Op::Delete(delete) => {
                    let keys: Vec<_> = work.state.keys().filter(|key| delete.range.contains(key)).cloned().collect();
                    let prev_kvs: Vec<_> = keys.iter().filter_map(|key| self.delete(work, key)).collect();
                    let deleted = prev_kvs.len() as u64;
                    OpResponse::Delete { deleted, prev_kvs: if delete.prev_kv { prev_kvs } else { Vec::new() } }
                }
                Op::Txn(txn) => OpResponse::Txn(self.execute(work, txn)?),
            });
        }
        let revision = self.revision() + u64::from(!work.events.is_empty());
        Ok(TxnResponse { succeeded, responses, revision })
    }

    fn put(&self, work: &mut Work, put: &PutRequest) -> Option<KeyValue> {
        let before = work.state.get(&put.key).cloned();
        let revision = self.revision() + 1;
        let (create_revision, version) =
            before.as_ref().map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let (key, mut value, mut lease) = (put.key.clone(), put.value.clone(), put.lease);
        if let Some(before) = &before {
            value = if put.ignore_value { before.value.clone() } else { value };
            lease = if put.ignore_lease { before.lease } else { lease };
        }
        let kv = KeyValue { key, value, create_revision, mod_revision: revision, version, lease };
        work.state.insert(put.key.clone(), kv.clone());
        work.events.push(Event { kind: EventKind::Put, kv, prev_kv: before.clone() });
        before
    }

    fn delete(&self, work: &mut Work, key: &Bytes) -> Option<KeyValue> {
        let before = work.state.remove(key)?;
        let (key, value, mod_revision) = (key.clone(), Bytes::new(), self.revision() + 1);
        let kv = KeyValue { key, value, create_revision: 0, mod_revision, version: 0, lease: 0 };
        work.events.push(Event { kind: EventKind::Delete, prev_kv: self.now().get(&kv.key).cloned(), kv });
        Some(before)
    }
}

fn answer(state: &State, request: &RangeRequest, revision: Revision) -> RangeResponse {
    let mut kvs: Vec<_> = state.values().filter(|kv| request.range.contains(&kv.key)).cloned().collect();
    let count = kvs.len() as u64;
    let bounds =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    // etcd's rule for a target without an order.
    if request.sort_order == SortOrder::None && bounds == [0; 4] && request.limit > 0 {
        kvs.truncate(request.limit + 1);
    }
    let max = |bound: Revision| if bound == 0 { Revision::MAX } else { bound };
    kvs.retain(|kv| (request.min_mod_revision..=max(request.max_mod_revision)).contains(&kv.mod_revision));
    kvs.retain(|kv| (request.min_create_revision..=max(request.max_create_revision)).contains(&kv.create_revision));
    // The key last, so that pairs that are equal in what they are sorted by come in key order.
    let weight = |kv: &KeyValue| match request.sort_target {
        SortTarget::Key => (0, Bytes::new()),
        SortTarget::Version => (kv.version, Bytes::new()),
        SortTarget::CreateRevision => (kv.create_revision, Bytes::new()),
        SortTarget::ModRevision => (kv.mod_revision, Bytes::new()),
        SortTarget::Value => (0, kv.value.clone()),
    };
    kvs.sort_by_key(|kv| (weight(kv), kv.key.clone()));
    if request.sort_order == SortOrder::Descend {
        match request.sort_target {
            SortTarget::Key => kvs.reverse(),
            _ => kvs.sort_by_key(|kv| (std::cmp::Reverse(weight(kv)), kv.key.clone())),
        }
    }
    let more = request.limit > 0 && kvs.len() > request.limit && !request.count_only;
    if request.limit > 0 {
        kvs.truncate(request.limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    if request.count_only {
        kvs.clear();
    }
    RangeResponse { more, kvs, count, revision }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let found: Vec<_> = state.values().filter(|kv| compare.range.contains(&kv.key)).collect();
    let absent =
        KeyValue { key: Bytes::new(), value: Bytes::new(), create_revision: 0, mod_revision: 0, version: 0, lease: 0 };
    if found.is_empty() {
        return !matches!(compare.target, CompareTarget::Value(_)) && relation(&absent, compare);
    }
    found.into_iter().all(|kv| relation(kv, compare))
}

fn relation(kv: &KeyValue, compare: &Compare) -> bool {
    fn test<T: Ord>(op: CompareOp, found: &T, wanted: &T) -> bool {
        match op {
            CompareOp::Equal => found == wanted,
            CompareOp::Greater => found > wanted,
            CompareOp::Less => found < wanted,
            CompareOp::NotEqual => found != wanted,
        }
    }
    match &compare.target {
        CompareTarget::Version(wanted) => test(compare.op, &kv.version, wanted),
        CompareTarget::CreateRevision(wanted) => test(compare.op, &kv.create_revision, wanted),
        CompareTarget::ModRevision(wanted) => test(compare.op, &kv.mod_revision, wanted),
        CompareTarget::Value(wanted) => test(compare.op, &kv.value, wanted),
        CompareTarget::Lease(wanted) => test(compare.op, &kv.lease, wanted),
    }
}

/// A put or delete with its place in the tree of txns.
type Placed<'a> = (Vec<usize>, &'a Op);

/// Every way through these operations of the txn at a place, as the puts and deletes on it.
fn paths<'a>(place: &[usize], ops: &'a [Op]) -> Vec<Vec<Placed<'a>>> {
    ops.iter().enumerate().fold(vec![Vec::new()], |before, (i, op)| {
        let place = [place, &[i]].concat();
        let ways = match op {
            Op::Range(_) => vec![Vec::new()],
            Op::Put(_) | Op::Delete(_) => vec![vec![(place, op)]],
            Op::Txn(txn) => [paths(&place, &txn.success), paths(&place, &txn.failure)].concat(),
        };
        let both = |first: &Vec<_>| ways.iter().map(|way| [&first[..], way].concat()).collect::<Vec<_>>();
        before.iter().flat_map(both).collect()
    })
}

/// Whether a key is put twice, or put and deleted. A nested txn may delete what an earlier one beside it has put.
fn changes_twice(path: &[Placed<'_>]) -> bool {
    let nested_apart = |first: &[usize], second: &[usize]| {
        let common = first.iter().zip(second).take_while(|(a, b)| a == b).count();
        first.len() > common + 1 && second.len() > common + 1
    };
    path.iter().enumerate().any(|(i, (first, a))| {
        path[i + 1..].iter().any(|(second, b)| match (a, b) {
            (Op::Put(a), Op::Put(b)) => a.key == b.key,
            (Op::Delete(delete), Op::Put(put)) => delete.range.contains(&put.key),
            (Op::Put(put), Op::Delete(delete)) => delete.range.contains(&put.key) && !nested_apart(first, second),
            _ => false,
        })
    })
}
