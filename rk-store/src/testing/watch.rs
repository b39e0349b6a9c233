//! The checks of watches.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{events, next, put, txn};
use crate::{DeleteRequest, Error, EventKind, KeyRange, Op, Revision, Store, Txn, WatchRequest};

async fn write(store: &dyn Store, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Revision {
    store.put(key.into(), value.into()).await.expect("a put")
}

fn from(revision: Revision) -> WatchRequest {
    WatchRequest::new(KeyRange::all(), revision)
}

/// 11. A watch from the past, from now and from the future gives just what it should.
pub async fn g11_watches_start_anywhere(store: Arc<dyn Store>) {
    for i in 0..3 {
        write(&*store, "a", format!("{i}")).await;
    }
    let mut past = store.watch(from(3)).await.expect("a watch");
    let mut now = store.watch(from(0)).await.expect("a watch");
    let mut future = store.watch(from(6)).await.expect("a watch");
    let mut narrow = store.watch(WatchRequest::new(KeyRange::prefix("b"), 2)).await.expect("a watch");
    write(&*store, "b1", "x").await;
    write(&*store, "a", "x").await;
    store.delete(KeyRange::key("b1")).await.expect("a delete");
    let revisions = async |watch: &mut _, count| {
        events(watch, count).await.iter().map(|event| event.kv.mod_revision).collect::<Vec<_>>()
    };
    assert_eq!(revisions(&mut past, 5).await, [3, 4, 5, 6, 7]);
    assert_eq!(revisions(&mut now, 3).await, [5, 6, 7]);
    assert_eq!(revisions(&mut future, 2).await, [6, 7]);
    let seen = events(&mut narrow, 2).await;
    assert_eq!(seen.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Put, EventKind::Delete]);
    assert_eq!((&seen[1].kv.key[..], seen[1].kv.mod_revision, seen[1].kv.version), (&b"b1"[..], 7, 0));
    // Nothing of this came twice.
    write(&*store, "b2", "x").await;
    for watch in [&mut past, &mut now, &mut future, &mut narrow] {
        assert_eq!(revisions(watch, 1).await, [8]);
    }
}

/// 10. The events of one revision come in one batch, in order, whether from history or live.
pub async fn g10_watches_deliver_whole_revisions(store: Arc<dyn Store>) {
    let mut live = store.watch(from(0)).await.expect("a watch");
    let keys: Vec<_> = (0..20).rev().map(|i| format!("k{i:02}")).collect();
    for round in 0..3 {
        let ops: Vec<_> = keys.iter().map(|key| put(key.clone(), format!("{round}"))).collect();
        store.txn(txn(ops)).await.expect("a txn");
    }
    let mut past = store.watch(from(2)).await.expect("a watch");
    for watch in [&mut live, &mut past] {
        let mut revision = 2;
        while revision <= 4 {
            let batch = next(watch).await.expect("a batch");
            for whole in batch.events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
                assert!(whole.iter().all(|event| event.kv.mod_revision == revision));
                assert!(whole.iter().map(|event| &event.kv.key[..]).eq(keys.iter().map(String::as_bytes)));
                revision += 1;
            }
            assert_eq!(batch.revision, revision - 1, "the batch tells how far it goes");
        }
    }
}

/// 12. The pair before comes with an event where it was asked for, and only there.
pub async fn g12_watches_tell_the_pair_before(store: Arc<dyn Store>) {
    let request = WatchRequest { prev_kv: true, ..from(2) };
    let mut live = store.watch(request.clone()).await.expect("a watch");
    let mut without = store.watch(from(2)).await.expect("a watch");
    write(&*store, "a", "1").await;
    write(&*store, "a", "2").await;
    store.delete(KeyRange::key("a")).await.expect("a delete");
    let mut past = store.watch(request).await.expect("a watch");
    for watch in [&mut live, &mut past] {
        let seen = events(watch, 3).await;
        let before: Vec<_> = seen.iter().map(|event| event.prev_kv.as_ref().map(|kv| kv.value.clone())).collect();
        assert_eq!(before, [None, Some("1".into()), Some("2".into())]);
    }
    assert!(events(&mut without, 3).await.iter().all(|event| event.prev_kv.is_none()));
}

/// 10. Watches that start while others write miss nothing and see nothing twice.
pub async fn g10_watches_join_without_gap(store: Arc<dyn Store>) {
    const REVISIONS: Revision = 300;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for i in 0..REVISIONS {
                write(&*store, format!("k{}", i % 5), format!("{i}")).await;
            }
        }
    });
    let watchers = (0..12).map(|i| {
        let store = store.clone();
        tokio::spawn(async move {
            while store.status().await.expect("status").revision < i * 20 {
                // Not a mere yield: a paused clock stands still while anyone is busy.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let start = 2 + i;
            let mut watch = store.watch(from(start)).await.expect("a watch");
            let mut wanted = start;
            while wanted <= REVISIONS + 1 {
                for event in next(&mut watch).await.expect("a batch").events.iter() {
                    assert_eq!(event.kv.mod_revision, wanted, "in the watch from {start}");
                    assert_eq!(event.kv.value, format!("{}", wanted - 2));
                    wanted += 1;
                }
            }
        })
    });
    for watcher in futures::future::join_all(watchers).await {
        watcher.expect("a watcher failed");
    }
    writer.await.expect("the writer failed");
}

/// 11. A watch of what was compacted fails; one behind it works.
pub async fn g11_watches_end_when_compacted(store: Arc<dyn Store>) {
    for i in 0..5 {
        write(&*store, "a", format!("{i}")).await;
    }
    store.compact(4).await.expect("a compaction");
    let start = async |revision| match store.watch(from(revision)).await {
        // A store may say so at once or in the stream.
        Ok(mut watch) => next(&mut watch).await.map(|batch| (watch, batch.events[0].kv.mod_revision)),
        Err(error) => Err(error),
    };
    let error = start(3).await.map(|(_, first)| first).expect_err("history is gone");
    assert!(matches!(error, Error::Compacted { compacted: 4, .. }), "{error:?}");
    match start(4).await {
        Ok((_, first)) => assert_eq!(first, 4),
        Err(error) => assert!(matches!(error, Error::Compacted { compacted: 4, .. }), "{error:?}"),
    }
    let mut watch = store.watch(from(5)).await.expect("a watch");
    assert_eq!(events(&mut watch, 2).await[0].kv.mod_revision, 5);
    // A watch that is up to date does not mind.
    store.compact(6).await.expect("a compaction");
    write(&*store, "a", "more").await;
    assert_eq!(events(&mut watch, 1).await[0].kv.mod_revision, 7);
    // One that has not read yet finds all or an error, never a gap: not even the delete that compaction forgets.
    store.delete(KeyRange::key("a")).await.expect("a delete");
    let mut unread = store.watch(from(8)).await.expect("a watch");
    write(&*store, "b", "1").await;
    store.compact(8).await.expect("a compaction");
    match next(&mut unread).await {
        Ok(batch) => assert_eq!((batch.events[0].kind, batch.events[0].kv.mod_revision), (EventKind::Delete, 8)),
        Err(error) => assert!(matches!(error, Error::Compacted { compacted: 8, .. }), "{error:?}"),
    }
}

/// 12. Puts and deletes can be left out, from history and live.
pub async fn g12_watches_leave_out_what_is_filtered(store: Arc<dyn Store>) {
    let no_put = WatchRequest { no_put: true, ..from(2) };
    let no_delete = WatchRequest { no_delete: true, ..from(2) };
    let live =
        [store.watch(no_put.clone()).await.expect("a watch"), store.watch(no_delete.clone()).await.expect("a watch")];
    write(&*store, "a", "1").await;
    write(&*store, "b", "1").await;
    store.delete(KeyRange::key("a")).await.expect("a delete");
    let both = [put("a", "2"), Op::Delete(DeleteRequest { range: KeyRange::key("b"), prev_kv: false })];
    store.txn(txn(both)).await.expect("a txn");
    write(&*store, "a", "3").await;
    store.delete(KeyRange::all()).await.expect("a delete");
    let past = [store.watch(no_put).await.expect("a watch"), store.watch(no_delete).await.expect("a watch")];
    for [mut deletes, mut puts] in [live, past] {
        let seen = async |watch: &mut _, count, kind| {
            let seen = events(watch, count).await;
            assert!(seen.iter().all(|event| event.kind == kind), "{seen:?}");
            seen.iter().map(|event| event.kv.mod_revision).collect::<Vec<_>>()
        };
        assert_eq!(seen(&mut deletes, 3, EventKind::Delete).await, [4, 5, 7]);
        assert_eq!(seen(&mut puts, 4, EventKind::Put).await, [2, 3, 5, 6]);
    }
}

/// 13. A watch that is asked how far it has come tells so, behind all that it has to deliver.
pub async fn g13_watches_tell_progress_on_request(store: Arc<dyn Store>) {
    let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("a"), 2)).await.expect("a watch");
    for round in 1..=3 {
        let wanted = write(&*store, "a", "1").await;
        assert_eq!(events(&mut watch, 1).await[0].kv.mod_revision, wanted);
        let reached = write(&*store, "b", "1").await;
        watch.request_progress();
        let batch = next(&mut watch).await.expect("an answer");
        assert_eq!((batch.revision, &batch.events[..]), (reached, &[][..]), "in round {round}");
    }
    // A handle asks as well while the stream is being read, and what comes meanwhile comes first.
    let handle = watch.progress_request();
    let last = write(&*store, "a", "2").await;
    handle.request();
    assert_eq!(events(&mut watch, 1).await[0].kv.mod_revision, last);
    loop {
        let batch = next(&mut watch).await.expect("an answer");
        assert!(batch.events.is_empty());
        if batch.revision == last {
            break;
        }
    }
}

/// 13. A watch that asked for it is told of revisions that do not concern it.
pub async fn g13_watches_tell_progress(store: Arc<dyn Store>) {
    let request = WatchRequest { progress: true, ..WatchRequest::new(KeyRange::prefix("a"), 0) };
    let mut watch = store.watch(request).await.expect("a watch");
    let reached = write(&*store, "b", "1").await;
    loop {
        let batch = next(&mut watch).await.expect("a batch");
        assert!(batch.events.is_empty());
        if batch.revision == reached {
            break;
        }
        assert!(batch.revision < reached);
    }
    write(&*store, "a", "1").await;
    assert_eq!(events(&mut watch, 1).await[0].kv.mod_revision, reached + 1);
}

/// 14. A watcher that does not read delays no writer. When it reads, it finds events without a gap, to the end or to an error.
///
/// After an error it may resume behind the last event.
pub async fn g14_slow_watchers_hold_nobody_up(store: Arc<dyn Store>) {
    const REVISIONS: Revision = 2000;
    let mut watch = store.watch(from(0)).await.expect("a watch");
    let ops = |i: Revision| -> Txn {
        let old = Op::Delete(DeleteRequest { range: KeyRange::key(format!("k{}", i.wrapping_sub(1))), prev_kv: false });
        txn([put(format!("k{i}"), "x"), old])
    };
    for i in 0..REVISIONS {
        tokio::time::timeout(super::PATIENCE, store.txn(ops(i))).await.expect("a writer hangs").expect("a txn");
    }
    let (mut reached, mut cuts) = (1, 0);
    while reached < REVISIONS + 1 {
        match next(&mut watch).await {
            Ok(batch) => {
                for event in batch.events.iter() {
                    let revision = event.kv.mod_revision;
                    assert!(revision == reached || revision == reached + 1, "{revision} follows {reached}");
                    reached = revision;
                }
            }
            Err(Error::Unavailable(_) | Error::Compacted { .. }) => {
                cuts += 1;
                assert!(cuts < 10, "a watcher that reads is cut again and again");
                watch = store.watch(from(reached + 1)).await.expect("a watch from the revision reached");
            }
            Err(error) => panic!("a slow watcher fails with {error}"),
        }
    }
}
