//! The checks of [`Store`]'s guarantees, by their numbers there. Each wants a new, empty store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

pub use super::watch::{
    slow_watchers_hold_nobody_up, watches_deliver_whole_revisions, watches_end_when_compacted,
    watches_join_without_gap, watches_start_anywhere, watches_tell_progress, watches_tell_the_pair_before,
};
use super::{events, put, txn};
use crate::{
    Compare, CompareOp, CompareTarget, DeleteRequest, Error, EventKind, KeyRange, MAX_LEASE_TTL, MAX_REQUEST_BYTES,
    MAX_TXN_OPS, MIN_LEASE_TTL, Op, OpResponse, PutRequest, RangeRequest, Revision, Store, Txn, TxnResponse,
    WatchRequest,
};

fn delete(range: KeyRange) -> Op {
    Op::Delete(DeleteRequest { range, prev_kv: true })
}

fn read(range: KeyRange) -> Op {
    Op::Range(RangeRequest::new(range))
}

fn guard(key: &'static str, op: CompareOp, target: CompareTarget) -> Compare {
    Compare { range: KeyRange::key(key), op, target }
}

async fn revision(store: &dyn Store) -> Revision {
    store.status().await.expect("status").revision
}

async fn run(store: &dyn Store, ops: impl Into<Vec<Op>>) -> TxnResponse {
    store.txn(txn(ops)).await.expect("a txn without guards succeeds")
}

/// The keys and values of a range at a revision, 0 being now.
async fn pairs(store: &dyn Store, range: KeyRange, revision: Revision) -> Vec<(Bytes, Bytes)> {
    let request = RangeRequest { revision, ..RangeRequest::new(range) };
    let answer = store.range(request).await.expect("the revision is there");
    answer.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

/// 1. The revision counts what changed something, from 1, and nothing else.
pub async fn revisions_count_changes(store: Arc<dyn Store>) {
    assert_eq!(revision(&*store).await, 1, "an empty store");
    assert_eq!(store.put("a".into(), "1".into()).await.expect("a put"), 2);
    assert_eq!(store.put("a".into(), "1".into()).await.expect("a put"), 3, "an equal value is a change too");
    assert_eq!(run(&*store, [put("b", "1"), put("c", "1")]).await.revision, 4, "one txn is one revision");
    assert_eq!(run(&*store, [delete(KeyRange::key("x"))]).await.revision, 4, "nothing was deleted");
    assert_eq!(run(&*store, [read(KeyRange::all())]).await.revision, 4, "nothing was written");
    let never = guard("a", CompareOp::Equal, CompareTarget::Version(0));
    let refused = Txn { compare: vec![never], success: vec![put("a", "2")], failure: Vec::new() };
    assert_eq!(store.txn(refused).await.expect("a txn").revision, 4, "the guard did not hold");
    assert_eq!(store.delete(KeyRange::prefix("")).await.expect("a delete"), 3);
    assert_eq!(revision(&*store).await, 5);
    assert_eq!(store.status().await.expect("status").keys, 0);
}

/// 1. A key knows when it was created and changed and how often.
pub async fn versions_follow_a_key(store: Arc<dyn Store>) {
    let facts = async || {
        let kv = store.get("a".into()).await.expect("a read").expect("the key is there");
        (kv.create_revision, kv.mod_revision, kv.version)
    };
    run(&*store, [put("a", "1")]).await;
    assert_eq!(facts().await, (2, 2, 1));
    run(&*store, [put("a", "2")]).await;
    assert_eq!(facts().await, (2, 3, 2));
    run(&*store, [delete(KeyRange::key("a"))]).await;
    assert_eq!(store.get("a".into()).await.expect("a read"), None);
    run(&*store, [put("a", "3")]).await;
    assert_eq!(facts().await, (5, 5, 1));
}

/// 2. A txn that fails has changed nothing.
pub async fn a_txn_is_all_or_nothing(store: Arc<dyn Store>) {
    run(&*store, [put("a", "1")]).await;
    let unknown_lease = Op::Put(PutRequest { lease: 99, ..PutRequest::new("c", "2") });
    let error = store.txn(txn([put("a", "2"), put("b", "2"), unknown_lease])).await;
    assert!(matches!(error, Err(Error::LeaseNotFound(99))), "{error:?}");
    let future = Op::Range(RangeRequest { revision: 50, ..RangeRequest::new(KeyRange::all()) });
    let error = store.txn(txn([put("a", "2"), future])).await;
    assert!(matches!(error, Err(Error::FutureRevision { requested: 50, .. })), "{error:?}");
    assert_eq!(revision(&*store).await, 2);
    assert_eq!(pairs(&*store, KeyRange::all(), 0).await, [("a".into(), "1".into())]);
}

/// 2. Operations see what those before them in the txn did.
pub async fn a_txn_reads_its_writes(store: Arc<dyn Store>) {
    run(&*store, [put("a", "1"), put("b", "1")]).await;
    let answer =
        run(&*store, [put("c", "2"), read(KeyRange::all()), delete(KeyRange::key("a")), read(KeyRange::all())]).await;
    let keys = |i: usize| match &answer.responses[i] {
        OpResponse::Range(range) => range.kvs.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(),
        other => panic!("a range answers with {other:?}"),
    };
    assert_eq!(keys(1), ["a", "b", "c"]);
    assert_eq!(keys(3), ["b", "c"]);
    assert!(matches!(&answer.responses[2], OpResponse::Delete { deleted: 1, prev_kvs } if prev_kvs[0].value == "1"));
    let replaced = Op::Put(PutRequest { prev_kv: true, ..PutRequest::new("b", "2") });
    let answer = run(&*store, [replaced]).await;
    assert!(matches!(&answer.responses[0], OpResponse::Put { prev_kv: Some(kv) } if kv.value == "1"));
}

/// 2. Every relation and target of a guard, on keys that are there and that are not.
pub async fn guards_compare_what_they_say(store: Arc<dyn Store>) {
    use CompareOp::{Equal, Greater, Less, NotEqual};
    use CompareTarget::{CreateRevision, Lease, ModRevision, Value, Version};
    store.lease_grant(5, 1000).await.expect("a lease");
    run(&*store, [put("a", "m")]).await;
    let bound = PutRequest { lease: 5, ..PutRequest::new("a", "m") };
    run(&*store, [Op::Put(bound)]).await;
    let cases = [
        ("a", Equal, Version(2), true),
        ("a", Greater, Version(2), false),
        ("a", Equal, CreateRevision(2), true),
        ("a", Less, CreateRevision(3), true),
        ("a", Equal, ModRevision(3), true),
        ("a", NotEqual, ModRevision(3), false),
        ("a", Greater, ModRevision(2), true),
        ("a", Equal, Value("m".into()), true),
        ("a", Greater, Value("b".into()), true),
        ("a", Less, Value("b".into()), false),
        ("a", NotEqual, Value("b".into()), true),
        ("a", Equal, Lease(5), true),
        ("x", Equal, Version(0), true),
        ("x", Equal, CreateRevision(0), true),
        ("x", Equal, ModRevision(0), true),
        ("x", Greater, ModRevision(0), false),
        ("x", Equal, Lease(0), true),
        ("x", Equal, Value("".into()), false),
        ("x", NotEqual, Value("m".into()), false),
    ];
    for (key, op, target, holds) in cases {
        let what = format!("{key} {op:?} {target:?}");
        let asked = Txn { compare: vec![guard(key, op, target)], ..Txn::default() };
        assert_eq!(store.txn(asked).await.expect("a guard").succeeded, holds, "{what}");
    }
    run(&*store, [put("b", "m")]).await;
    let all = |op, target| Txn { compare: vec![Compare { range: KeyRange::all(), op, target }], ..Txn::default() };
    assert!(store.txn(all(Equal, Value("m".into()))).await.expect("a guard").succeeded);
    assert!(!store.txn(all(Equal, Version(1))).await.expect("a guard").succeeded, "one key of the range differs");
    let two = vec![guard("a", Equal, Version(2)), guard("b", Equal, Version(9))];
    let both = Txn { compare: two, success: vec![put("c", "then")], failure: vec![put("c", "else")] };
    assert!(!store.txn(both).await.expect("a txn").succeeded, "all guards must hold");
    assert_eq!(pairs(&*store, KeyRange::key("c"), 0).await, [("c".into(), "else".into())]);
}

/// 2. A nested txn takes its branch by the state before the whole txn, at the same revision.
pub async fn nested_txns_run_in_place(store: Arc<dyn Store>) {
    let absent = guard("a", CompareOp::Equal, CompareTarget::Version(0));
    let inner = Txn { compare: vec![absent], success: vec![put("b", "then")], failure: vec![put("b", "else")] };
    let answer = run(&*store, [put("a", "1"), Op::Txn(inner.clone())]).await;
    assert_eq!(answer.revision, 2);
    assert!(matches!(&answer.responses[1], OpResponse::Txn(inner) if inner.succeeded));
    run(&*store, [Op::Txn(inner)]).await;
    assert_eq!(pairs(&*store, KeyRange::key("b"), 0).await, [("b".into(), "else".into())]);
}

/// 2. What no state could satisfy is refused and changes nothing.
pub async fn impossible_requests_are_refused(store: Arc<dyn Store>) {
    let inner = |ops: Vec<Op>| Op::Txn(txn(ops));
    let reads = |count: usize| (0..count).map(|i| read(KeyRange::key(format!("k{i}")))).collect::<Vec<_>>();
    let keep = |put: PutRequest, value: bool| Op::Put(PutRequest { ignore_value: value, ignore_lease: !value, ..put });
    let twice = Error::DuplicateKey("a".into());
    let many = Error::TooManyOps(MAX_TXN_OPS);
    let cases = [
        ("an empty key", vec![put("", "1")], Error::EmptyKey),
        ("a key put twice", vec![put("a", "1"), put("a", "2")], twice.clone()),
        ("a key put and deleted", vec![put("a", "1"), delete(KeyRange::prefix("a"))], twice.clone()),
        ("a key deleted and put", vec![delete(KeyRange::prefix("a")), put("a", "1")], twice.clone()),
        ("a key put twice, once deeper", vec![put("a", "1"), inner(vec![put("a", "2")])], twice.clone()),
        ("a key put in two nested txns", vec![inner(vec![put("a", "1")]), inner(vec![put("a", "2")])], twice),
        ("too many operations", reads(MAX_TXN_OPS + 1), many.clone()),
        ("too many, counting those outside", [reads(MAX_TXN_OPS - 9), vec![inner(reads(10))]].concat(), many),
        ("too many bytes", vec![put("a", vec![0; MAX_REQUEST_BYTES + 1])], Error::RequestTooLarge(MAX_REQUEST_BYTES)),
        ("a value besides that kept", vec![keep(PutRequest::new("a", "1"), true)], Error::ValueProvided),
        (
            "a lease besides that kept",
            vec![keep(PutRequest { lease: 4, ..PutRequest::new("a", "1") }, false)],
            Error::LeaseProvided,
        ),
        ("nothing whose value to keep", vec![keep(PutRequest::new("a", ""), true)], Error::KeyNotFound),
        ("nothing whose lease to keep", vec![keep(PutRequest::new("a", "1"), false)], Error::KeyNotFound),
    ];
    for (what, ops, wanted) in cases {
        let error = store.txn(txn(ops)).await.expect_err(what);
        assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&wanted), "{what}: {error}");
    }
    let nothing = KeyRange { start: "b".into(), end: Some("a".into()) };
    assert_eq!(store.range(RangeRequest::new(nothing)).await.expect("an empty range").count, 0);
    assert_eq!(revision(&*store).await, 1);
}

/// 3. Guarded updates by many writers: none is lost, and each sees what was acknowledged before it began.
pub async fn concurrent_writers_lose_nothing(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let writers = (0..WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            let mut last_seen = 0;
            while done < EACH {
                let found = store.get("counter".into()).await.expect("a read");
                let (count, mod_revision) = match &found {
                    Some(kv) => (String::from_utf8_lossy(&kv.value).parse::<usize>().unwrap_or(0), kv.mod_revision),
                    None => (0, 0),
                };
                assert!(mod_revision >= last_seen, "a read went back to {mod_revision} from {last_seen}");
                let unchanged = guard("counter", CompareOp::Equal, CompareTarget::ModRevision(mod_revision));
                let update = vec![put("counter", (count + 1).to_string())];
                let update = Txn { compare: vec![unchanged], success: update, failure: Vec::new() };
                let answer = store.txn(update).await.expect("a guarded update");
                if answer.succeeded {
                    last_seen = answer.revision;
                    done += 1;
                }
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.expect("a writer failed");
    }
    let total = (WRITERS * EACH).to_string();
    assert_eq!(pairs(&*store, KeyRange::key("counter"), 0).await, [("counter".into(), total.into())]);
    assert_eq!(revision(&*store).await, 1 + (WRITERS * EACH) as u64);
}

/// 4. What was acknowledged is there after `reopen`, which closes or crashes the store and opens it again.
pub async fn durability(store: Arc<dyn Store>, reopen: impl AsyncFnOnce(Arc<dyn Store>) -> Arc<dyn Store>) {
    store.lease_grant(3, 1000).await.expect("a lease");
    for i in 0..50 {
        let key = format!("key-{}", i % 7);
        let bound = PutRequest { lease: 3 * (i % 2), ..PutRequest::new(key, format!("{i}")) };
        run(&*store, [Op::Put(bound)]).await;
    }
    run(&*store, [delete(KeyRange::key("key-3"))]).await;
    store.compact(20).await.expect("a compaction");
    let facts = async |store: &dyn Store| {
        let mut facts = Vec::new();
        for revision in 20..=52 {
            let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
            facts.push(store.range(request).await.expect("a read of the past"));
        }
        let lease = store.lease_time_to_live(3, true).await.expect("the lease");
        let status = store.status().await.expect("status");
        (facts, lease.keys, lease.granted_ttl, status.revision, status.compact_revision, status.keys)
    };
    let before = facts(&*store).await;
    let store = reopen(store).await;
    assert_eq!(facts(&*store).await, before);
}

/// 5. The past reads as it was, until it is compacted; the state at the compact revision stays.
pub async fn history_is_kept_until_compacted(store: Arc<dyn Store>) {
    run(&*store, [put("a", "1")]).await;
    run(&*store, [put("b", "1")]).await;
    run(&*store, [put("a", "2")]).await;
    run(&*store, [delete(KeyRange::key("b"))]).await;
    run(&*store, [put("b", "3")]).await;
    let past: [&[(&str, &str)]; 6] = [
        &[],
        &[("a", "1")],
        &[("a", "1"), ("b", "1")],
        &[("a", "2"), ("b", "1")],
        &[("a", "2")],
        &[("a", "2"), ("b", "3")],
    ];
    let check = async |from: usize| {
        for (i, wanted) in past.iter().enumerate().skip(from) {
            let wanted: Vec<(Bytes, Bytes)> =
                wanted.iter().map(|&(key, value)| (key.to_owned().into(), value.to_owned().into())).collect();
            assert_eq!(pairs(&*store, KeyRange::all(), i as u64 + 1).await, wanted, "at revision {}", i + 1);
        }
    };
    check(0).await;
    let at = |revision| RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
    let error = store.range(at(7)).await;
    assert!(matches!(error, Err(Error::FutureRevision { requested: 7, current: 6 })), "{error:?}");
    let error = store.compact(7).await;
    assert!(matches!(error, Err(Error::FutureRevision { requested: 7, current: 6 })), "{error:?}");
    for compacted in 3..=6 {
        store.compact(compacted).await.expect("a compaction");
        check(compacted as usize - 1).await;
        let error = store.range(at(compacted - 1)).await;
        assert!(matches!(error, Err(Error::Compacted { compacted: c, .. }) if c == compacted), "{error:?}");
        assert_eq!(store.status().await.expect("status").compact_revision, compacted);
    }
    let error = store.compact(6).await;
    assert!(matches!(error, Err(Error::Compacted { requested: 6, compacted: 6 })), "{error:?}");
    assert_eq!(store.put("c".into(), "1".into()).await.expect("a put"), 7, "compaction is no revision");
}

/// 5. Limits, counts and keys alone.
pub async fn ranges_are_cut_and_counted(store: Arc<dyn Store>) {
    run(&*store, (0..5).map(|i| put(format!("k{i}"), format!("v{i}"))).collect::<Vec<_>>()).await;
    run(&*store, [put("other", "x")]).await;
    let request = RangeRequest { limit: 2, ..RangeRequest::new(KeyRange::prefix("k")) };
    let answer = store.range(request.clone()).await.expect("a range");
    assert_eq!(answer.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"k0", b"k1"]);
    assert!(answer.more && answer.count == 5 && answer.revision == 3);
    let answer = store.range(RangeRequest { limit: 5, ..request.clone() }).await.expect("a range");
    assert!(!answer.more && answer.kvs.len() == 5);
    let answer = store.range(RangeRequest { keys_only: true, ..request.clone() }).await.expect("a range");
    assert!(answer.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision == 2));
    let answer = store.range(RangeRequest { count_only: true, ..request }).await.expect("a range");
    assert!(answer.kvs.is_empty() && !answer.more && answer.count == 5);
    let between = KeyRange { start: "k1".into(), end: Some("k3".into()) };
    assert_eq!(pairs(&*store, between, 0).await.len(), 2);
}

async fn put_bound(store: &dyn Store, key: &'static str, lease: i64) {
    run(store, [Op::Put(PutRequest { lease, ..PutRequest::new(key, "1") })]).await;
}

/// 8. A lease's keys go when its time is over, at one revision and not before.
pub async fn leases_end_with_their_keys(store: Arc<dyn Store>) {
    let begin = Instant::now();
    let lease = store.lease_grant(0, 2).await.expect("a lease");
    assert!(lease.id != 0 && lease.granted_ttl == 2);
    put_bound(&*store, "a", lease.id).await;
    put_bound(&*store, "b", lease.id).await;
    put_bound(&*store, "kept", lease.id).await;
    run(&*store, [put("kept", "no lease any more")]).await;
    let from = revision(&*store).await + 1;
    let mut watch = store.watch(WatchRequest::new(KeyRange::all(), from)).await.expect("a watch");
    let gone = events(&mut watch, 2).await;
    assert!(begin.elapsed() >= Duration::from_secs(2), "it ended after {:?}", begin.elapsed());
    let gone: Vec<_> = gone.iter().map(|event| (event.kind, &event.kv.key[..], event.kv.mod_revision)).collect();
    assert_eq!(gone, [(EventKind::Delete, &b"a"[..], from), (EventKind::Delete, b"b", from)]);
    assert_eq!(pairs(&*store, KeyRange::all(), 0).await.len(), 1);
    let error = store.lease_keep_alive(lease.id).await;
    assert!(matches!(error, Err(Error::LeaseNotFound(_))), "{error:?}");
}

/// 8. Keeping a lease alive gives it its whole time again.
pub async fn leases_are_kept_alive(store: Arc<dyn Store>) {
    let lease = store.lease_grant(11, 3).await.expect("a lease");
    put_bound(&*store, "a", lease.id).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(store.lease_keep_alive(11).await.expect("it lives").ttl, 3);
        assert_eq!(pairs(&*store, KeyRange::key("a"), 0).await.len(), 1);
    }
}

/// 8. Grant, look, list and revoke.
pub async fn leases_are_managed(store: Arc<dyn Store>) {
    let error = store.lease_grant(1, MAX_LEASE_TTL + 1).await;
    assert!(matches!(error, Err(Error::LeaseTtlTooLarge(_))), "{error:?}");
    for (id, ttl) in [(1, 0), (2, -1), (3, 1)] {
        let lease = store.lease_grant(id, ttl).await.expect("a lease");
        assert_eq!((lease.granted_ttl, lease.ttl), (MIN_LEASE_TTL, MIN_LEASE_TTL), "the least there is");
        store.lease_revoke(id).await.expect("a revocation");
    }
    store.lease_grant(2, 100).await.expect("a lease");
    store.lease_grant(1, 100).await.expect("a lease");
    let error = store.lease_grant(1, 100).await;
    assert!(matches!(error, Err(Error::LeaseExists(1))), "{error:?}");
    put_bound(&*store, "b", 1).await;
    put_bound(&*store, "a", 1).await;
    put_bound(&*store, "c", 2).await;
    let lease = store.lease_time_to_live(1, true).await.expect("the lease");
    assert_eq!((lease.granted_ttl, &lease.keys[..]), (100, &["a".into(), "b".into()] as &[Bytes]));
    assert!((90..=100).contains(&lease.ttl), "{} seconds are left", lease.ttl);
    assert_eq!(store.leases().await.expect("leases"), [1, 2]);
    let before = revision(&*store).await;
    store.lease_revoke(1).await.expect("a revocation");
    assert_eq!(revision(&*store).await, before + 1, "its keys go at one revision");
    assert_eq!(pairs(&*store, KeyRange::all(), 0).await, [("c".into(), "1".into())]);
    for error in [store.lease_revoke(1).await, store.lease_time_to_live(1, false).await.map(drop)] {
        assert!(matches!(error, Err(Error::LeaseNotFound(1))), "{error:?}");
    }
    assert_eq!(store.leases().await.expect("leases"), [2]);
}
