//! The checks of ranges.

use std::sync::Arc;

use super::{pairs, put, run};
use crate::{KeyRange, RangeRequest, SortOrder, SortTarget, Store};

/// 8. Limits, counts and keys alone.
pub async fn g08_ranges_are_cut_and_counted(store: Arc<dyn Store>) {
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

/// 8. Minimum and maximum revisions leave pairs out, before the limit and not from the count.
pub async fn g08_ranges_are_filtered(store: Arc<dyn Store>) {
    some_keys(&*store).await;
    let all = || RangeRequest::new(KeyRange::prefix("k"));
    let cases = [
        (RangeRequest { min_mod_revision: 5, ..all() }, "k2 k3 k4", false),
        (RangeRequest { min_mod_revision: 5, limit: 1, ..all() }, "k2", true),
        (RangeRequest { min_mod_revision: 5, limit: 3, ..all() }, "k2 k3 k4", false),
        (RangeRequest { max_mod_revision: 5, ..all() }, "k1 k2", false),
        (RangeRequest { min_create_revision: 5, max_create_revision: 6, ..all() }, "k2 k3", false),
        (RangeRequest { max_create_revision: 5, max_mod_revision: 4, ..all() }, "k1", false),
        (RangeRequest { min_mod_revision: 5, count_only: true, ..all() }, "", false),
        (RangeRequest { max_mod_revision: 1, ..all() }, "", false),
        // At a past revision it is that revision's pairs that are looked at.
        (RangeRequest { revision: 6, max_mod_revision: 6, min_mod_revision: 4, ..all() }, "k1 k2 k3", false),
    ];
    for (request, wanted, more) in cases {
        let count = if request.revision == 6 { 3 } else { 4 };
        check(&*store, request, wanted, more, count).await;
    }
}

/// 8. Sorted by any part of a pair, either way, then cut.
pub async fn g08_ranges_are_sorted(store: Arc<dyn Store>) {
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{CreateRevision, Key, ModRevision, Value, Version};
    some_keys(&*store).await;
    let cases = [
        (None, Key, 0, "k1 k2 k3 k4"),
        (Ascend, Key, 0, "k1 k2 k3 k4"),
        (Descend, Key, 2, "k4 k3"),
        (Ascend, Version, 0, "k2 k4 k3 k1"),
        (Descend, Version, 0, "k1 k3 k2 k4"),
        (Descend, Version, 2, "k1 k3"),
        (Descend, CreateRevision, 0, "k4 k3 k2 k1"),
        (Descend, ModRevision, 1, "k4"),
        (Ascend, ModRevision, 0, "k1 k2 k3 k4"),
        (Ascend, Value, 3, "k4 k3 k2"),
        (None, Value, 0, "k4 k3 k2 k1"),
        // Cut to three in key order first.
        (None, Version, 2, "k2 k3"),
    ];
    for (sort_order, sort_target, limit, wanted) in cases {
        let request = RangeRequest { sort_order, sort_target, limit, ..RangeRequest::new(KeyRange::prefix("k")) };
        let more = wanted.split(' ').count() < 4;
        check(&*store, request.clone(), wanted, more, 4).await;
        check(&*store, RangeRequest { keys_only: true, ..request }, wanted, more, 4).await;
    }
}

/// Four keys: k1 put three times, k2 once, k3 twice and k4 once, with falling values.
async fn some_keys(store: &dyn Store) {
    for (key, puts) in [("k1", 3), ("k2", 1), ("k3", 2), ("k4", 1)] {
        for i in 0..puts {
            let fall = b'9' - key.as_bytes()[1] + b'0';
            run(store, [put(key, format!("{}{i}", fall as char))]).await;
        }
    }
}

async fn check(store: &dyn Store, request: RangeRequest, wanted: &str, more: bool, count: u64) {
    let answer = store.range(request.clone()).await.expect("a range");
    let keys: Vec<_> = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
    assert_eq!(keys.join(" "), wanted, "{request:?}");
    assert_eq!((answer.more, answer.count, answer.revision), (more, count, 8), "{request:?}");
    assert!(answer.kvs.iter().all(|kv| kv.value.is_empty() == request.keys_only), "{request:?}");
}
