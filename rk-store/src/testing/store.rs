//! The checks of [`Store`]'s guarantees, named by their numbers there. Each wants a new, empty store.

use std::sync::Arc;

use bytes::Bytes;

use super::{delete, guard, pairs, put, read, revision, run, txn};
pub use super::{lease::*, range::*, upkeep::*, watch::*};
use crate::{
    Alarm, AlarmKind, Compare, CompareOp, CompareTarget, Error, KeyRange, MAX_REQUEST_BYTES, MAX_TXN_OPS, Op,
    OpResponse, PutRequest, RangeRequest, Store, Txn,
};

/// 1. The revision counts what changed something, from 1, and nothing else.
pub async fn g01_revisions_count_changes(store: Arc<dyn Store>) {
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
pub async fn g01_versions_follow_a_key(store: Arc<dyn Store>) {
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
pub async fn g02_a_txn_is_all_or_nothing(store: Arc<dyn Store>) {
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

/// 3. Operations see what those before them in the txn did.
pub async fn g03_a_txn_reads_its_writes(store: Arc<dyn Store>) {
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

/// 3. Every relation and target of a guard, on keys that are there and that are not.
pub async fn g03_guards_compare_what_they_say(store: Arc<dyn Store>) {
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

/// 3. A nested txn takes its branch by the state before the whole txn, at the same revision.
pub async fn g03_nested_txns_run_in_place(store: Arc<dyn Store>) {
    let absent = guard("a", CompareOp::Equal, CompareTarget::Version(0));
    let inner = Txn { compare: vec![absent], success: vec![put("b", "then")], failure: vec![put("b", "else")] };
    let answer = run(&*store, [put("a", "1"), Op::Txn(inner.clone())]).await;
    assert_eq!(answer.revision, 2);
    assert!(matches!(&answer.responses[1], OpResponse::Txn(inner) if inner.succeeded));
    run(&*store, [Op::Txn(inner)]).await;
    assert_eq!(pairs(&*store, KeyRange::key("b"), 0).await, [("b".into(), "else".into())]);
}

/// 3. A put keeps the value or the lease that the key has, where it is told to.
pub async fn g03_puts_keep_what_they_are_told(store: Arc<dyn Store>) {
    store.lease_grant(5, 1000).await.expect("a lease");
    let bound = |value: &'static str| PutRequest { lease: 5, ..PutRequest::new("a", value) };
    let facts = async |ops: PutRequest| {
        run(&*store, [Op::Put(ops)]).await;
        let kv = store.get("a".into()).await.expect("a read").expect("the key is there");
        (kv.value, kv.lease, kv.version)
    };
    let keep = PutRequest { ignore_value: true, ..PutRequest::new("a", "") };
    assert_eq!(facts(bound("1")).await, ("1".into(), 5, 1));
    assert_eq!(facts(keep.clone()).await, ("1".into(), 0, 2), "the value stays, the lease does not");
    assert_eq!(facts(PutRequest { lease: 5, ..keep.clone() }).await, ("1".into(), 5, 3));
    assert_eq!(facts(PutRequest { ignore_lease: true, ..PutRequest::new("a", "2") }).await, ("2".into(), 5, 4));
    assert_eq!(facts(PutRequest { ignore_lease: true, ..keep }).await, ("2".into(), 5, 5));
}

/// 4. What no state could satisfy is refused and changes nothing.
pub async fn g04_impossible_requests_are_refused(store: Arc<dyn Store>) {
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
        (
            "too many bytes in a key to delete",
            vec![delete(KeyRange::key(vec![0; MAX_REQUEST_BYTES + 1]))],
            Error::RequestTooLarge(MAX_REQUEST_BYTES),
        ),
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

/// 5. Guarded updates by many writers: none is lost, and each sees what was acknowledged before it began.
pub async fn g05_concurrent_writers_lose_nothing(store: Arc<dyn Store>) {
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
                    let newest = store.revision().await.expect("the newest revision");
                    assert!(newest >= last_seen, "the newest revision was {newest} behind {last_seen}");
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

/// 6. What was acknowledged is there after `reopen`, which closes or crashes the store and opens it again.
pub async fn g06_durability(store: Arc<dyn Store>, reopen: impl AsyncFnOnce(Arc<dyn Store>) -> Arc<dyn Store>) {
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
    let alarm = Alarm { member: 7, kind: AlarmKind::NoSpace };
    store.activate_alarm(alarm).await.expect("an alarm");
    let before = facts(&*store).await;
    let hash = store.hash_kv(0).await.expect("a hash");
    let left = store.lease_time_to_live(3, false).await.expect("the lease").ttl;
    let store = reopen(store).await;
    assert_eq!(facts(&*store).await, before);
    assert_eq!(store.hash_kv(0).await.expect("a hash"), hash);
    assert_eq!(store.alarms().await.expect("alarms"), [alarm]);
    let lease = store.lease_time_to_live(3, false).await.expect("the lease");
    assert!(lease.ttl >= left, "{left} seconds of the lease were left before, and {} are", lease.ttl);
}

/// 7. The past reads as it was, until it is compacted; the state at the compact revision stays.
pub async fn g07_history_is_kept_until_compacted(store: Arc<dyn Store>) {
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
    }
}

/// 9. Compaction forgets what nobody can read any more; all that is there, and the revision, stay.
pub async fn g09_compaction_forgets_only_the_past(store: Arc<dyn Store>) {
    for i in 0..30 {
        run(&*store, [put(format!("k{}", i % 3), format!("{i}"))]).await;
    }
    run(&*store, [delete(KeyRange::key("k0"))]).await;
    let facts = async || {
        let mut facts = Vec::new();
        for revision in 20..=32 {
            let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
            facts.push(store.range(request).await.expect("a read of the past").kvs);
        }
        facts
    };
    let before = facts().await;
    for compacted in [2, 10, 20] {
        store.compact(compacted).await.expect("a compaction");
        assert_eq!(store.status().await.expect("status").compact_revision, compacted);
        for refused in [compacted, 1] {
            let error = store.compact(refused).await;
            assert!(matches!(error, Err(Error::Compacted { compacted: c, .. }) if c == compacted), "{error:?}");
        }
        assert_eq!(facts().await, before);
    }
    store.compact(32).await.expect("a compaction");
    let keys: Vec<_> = pairs(&*store, KeyRange::all(), 0).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["k1", "k2"]);
    assert_eq!(store.put("k0".into(), "1".into()).await.expect("a put"), 33, "compaction is no revision");
    assert_eq!(store.get("k0".into()).await.expect("a read").map(|kv| kv.version), Some(1));
}
