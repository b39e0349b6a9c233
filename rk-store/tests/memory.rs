//! The store in memory.

use futures::StreamExt;
use rk_store::*;

#[tokio::test]
async fn a_watch_reads_history_and_then_what_is_new() {
    let store = MemoryStore::new();
    for value in ["1", "2"] {
        store.put("a".into(), value.into()).await.unwrap();
    }
    let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("a"), 2)).await.unwrap();
    store.put("b".into(), "other".into()).await.unwrap();
    store.delete(KeyRange::key("a")).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch = watch.next().await.unwrap().unwrap();
        seen.extend(batch.events.iter().map(|event| (event.kind, event.kv.mod_revision)));
    }
    assert_eq!(seen, [(EventKind::Put, 2), (EventKind::Put, 3), (EventKind::Delete, 5)]);
}

#[tokio::test]
async fn dropping_the_store_ends_its_watches() {
    let store = MemoryStore::new();
    let mut watch = store.watch(WatchRequest::new(KeyRange::all(), 0)).await.unwrap();
    store.put("a".into(), "1".into()).await.unwrap();
    drop(store);
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 2);
    assert!(matches!(watch.next().await, Some(Err(Error::Unavailable(_)))));
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_with_its_keys() {
    let store = MemoryStore::new();
    let lease = store.lease_grant(0, 10).await.unwrap();
    let put = Op::Put(PutRequest { lease: lease.id, ..PutRequest::new("a", "1") });
    store.txn(Txn { success: vec![put], ..Txn::default() }).await.unwrap();
    let begin = tokio::time::Instant::now();
    let mut watch = store.watch(WatchRequest::new(KeyRange::all(), 0)).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events[0].kind, EventKind::Delete);
    assert!(begin.elapsed() >= std::time::Duration::from_secs(10));
    assert!(matches!(store.lease_time_to_live(lease.id, false).await, Err(Error::LeaseNotFound(_))));
}

#[tokio::test]
async fn a_watch_from_the_compact_revision_sees_what_was_deleted_there() {
    let store = MemoryStore::new();
    for key in ["a", "b"] {
        store.put(key.into(), "1".into()).await.unwrap();
    }
    let both = |key: &'static str| Op::Delete(DeleteRequest { range: KeyRange::key(key), prev_kv: false });
    let ops = vec![both("a"), Op::Put(PutRequest::new("c", "1"))];
    store.txn(Txn { success: ops, ..Txn::default() }).await.unwrap();
    store.delete(KeyRange::key("b")).await.unwrap();
    store.compact(4).await.unwrap();
    let request = WatchRequest { prev_kv: true, ..WatchRequest::new(KeyRange::all(), 4) };
    let mut watch = store.watch(request).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    let seen: Vec<_> = batch.events.iter().map(|event| (event.kind, &event.kv.key[..])).collect();
    assert_eq!(seen, [(EventKind::Delete, &b"a"[..]), (EventKind::Put, b"c"), (EventKind::Delete, b"b")]);
    assert!(batch.events[0].prev_kv.is_none(), "what was there before is compacted");
    assert!(batch.events[2].prev_kv.is_some());
    // With the next compaction it is gone for good.
    store.compact(5).await.unwrap();
    assert!(matches!(
        store.watch(WatchRequest::new(KeyRange::all(), 4)).await,
        Err(Error::Compacted { compacted: 5, .. })
    ));
}
