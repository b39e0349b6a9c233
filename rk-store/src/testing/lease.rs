//! The checks of leases.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{delete, events, pairs, put, revision, run};
use crate::{Error, EventKind, KeyRange, LeaseId, MAX_LEASE_TTL, MIN_LEASE_TTL, Op, PutRequest, Store, WatchRequest};

async fn put_bound(store: &dyn Store, key: &'static str, lease: i64) {
    run(store, [Op::Put(PutRequest { lease, ..PutRequest::new(key, "1") })]).await;
}

/// 15. A lease's keys go when its time is over, at one revision and not before.
pub async fn g15_leases_end_with_their_keys(store: Arc<dyn Store>) {
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

/// 15. Keeping a lease alive gives it its whole time again.
pub async fn g15_leases_are_kept_alive(store: Arc<dyn Store>) {
    let lease = store.lease_grant(11, 3).await.expect("a lease");
    put_bound(&*store, "a", lease.id).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(store.lease_keep_alive(11).await.expect("it lives").ttl, 3);
        assert_eq!(pairs(&*store, KeyRange::key("a"), 0).await.len(), 1);
    }
}

/// 15. Grant, look, list and revoke.
pub async fn g15_leases_are_managed(store: Arc<dyn Store>) {
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

/// 16. A put binds its key anew, a delete unbinds it, and a revocation takes what is bound then.
pub async fn g16_keys_change_their_lease(store: Arc<dyn Store>) {
    for id in [1, 2] {
        store.lease_grant(id, 1000).await.expect("a lease");
    }
    for key in ["a", "b", "c", "d", "e"] {
        put_bound(&*store, key, 1).await;
    }
    put_bound(&*store, "a", 2).await;
    run(&*store, [put("b", "free")]).await;
    run(&*store, [delete(KeyRange::key("c"))]).await;
    let kept = PutRequest { ignore_lease: true, ..PutRequest::new("d", "kept") };
    run(&*store, [Op::Put(kept)]).await;
    assert_eq!(bound(&*store, 1).await, ["d", "e"]);
    assert_eq!(bound(&*store, 2).await, ["a"]);
    // Bound and unbound within one txn.
    run(&*store, [delete(KeyRange::key("a")), Op::Put(PutRequest { lease: 2, ..PutRequest::new("f", "1") })]).await;
    assert_eq!(bound(&*store, 2).await, ["f"]);
    run(&*store, [put("c", "again")]).await;
    store.lease_revoke(1).await.expect("a revocation");
    let left: Vec<_> = pairs(&*store, KeyRange::all(), 0).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["b", "c", "f"]);
    // A lease with no keys goes without a revision.
    let before = revision(&*store).await;
    run(&*store, [delete(KeyRange::key("f"))]).await;
    store.lease_revoke(2).await.expect("a revocation");
    assert_eq!(revision(&*store).await, before + 1);
}

async fn bound(store: &dyn Store, lease: LeaseId) -> Vec<Bytes> {
    store.lease_time_to_live(lease, true).await.expect("the lease").keys
}
