//! The checks of alarms, hashes and snapshots.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::{delete, pairs, put, read, revision, run, txn};
use crate::{Alarm, AlarmKind, Error, KeyRange, Op, PutRequest, RangeRequest, SnapshotStream, Store, WatchRequest};

/// 17. Alarms are listed while they are active and refuse what they should.
pub async fn g17_alarms_refuse_writes(store: Arc<dyn Store>) {
    let alarm = |member, kind| Alarm { member, kind };
    let [space, other, corrupt] =
        [alarm(7, AlarmKind::NoSpace), alarm(8, AlarmKind::NoSpace), alarm(7, AlarmKind::Corrupt)];
    run(&*store, [put("a", "1"), put("b", "1"), put("c", "1")]).await;
    store.lease_grant(1, 1000).await.expect("a lease");
    assert_eq!(store.alarms().await.expect("alarms"), []);
    for _ in 0..2 {
        store.activate_alarm(space).await.expect("an alarm");
        store.activate_alarm(other).await.expect("an alarm");
    }
    assert_eq!(store.alarms().await.expect("alarms"), [space, other]);
    let no_space = |result: Result<(), Error>| assert!(matches!(result, Err(Error::NoSpace(_))), "{result:?}");
    let one_put = || txn([put("d", "1")]);
    no_space(store.txn(one_put()).await.map(drop));
    no_space(store.txn(txn([delete(KeyRange::key("a")), put("d", "1")])).await.map(drop));
    no_space(store.lease_grant(2, 1000).await.map(drop));
    run(&*store, [delete(KeyRange::key("a")), read(KeyRange::all())]).await;
    assert_eq!(pairs(&*store, KeyRange::all(), 0).await.len(), 2, "reads and deletes work");
    store.lease_keep_alive(1).await.expect("it lives");
    store.lease_revoke(1).await.expect("a revocation");
    store.compact(2).await.expect("a compaction");
    store.deactivate_alarm(space).await.expect("the end of an alarm");
    no_space(store.txn(one_put()).await.map(drop));
    for _ in 0..2 {
        store.deactivate_alarm(other).await.expect("the end of an alarm, or nothing");
    }
    run(&*store, [put("d", "1")]).await;
    store.activate_alarm(corrupt).await.expect("an alarm");
    for ops in [vec![put("e", "1")], vec![delete(KeyRange::key("b"))]] {
        let error = store.txn(txn(ops)).await;
        assert!(matches!(error, Err(Error::CorruptAlarm)), "{error:?}");
    }
    let error = store.compact(3).await;
    assert!(matches!(error, Err(Error::CorruptAlarm)), "{error:?}");
    assert_eq!(pairs(&*store, KeyRange::all(), 0).await.len(), 3, "reads work");
    store.deactivate_alarm(corrupt).await.expect("the end of an alarm");
    assert_eq!(store.alarms().await.expect("alarms"), []);
    assert_eq!(store.put("e".into(), "1".into()).await.expect("a put"), 5);
}

/// 18. A hash changes with the content, and is found at a revision that is not compacted.
pub async fn g18_hashes_tell_contents_apart(store: Arc<dyn Store>) {
    for i in 0..6 {
        run(&*store, [put(format!("k{}", i % 2), format!("{i}"))]).await;
    }
    let before = store.hash_kv(0).await.expect("a hash");
    assert_eq!(store.hash_kv(0).await.expect("a hash"), before);
    run(&*store, [put("k0", "more")]).await;
    let after = store.hash_kv(0).await.expect("a hash");
    assert_ne!(after.hash, before.hash);
    let error = store.hash_kv(50).await;
    assert!(matches!(error, Err(Error::FutureRevision { .. })), "{error:?}");
    store.compact(5).await.expect("a compaction");
    let error = store.hash_kv(4).await;
    assert!(matches!(error, Err(Error::Compacted { compacted: 5, .. })), "{error:?}");
    let compacted = store.hash_kv(0).await.expect("a hash");
    assert_eq!(compacted.compact_revision, 5);
}

/// 19. What `restore` makes of a snapshot's bytes is a store with the state as it was when the snapshot was asked for.
pub async fn g19_snapshots_restore(store: Arc<dyn Store>, restore: impl AsyncFnOnce(SnapshotStream) -> Arc<dyn Store>) {
    store.lease_grant(3, 1000).await.expect("a lease");
    for i in 0..200 {
        let value = vec![b'x'; 10_000];
        let bound = PutRequest { lease: 3 * (i % 2), ..PutRequest::new(format!("key-{}", i % 70), value) };
        run(&*store, [Op::Put(bound)]).await;
    }
    run(&*store, [delete(KeyRange::key("key-3"))]).await;
    store.compact(50).await.expect("a compaction");
    let last = revision(&*store).await;
    let facts = async |store: &dyn Store| {
        let mut facts = Vec::new();
        for revision in (50..=last).step_by(10) {
            let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
            facts.push(store.range(request).await.expect("a read of the past").kvs);
        }
        let lease = store.lease_time_to_live(3, true).await.expect("the lease");
        (facts, lease.keys, lease.granted_ttl, store.hash_kv(last).await.expect("a hash"))
    };
    let before = facts(&*store).await;
    let mut snapshot = store.snapshot().await.expect("a snapshot");
    let first = snapshot.next().await.expect("a snapshot has bytes").expect("bytes");
    // Whatever is done now is not in it, and does not disturb it.
    for i in 0..200 {
        run(&*store, [put(format!("key-{}", i % 70), "later")]).await;
    }
    store.compact(revision(&*store).await).await.expect("a compaction");
    store.lease_revoke(3).await.expect("a revocation");
    let rest: Vec<_> = snapshot.try_collect().await.expect("the rest of the snapshot");
    let pieces = [vec![first], rest].concat();
    let restored = restore(futures::stream::iter(pieces.into_iter().map(Ok)).boxed()).await;
    assert_eq!(facts(&*restored).await, before);
    assert_eq!(revision(&*restored).await, last);
    let error = restored.range(RangeRequest { revision: 49, ..RangeRequest::new(KeyRange::all()) }).await;
    assert!(matches!(error, Err(Error::Compacted { compacted: 50, .. })), "{error:?}");
    // It lives on.
    let mut watch = restored.watch(WatchRequest::new(KeyRange::all(), last)).await.expect("a watch");
    assert_eq!(restored.put("new".into(), "1".into()).await.expect("a put"), last + 1);
    assert_eq!(super::events(&mut watch, 2).await[1].kv.key, "new");
}
