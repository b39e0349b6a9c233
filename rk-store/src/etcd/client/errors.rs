//! etcd's errors as those of the contract.

use tonic::{Code, Status};

use super::EtcdStore;
use crate::{
    Error, LeaseId, Op, Revision, Txn,
    etcd::status::{self, Known},
};

/// An error that tells nothing of what was asked.
pub(crate) fn error(status: Status) -> Error {
    let is = |known: Known| known.is(&status);
    let text = status.message();
    match status.code() {
        _ if is(status::EMPTY_KEY) => Error::EmptyKey,
        _ if is(status::VALUE_PROVIDED) => Error::ValueProvided,
        _ if is(status::LEASE_PROVIDED) => Error::LeaseProvided,
        _ if is(status::KEY_NOT_FOUND) => Error::KeyNotFound,
        _ if is(status::DUPLICATE_KEY) => Error::DuplicateKey(bytes::Bytes::new()),
        _ if is(status::TOO_MANY_OPS) => Error::TooManyOps(crate::MAX_TXN_OPS),
        _ if is(status::REQUEST_TOO_LARGE) => Error::RequestTooLarge(crate::MAX_REQUEST_BYTES),
        _ if is(status::INVALID_SORT) => Error::InvalidSortOption,
        _ if is(status::NO_SPACE) => Error::NoSpace(text.to_owned()),
        _ if is(status::CORRUPT) => Error::CorruptAlarm,
        _ if is(status::NO_LEADER) => Error::NoLeader,
        _ if is(status::TIMEOUT) => Error::Timeout,
        _ if is(status::TOO_MANY_REQUESTS) => Error::TooManyRequests,
        // grpc-go refuses what is far too large before etcd sees it.
        Code::ResourceExhausted if text.contains("larger than max") => Error::RequestTooLarge(crate::MAX_REQUEST_BYTES),
        Code::InvalidArgument => Error::Invalid(text.to_owned()),
        Code::Unimplemented => Error::Unsupported("etcd does not know this request"),
        _ => Error::Unavailable(format!("etcd: {status}")),
    }
}

/// An error about a lease.
pub(crate) fn of_lease(status: Status, id: LeaseId, ttl: i64) -> Error {
    match () {
        () if status::LEASE_NOT_FOUND.is(&status) => Error::LeaseNotFound(id),
        () if status::LEASE_EXISTS.is(&status) => Error::LeaseExists(id),
        () if status::LEASE_TTL_TOO_LARGE.is(&status) => Error::LeaseTtlTooLarge(ttl),
        () => error(status),
    }
}

impl EtcdStore {
    /// The error of a request that asked for a revision and named a lease, 0 for none.
    pub(super) async fn explain(&self, status: Status, requested: Revision, lease: LeaseId) -> Error {
        let number = if status::COMPACTED.is(&status) {
            self.compacted().await.map(|compacted| Error::Compacted { requested, compacted })
        } else if status::FUTURE_REVISION.is(&status) {
            self.revision().await.map(|current| Error::FutureRevision { requested, current })
        } else {
            return of_lease(status, lease, 0);
        };
        number.unwrap_or_else(error)
    }
}

fn ops(txn: &Txn) -> impl Iterator<Item = &Op> {
    txn.success.iter().chain(&txn.failure)
}

/// The newest revision that a txn reads at, 0 if it reads only now.
pub(super) fn newest_read(txn: &Txn) -> Revision {
    let of = |op: &Op| match op {
        Op::Range(range) => range.revision,
        Op::Txn(txn) => newest_read(txn),
        Op::Put(_) | Op::Delete(_) => 0,
    };
    ops(txn).map(of).max().unwrap_or(0)
}

/// A lease that a txn binds keys to, 0 if there is none.
pub(super) fn some_lease(txn: &Txn) -> LeaseId {
    let of = |op: &Op| match op {
        Op::Put(put) => put.lease,
        Op::Txn(txn) => some_lease(txn),
        Op::Range(_) | Op::Delete(_) => 0,
    };
    ops(txn).map(of).find(|lease| *lease != 0).unwrap_or(0)
}
