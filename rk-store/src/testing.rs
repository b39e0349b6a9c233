//! Conformance suites: whether an implementation keeps what [`Store`] and [`Engine`](crate::Engine) promise.
//!
//! [`store_conformance!`](crate::store_conformance) makes one test of each check of [`store`]; [`conformance`] runs them
//! one after the other. [`model::against_model`] runs random histories against a naive model, and
//! [`store::durability`] is for stores that can be opened again.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use std::sync::Arc;
//! use rk_store::{MemoryStore, testing};
//!
//! testing::store::revisions_count_changes(Arc::new(MemoryStore::new())).await;
//! # }
//! ```

#[cfg(feature = "log")]
pub mod disk;
pub mod engine;
pub mod model;
pub mod store;
mod watch;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;

use crate::{Error, Event, Op, PutRequest, Store, Txn, WatchBatch, WatchStream};

/// How long a check waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a module with one `#[tokio::test]` for each check of the store's conformance suite; each calls the second argument, an
/// expression that gives a new, empty `Arc<dyn Store>` and may await. The clock is paused: needs tokio's
/// feature `test-util`.
///
/// ```
/// rk_store::store_conformance!(memory, std::sync::Arc::new(rk_store::MemoryStore::new()));
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($name:ident, $make:expr) => {
        $crate::store_conformance!(@checks $name, $make,
            revisions_count_changes, versions_follow_a_key, a_txn_is_all_or_nothing, a_txn_reads_its_writes,
            guards_compare_what_they_say, nested_txns_run_in_place, impossible_requests_are_refused,
            concurrent_writers_lose_nothing, history_is_kept_until_compacted, ranges_are_cut_and_counted,
            watches_start_anywhere, watches_deliver_whole_revisions, watches_tell_the_pair_before,
            watches_join_without_gap, watches_end_when_compacted, watches_tell_progress,
            slow_watchers_hold_nobody_up, leases_end_with_their_keys, leases_are_kept_alive, leases_are_managed,
        );
    };
    (@checks $name:ident, $make:expr, $($check:ident,)*) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $check() {
                    $crate::testing::store::$check($make).await;
                }
            )*
        }
    };
}

/// Runs every check of [`store`], each on a new, empty store from `make`.
pub async fn conformance<F>(make: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Store>>,
{
    store::revisions_count_changes(make().await).await;
    store::versions_follow_a_key(make().await).await;
    store::a_txn_is_all_or_nothing(make().await).await;
    store::a_txn_reads_its_writes(make().await).await;
    store::guards_compare_what_they_say(make().await).await;
    store::nested_txns_run_in_place(make().await).await;
    store::impossible_requests_are_refused(make().await).await;
    store::concurrent_writers_lose_nothing(make().await).await;
    store::history_is_kept_until_compacted(make().await).await;
    store::ranges_are_cut_and_counted(make().await).await;
    store::watches_start_anywhere(make().await).await;
    store::watches_deliver_whole_revisions(make().await).await;
    store::watches_tell_the_pair_before(make().await).await;
    store::watches_join_without_gap(make().await).await;
    store::watches_end_when_compacted(make().await).await;
    store::watches_tell_progress(make().await).await;
    store::slow_watchers_hold_nobody_up(make().await).await;
    store::leases_end_with_their_keys(make().await).await;
    store::leases_are_kept_alive(make().await).await;
    store::leases_are_managed(make().await).await;
}

/// A put with no lease.
pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put(PutRequest::new(key, value))
}

/// A txn without guards.
pub(crate) fn txn(ops: impl Into<Vec<Op>>) -> Txn {
    Txn { success: ops.into(), ..Txn::default() }
}

/// The next thing from a watch, which must come.
pub(crate) async fn next(watch: &mut WatchStream) -> Result<WatchBatch, Error> {
    let next = tokio::time::timeout(PATIENCE, watch.next()).await;
    next.expect("the watch is silent").expect("the watch has ended")
}

/// The next `count` events of a watch, batches without events left out.
pub(crate) async fn events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        events.extend(next(watch).await.expect("the watch failed").events.iter().cloned());
    }
    assert_eq!(events.len(), count, "a batch has more events than were made: {events:?}");
    events
}
