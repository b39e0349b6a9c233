//! Conformance suites: whether an implementation keeps what [`Store`] and [`Engine`](crate::Engine) promise.
//!
//! [`store_conformance!`](crate::store_conformance) makes one test of each check of [`store`]; [`conformance`] runs them
//! one after the other. [`model::against_model`] runs random histories against a naive model, and
//! [`store::g06_durability`] is for stores that can be opened again.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use std::sync::Arc;
//! use rk_store::{MemoryStore, testing};
//!
//! testing::store::g01_revisions_count_changes(Arc::new(MemoryStore::new())).await;
//! # }
//! ```

#[cfg(feature = "log")]
pub mod disk;
pub mod engine;
mod lease;
pub mod model;
mod ports;
mod range;
pub mod store;
mod upkeep;
mod watch;

pub use ports::free_port;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    Compare, CompareOp, CompareTarget, DeleteRequest, Error, Event, KeyRange, Op, PutRequest, RangeRequest, Revision,
    Store, Txn, TxnResponse, WatchBatch, WatchStream,
};

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
        $crate::store_conformance!(@checks tests $name, $make);
    };
    (@checks $what:ident $($arguments:tt)*) => {
        $crate::store_conformance!(@$what $($arguments)*;
            g01_revisions_count_changes,
            g01_versions_follow_a_key,
            g02_a_txn_is_all_or_nothing,
            g03_a_txn_reads_its_writes,
            g03_guards_compare_what_they_say,
            g03_nested_txns_run_in_place,
            g03_puts_keep_what_they_are_told,
            g04_impossible_requests_are_refused,
            g05_concurrent_writers_lose_nothing,
            g07_history_is_kept_until_compacted,
            g08_ranges_are_cut_and_counted,
            g08_ranges_are_filtered,
            g08_ranges_are_sorted,
            g09_compaction_forgets_only_the_past,
            g10_watches_deliver_whole_revisions,
            g10_watches_join_without_gap,
            g11_watches_start_anywhere,
            g11_watches_end_when_compacted,
            g12_watches_tell_the_pair_before,
            g12_watches_leave_out_what_is_filtered,
            g13_watches_tell_progress,
            g13_watches_tell_progress_on_request,
            g14_slow_watchers_hold_nobody_up,
            g15_leases_end_with_their_keys,
            g15_leases_are_kept_alive,
            g15_leases_are_managed,
            g16_keys_change_their_lease,
            g17_alarms_refuse_writes,
            g18_hashes_tell_contents_apart,
        );
    };
    (@tests $name:ident, $make:expr; $($check:ident,)*) => {
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
    (@calls $make:expr; $($check:ident,)*) => {
        $($crate::testing::store::$check($make.await).await;)*
    };
}

/// Runs every check of [`store`], each on a new, empty store from `make`.
pub async fn conformance<F>(make: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Store>>,
{
    store_conformance!(@checks calls make());
}

/// A put with no lease.
pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put(PutRequest::new(key, value))
}

/// A txn without guards.
pub(crate) fn txn(ops: impl Into<Vec<Op>>) -> Txn {
    Txn { success: ops.into(), ..Txn::default() }
}

/// A delete that tells what it deleted.
pub(crate) fn delete(range: KeyRange) -> Op {
    Op::Delete(DeleteRequest { range, prev_kv: true })
}

/// A read now.
pub(crate) fn read(range: KeyRange) -> Op {
    Op::Range(RangeRequest::new(range))
}

/// A guard over one key.
pub(crate) fn guard(key: &'static str, op: CompareOp, target: CompareTarget) -> Compare {
    Compare { range: KeyRange::key(key), op, target }
}

/// The revision now.
pub(crate) async fn revision(store: &dyn Store) -> Revision {
    store.status().await.expect("status").revision
}

/// Runs a txn without guards.
pub(crate) async fn run(store: &dyn Store, ops: impl Into<Vec<Op>>) -> TxnResponse {
    store.txn(txn(ops)).await.expect("a txn without guards succeeds")
}

/// The keys and values of a range at a revision, 0 being now.
pub(crate) async fn pairs(store: &dyn Store, range: KeyRange, revision: Revision) -> Vec<(Bytes, Bytes)> {
    let request = RangeRequest { revision, ..RangeRequest::new(range) };
    let answer = store.range(request).await.expect("the revision is there");
    answer.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
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
