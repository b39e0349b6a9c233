//! The durable store: what it writes, it has again.

#![cfg(feature = "log")]

use std::os::unix::fs::PermissionsExt;

use rk_store::*;

fn small() -> DurableOptions {
    let mut options = DurableOptions::default();
    (options.segment_bytes, options.checkpoint_bytes) = (2_000, 10_000);
    options
}

async fn dump(store: &dyn Store) -> RangeResponse {
    store.range(RangeRequest::new(KeyRange::all())).await.unwrap()
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableStore::open(dir.path(), small()).await.unwrap();
    for i in 0..200 {
        store.put(format!("key-{:03}", i % 50).into(), format!("value {i}").into()).await.unwrap();
    }
    store.delete(KeyRange::prefix("key-01")).await.unwrap();
    store.compact(120).await.unwrap();
    let lease = store.lease_grant(7, 100).await.unwrap();
    let put = Op::Put(PutRequest { lease: lease.id, ..PutRequest::new("leased", "x") });
    store.txn(Txn { success: vec![put], ..Txn::default() }).await.unwrap();
    let before = dump(&store).await;
    let past = RangeRequest { revision: 150, ..RangeRequest::new(KeyRange::all()) };
    let history = store.range(past.clone()).await.unwrap();
    store.close().await;

    let store = DurableStore::open(dir.path(), small()).await.unwrap();
    assert_eq!(dump(&store).await, before);
    assert_eq!(store.range(past).await.unwrap(), history);
    let old = RangeRequest { revision: 119, ..RangeRequest::new(KeyRange::all()) };
    assert!(matches!(store.range(old).await, Err(Error::Compacted { compacted: 120, .. })));
    assert_eq!(store.lease_time_to_live(7, true).await.unwrap().keys, ["leased"]);
    assert_eq!(store.status().await.unwrap().keys, 41);
}

#[tokio::test]
async fn a_closed_store_tells_nothing_that_may_be_old() {
    let dir = tempfile::tempdir().unwrap();
    let closed = DurableStore::open(dir.path(), small()).await.unwrap();
    closed.put("key".into(), "old".into()).await.unwrap();
    let lease = closed.lease_grant(7, 100).await.unwrap();
    closed.close().await;
    let next = DurableStore::open(dir.path(), small()).await.unwrap();
    next.put("key".into(), "new".into()).await.unwrap();

    let refused = |error: Error| assert!(matches!(error, Error::Unavailable(_)), "{error}");
    refused(closed.get("key".into()).await.unwrap_err());
    let read = Op::Range(RangeRequest::new(KeyRange::key("key")));
    refused(closed.txn(Txn { success: vec![read], ..Txn::default() }).await.unwrap_err());
    refused(closed.put("key".into(), "lost".into()).await.unwrap_err());
    refused(closed.lease_keep_alive(lease.id).await.unwrap_err());
    refused(closed.lease_time_to_live(lease.id, false).await.unwrap_err());
    refused(closed.leases().await.unwrap_err());
    refused(closed.hash_kv(0).await.unwrap_err());
    refused(closed.snapshot().await.map(drop).unwrap_err());
    refused(closed.alarms().await.unwrap_err());
    refused(closed.status().await.unwrap_err());
    refused(closed.watch(WatchRequest::new(KeyRange::all(), 0)).await.map(drop).unwrap_err());
}

#[tokio::test]
async fn a_checkpoint_takes_the_place_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableStore::open_in_memory(dir.path(), small()).await.unwrap();
    for i in 0..300 {
        store.put("key".into(), format!("value {i}").into()).await.unwrap();
    }
    store.compact(301).await.unwrap();
    store.checkpoint().await.unwrap();
    let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    // 301 commands came before.
    assert_eq!(names[..2], ["checkpoint-000000000000012e", "lock"]);
    assert_eq!(names.iter().filter(|name| name.starts_with("log-")).count(), 1, "{names:?}");
    let spares = names.iter().filter(|name| name.starts_with("spare-")).count();
    assert_eq!(names.len(), 3 + spares, "{names:?}");
    assert!(spares <= 3, "{names:?}");
    assert!(files[0].metadata().unwrap().len() < 1_000);
    let before = dump(&store).await;
    store.close().await;
    let store = DurableStore::open_in_memory(dir.path(), small()).await.unwrap();
    assert_eq!(dump(&store).await, before);
    assert_eq!(store.put("key".into(), "more".into()).await.unwrap(), 302);
    store.close().await;

    // The same directory with values on disk: the next checkpoint is the engine's.
    let store = DurableStore::open(dir.path(), small()).await.unwrap();
    let after = dump(&store).await;
    assert_eq!(after.kvs[0].value, "more");
    store.checkpoint().await.unwrap();
    store.put("key".into(), "last".into()).await.unwrap();
    store.close().await;
    assert!(!files[0].exists());
    let store = DurableStore::open(dir.path(), small()).await.unwrap();
    assert_eq!(dump(&store).await.kvs[0].value, "last");
    store.close().await;
    let error = DurableStore::open_in_memory(dir.path(), small()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { .. }), "an engine without what the log begins with: {error}");
}

#[tokio::test]
async fn garbage_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableStore::open(dir.path(), small()).await.unwrap();
    let value = bytes::Bytes::from(vec![7; 10_000]);
    for i in 0..300 {
        store.put(format!("key-{}", i % 3).into(), value.clone()).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    let full = store.status().await.unwrap();
    assert!(full.disk_size > 3_000_000 && full.size_in_use > 3_000_000, "{full:?}");
    store.compact(301).await.unwrap();
    store.defragment().await.unwrap();
    let status = store.status().await.unwrap();
    assert!(status.size_in_use < 31_000 && status.disk_size < 100_000, "{status:?}");
    let before = dump(&store).await;
    store.close().await;
    let store = DurableStore::open(dir.path(), small()).await.unwrap();
    assert_eq!(dump(&store).await, before);
}

#[tokio::test]
async fn a_second_opening_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableStore::open(dir.path(), DurableOptions::default()).await.unwrap();
    let error = DurableStore::open(dir.path(), DurableOptions::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::InUse { holder, .. } if *holder == format!("pid {}", std::process::id())),
        "{error}"
    );
    store.close().await;
    DurableStore::open(dir.path(), DurableOptions::default()).await.unwrap();
}

#[tokio::test]
async fn files_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/by/open");
    let store = DurableStore::open(&dir, small()).await.unwrap();
    store.put("key".into(), "value".into()).await.unwrap();
    store.checkpoint().await.unwrap();
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let wanted = if entry.path().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, wanted, "{:?}", entry.path());
    }
    for entry in std::fs::read_dir(dir.join("values")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}
