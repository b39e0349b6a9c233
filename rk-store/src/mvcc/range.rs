//! From the pairs of a range to the answer: filters, order, limit, in etcd's order (its `apply.go`).

use std::cmp::Ordering;

use bytes::Bytes;

use crate::{KeyValue, RangeRequest, RangeResponse, Revision, SortOrder, SortTarget};

/// How many pairs of the range, in key order, the answer is made from.
pub(crate) fn fetched(request: &RangeRequest) -> usize {
    let RangeRequest { min_mod_revision, max_mod_revision, min_create_revision, max_create_revision, .. } = request;
    let filtered = [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision];
    if request.count_only {
        0
    } else if request.limit == 0
        || request.sort_order != SortOrder::None
        || filtered.into_iter().any(|&bound| bound != 0)
    {
        usize::MAX
    } else {
        // One more shows whether there is more.
        request.limit.saturating_add(1)
    }
}

/// The answer made of the pairs fetched.
pub(crate) fn answer(request: &RangeRequest, mut kvs: Vec<KeyValue>, count: u64, revision: Revision) -> RangeResponse {
    let within = |found: Revision, min: Revision, max: Revision| found >= min && (max == 0 || found <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
    sort(&mut kvs, request);
    let more = request.limit > 0 && kvs.len() > request.limit;
    if more {
        kvs.truncate(request.limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { kvs, more, count, revision }
}

/// Sorts pairs that are in key order.
fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    let compare: fn(&KeyValue, &KeyValue) -> Ordering = match request.sort_target {
        SortTarget::Key => |a, b| a.key.cmp(&b.key),
        SortTarget::Version => |a, b| a.version.cmp(&b.version),
        SortTarget::CreateRevision => |a, b| a.create_revision.cmp(&b.create_revision),
        SortTarget::ModRevision => |a, b| a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => |a, b| a.value.cmp(&b.value),
    };
    match (request.sort_order, request.sort_target) {
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
        (SortOrder::None | SortOrder::Ascend, _) => kvs.sort_by(compare),
        (SortOrder::Descend, _) => kvs.sort_by(|a, b| compare(b, a)),
    }
}
