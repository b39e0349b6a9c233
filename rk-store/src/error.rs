//! What can go wrong in a store, in etcd's terms.

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
        /// The compact revision: history at and below it is gone.
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
    /// A request that no state could satisfy: an empty key, a key put twice in one txn, too many operations.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The disk is full or the quota reached; reads go on, deletes and compaction may free space.
    #[error("no space: {0}")]
    NoSpace(String),
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
