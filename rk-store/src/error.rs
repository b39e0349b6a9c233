//! What can go wrong in a store, in etcd's terms.

use bytes::Bytes;

use crate::{LeaseId, Revision};

/// Why a store refused or failed a request. A refused request changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The revision asked for was compacted away.
    #[error("revision {requested} has been compacted (compact revision {compacted}): list again and start from there")]
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// The compact revision: history before it is gone.
        compacted: Revision,
    },
    /// The revision asked for lies in the future.
    #[error("revision {requested} is in the future (current revision {current})")]
    FutureRevision {
        /// The revision asked for.
        requested: Revision,
        /// The store's revision now.
        current: Revision,
    },
    /// No lease has this id.
    #[error("lease {0:x} not found: it expired or was revoked")]
    LeaseNotFound(LeaseId),
    /// A lease with this id is there already.
    #[error("lease {0:x} already exists")]
    LeaseExists(LeaseId),
    /// A lease asked for with a longer life than [`MAX_LEASE_TTL`](crate::MAX_LEASE_TTL).
    #[error("a lease's time to live is at most {max} seconds, not {0}", max = crate::MAX_LEASE_TTL)]
    LeaseTtlTooLarge(i64),
    /// A put of the empty key.
    #[error("the key is empty")]
    EmptyKey,
    /// A put with `ignore_value` that brings a value.
    #[error("a put that keeps the value brings a value")]
    ValueProvided,
    /// A put with `ignore_lease` that brings a lease.
    #[error("a put that keeps the lease brings a lease")]
    LeaseProvided,
    /// A put with `ignore_value` or `ignore_lease` of a key that is not there.
    #[error("the key whose value or lease a put keeps is not there")]
    KeyNotFound,
    /// A txn that could change a key twice.
    #[error("key {0:?} is changed twice in one txn")]
    DuplicateKey(Bytes),
    /// A txn with more operations or compares than [`MAX_TXN_OPS`](crate::MAX_TXN_OPS).
    #[error("too many operations in a txn: at most {0}")]
    TooManyOps(usize),
    /// A request with more bytes than [`MAX_REQUEST_BYTES`](crate::MAX_REQUEST_BYTES).
    #[error("the request is too large: at most {0} bytes")]
    RequestTooLarge(usize),
    /// A sort order or target that does not exist.
    #[error("no such sort order or target")]
    InvalidSortOption,
    /// Any other request that no state could satisfy.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The disk is full, or the quota reached and its alarm still active; reads go on, deletes and compaction may free space.
    #[error("no space: {0}")]
    NoSpace(String),
    /// The alarm [`AlarmKind::Corrupt`](crate::AlarmKind::Corrupt) is active.
    #[error("a member's content differs from the others': nothing is changed until its alarm is deactivated")]
    CorruptAlarm,
    /// Nothing came back in time; a write may yet take effect.
    #[error("the request timed out")]
    Timeout,
    /// No member leads the group now; the request was not taken.
    #[error("no leader")]
    NoLeader,
    /// More requests wait than the store takes; the request was not taken.
    #[error("too many requests")]
    TooManyRequests,
    /// What this store can't do.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The store can't write any more (a failed sync, a lost quorum); reads may go on.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Data on disk that is not what was written: file, offset and what was found.
    #[error("corrupt data in {file} at offset {offset}: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// Byte offset in the file.
        offset: u64,
        /// What was found.
        reason: String,
    },
    /// A directory that another process uses.
    #[error("{dir} is in use by another process: {holder}")]
    InUse {
        /// The data directory.
        dir: String,
        /// Who holds the lock, as far as is known.
        holder: String,
    },
    /// An error of the operating system.
    #[error("{context}: {message}")]
    Io {
        /// What was tried, with the path.
        context: String,
        /// The system's own words.
        message: String,
    },
}

impl Error {
    /// Wraps an I/O error with what was tried.
    pub fn io(context: impl Into<String>, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::NoSpace(format!("{}: {error}", context.into()));
        }
        Self::Io { context: context.into(), message: error.to_string() }
    }
}
