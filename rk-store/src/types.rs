//! Requests and answers of a [`Store`](crate::Store), after etcd's `rpc.proto`.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

/// A point in the store's history. The empty store is at revision 1, as etcd's is; every
/// transaction that changes something makes the next one.
pub type Revision = u64;

/// A lease's id; never 0 once granted.
pub type LeaseId = i64;

/// A key with its value and history, as etcd's `mvccpb.KeyValue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The value at `mod_revision`. Empty in a delete event and where only keys were asked for.
    pub value: Bytes,
    /// Revision of the put that created the key since it was last absent.
    pub create_revision: Revision,
    /// Revision of the last change.
    pub mod_revision: Revision,
    /// Number of puts since creation, from 1. 0 in a delete event.
    pub version: u64,
    /// The lease the key is bound to, 0 for none.
    pub lease: LeaseId,
}

/// A range of keys: `start..end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// First key in the range.
    pub start: Bytes,
    /// First key behind the range; `None` for no end.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Just this key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = Vec::with_capacity(start.len() + 1);
        end.extend_from_slice(&start);
        end.push(0);
        Self { start, end: Some(end.into()) }
    }

    /// The key, if the range is of just one.
    pub fn as_key(&self) -> Option<&Bytes> {
        let end = self.end.as_ref()?.strip_suffix(&[0])?;
        (end == self.start).then_some(&self.start)
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// The range as std's bounds, for ordered maps.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.start[..]), end)
    }

    /// Whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end <= &self.start)
    }
}

/// The first key behind all keys that begin with `prefix`, `None` if there is no such key.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// A read of keys.
///
/// The answer is made as etcd makes it: the range as it was at `revision` gives the count; of its pairs those outside the
/// minimum and maximum revisions are dropped, the rest is sorted, then cut to the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The revision to read at; 0 is now.
    pub revision: Revision,
    /// At most this many keys; 0 for all.
    pub limit: usize,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// The order of the answer, by what `sort_target` says.
    pub sort_order: SortOrder,
    /// What the answer is sorted by. Pairs that are equal in it come in key order.
    pub sort_target: SortTarget,
    /// Only pairs changed last at this revision or later; 0 for all.
    pub min_mod_revision: Revision,
    /// Only pairs changed last at this revision or earlier; 0 for all.
    pub max_mod_revision: Revision,
    /// Only pairs created at this revision or later; 0 for all.
    pub min_create_revision: Revision,
    /// Only pairs created at this revision or earlier; 0 for all.
    pub max_create_revision: Revision,
    /// Whether the store may answer from the copy at hand, without asking a majority. Such an answer may be old; a
    /// store of one copy has no others.
    pub serializable: bool,
}

impl RangeRequest {
    /// All of `range` in key order, now.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            keys_only: false,
            count_only: false,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
            serializable: false,
        }
    }
}

/// The order of a [`RangeRequest`]'s answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// Key order for the target `Key`. For another target, the pairs are cut to one more than the limit in
    /// key order first, sorted rising, and cut to the limit: etcd's rule, which is of use without a limit only.
    #[default]
    None,
    /// Rising.
    Ascend,
    /// Falling.
    Descend,
}

/// What a [`RangeRequest`]'s answer is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// Puts since creation.
    Version,
    /// Revision of creation.
    CreateRevision,
    /// Revision of the last change.
    ModRevision,
    /// The value.
    Value,
}

/// The answer to a [`RangeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResponse {
    /// The pairs found.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// How many keys the range holds at that revision, whatever the limit and the minimum and maximum revisions.
    pub count: u64,
    /// The store's revision when the answer was made.
    pub revision: Revision,
}

/// A put of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRequest {
    /// The key; empty is refused.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to bind the key to, 0 for none; an unknown lease refuses the txn.
    pub lease: LeaseId,
    /// Whether the answer holds the pair that was replaced.
    pub prev_kv: bool,
    /// Keep the value the key has; `value` must be empty, and the key there.
    pub ignore_value: bool,
    /// Keep the lease the key has; `lease` must be 0, and the key there.
    pub ignore_lease: bool,
}

impl PutRequest {
    /// A put with no lease.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self { key, value, lease: 0, prev_kv: false, ignore_value: false, ignore_lease: false }
    }
}

/// A delete of a range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Whether the answer holds the pairs that were deleted.
    pub prev_kv: bool,
}

/// One operation of a [`Txn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Range(RangeRequest),
    /// Write one key.
    Put(PutRequest),
    /// Delete a range.
    Delete(DeleteRequest),
    /// A txn inside a txn.
    Txn(Txn),
}

/// A transaction: if every compare holds, `success` is done, else `failure`; at one revision or
/// not at all. No key may be put twice in one executed path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// The guards. None at all hold.
    pub compare: Vec<Compare>,
    /// Done if the guards hold.
    pub success: Vec<Op>,
    /// Done if they do not.
    pub failure: Vec<Op>,
}

/// A guard over one key or every key of a range. An absent key has version, create and mod
/// revision and lease 0 and fails every compare of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The keys; the guard must hold for each that is there (a single absent key counts as version 0).
    pub range: KeyRange,
    /// How the found (left) and the wanted (right) are compared.
    pub op: CompareOp,
    /// What is compared.
    pub target: CompareTarget,
}

/// The relation of a [`Compare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// Found equals wanted.
    Equal,
    /// Found is greater.
    Greater,
    /// Found is less.
    Less,
    /// Found differs.
    NotEqual,
}

/// The wanted side of a [`Compare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    /// Puts since creation.
    Version(u64),
    /// Revision of creation.
    CreateRevision(Revision),
    /// Revision of the last change.
    ModRevision(Revision),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// The answer to one [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResponse {
    /// To a range.
    Range(RangeResponse),
    /// To a put: the pair before, if asked for and there.
    Put {
        /// The pair that was replaced.
        prev_kv: Option<KeyValue>,
    },
    /// To a delete.
    Delete {
        /// How many keys were deleted.
        deleted: u64,
        /// Those pairs, if asked for.
        prev_kvs: Vec<KeyValue>,
    },
    /// To a nested txn.
    Txn(TxnResponse),
}

/// The answer to a [`Txn`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnResponse {
    /// Whether the guards held.
    pub succeeded: bool,
    /// One answer per operation done, in order.
    pub responses: Vec<OpResponse>,
    /// The store's revision after the txn: the one it made, or the one it saw if it changed nothing.
    pub revision: Revision,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was put.
    Put,
    /// It was deleted, by a request or by its lease.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The pair after the change; for a delete key and `mod_revision` only.
    pub kv: KeyValue,
    /// The pair before, where there was one and the watch asked for it.
    pub prev_kv: Option<KeyValue>,
}

/// Which changes to watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchRequest {
    /// Keys to watch.
    pub range: KeyRange,
    /// The first revision whose changes are wanted; 0 is the next one.
    pub start_revision: Revision,
    /// Whether events hold the pair before.
    pub prev_kv: bool,
    /// Whether [`WatchBatch`]es without events tell the revision reached while nothing changes
    /// (the store decides how often). On request they come in any case: see [`WatchStream`](crate::WatchStream).
    pub progress: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
}

impl WatchRequest {
    /// Every change of `range` from `start_revision` on.
    pub fn new(range: KeyRange, start_revision: Revision) -> Self {
        Self { range, start_revision, prev_kv: false, progress: false, no_put: false, no_delete: false }
    }

    /// Whether an event is among those wanted, whatever its revision.
    pub fn wants(&self, event: &Event) -> bool {
        let left_out = match event.kind {
            EventKind::Put => self.no_put,
            EventKind::Delete => self.no_delete,
        };
        !left_out && self.range.contains(&event.kv.key)
    }
}

/// What a watch delivers: all events of one or more whole revisions, never a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// Every watched change up to here has been delivered with this batch or before it.
    pub revision: Revision,
    /// The changes in order; empty for progress. Shared between watchers of one range.
    pub events: Arc<[Event]>,
}

/// A lease as seen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The time to live it was granted, in seconds: at least [`MIN_LEASE_TTL`].
    pub granted_ttl: i64,
    /// Seconds left; -1 if it is gone.
    pub ttl: i64,
    /// The keys bound to it, in order, where they were asked for.
    pub keys: Vec<Bytes>,
}

/// Fewest seconds a lease lives: etcd's for its default election timeout. Who asks for less gets this much.
pub const MIN_LEASE_TTL: i64 = 2;

/// Most seconds a lease may live: etcd's `MaxLeaseTTL`.
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;

impl Lease {
    /// A lease just granted to whoever asked for `ttl` seconds.
    pub fn granted(id: LeaseId, ttl: i64) -> Self {
        let ttl = ttl.max(MIN_LEASE_TTL);
        Self { id, granted_ttl: ttl, ttl, keys: Vec::new() }
    }
}

/// A copy's content in one number: equal for all copies with the same content, whatever engine holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C of every change that a read at `compact_revision` or later, up to `revision`, can see.
    pub hash: u32,
    /// The revision up to which changes were taken.
    pub revision: Revision,
    /// The compact revision. Hashes can be compared only where it is the same.
    pub compact_revision: Revision,
}

/// What an [`Alarm`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The quota was reached: puts and new leases are refused with [`Error::NoSpace`](crate::Error::NoSpace).
    NoSpace,
    /// A copy differs from the others: every change is refused with [`Error::CorruptAlarm`](crate::Error::CorruptAlarm).
    Corrupt,
}

/// An alarm, active until it is deactivated. It is part of the replicated state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alarm {
    /// The member that has raised it; 0 in a store that stands alone.
    pub member: u64,
    /// What it tells.
    pub kind: AlarmKind,
}

/// A store's own numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreStatus {
    /// The current revision.
    pub revision: Revision,
    /// History before it is gone; 0 if nothing was compacted.
    pub compact_revision: Revision,
    /// Keys alive now.
    pub keys: u64,
    /// Bytes on disk, 0 for a store in memory.
    pub disk_size: u64,
    /// Bytes of the keys and values with their history: what the quota bounds. It shrinks with compaction.
    pub size_in_use: u64,
}
