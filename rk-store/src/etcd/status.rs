//! Errors as etcd tells them: gRPC codes and texts of etcd's `api/v3rpc/rpctypes/error.go`.

use tonic::{Code, Status};

use crate::Error;

/// One of etcd's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    code: Code,
    text: &'static str,
}

const fn known(code: Code, text: &'static str) -> Known {
    Known { code, text }
}

impl From<Known> for Status {
    fn from(known: Known) -> Self {
        Self::new(known.code, known.text)
    }
}

pub(crate) const EMPTY_KEY: Known = known(Code::InvalidArgument, "etcdserver: key is not provided");
pub(crate) const KEY_NOT_FOUND: Known = known(Code::InvalidArgument, "etcdserver: key not found");
pub(crate) const VALUE_PROVIDED: Known = known(Code::InvalidArgument, "etcdserver: value is provided");
pub(crate) const LEASE_PROVIDED: Known = known(Code::InvalidArgument, "etcdserver: lease is provided");
pub(crate) const TOO_MANY_OPS: Known = known(Code::InvalidArgument, "etcdserver: too many operations in txn request");
pub(crate) const DUPLICATE_KEY: Known = known(Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
pub(crate) const INVALID_SORT: Known = known(Code::InvalidArgument, "etcdserver: invalid sort option");
pub(crate) const REQUEST_TOO_LARGE: Known = known(Code::InvalidArgument, "etcdserver: request is too large");
pub(crate) const TOO_MANY_REQUESTS: Known = known(Code::ResourceExhausted, "etcdserver: too many requests");
pub(crate) const COMPACTED: Known = known(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
pub(crate) const FUTURE_REVISION: Known =
    known(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
pub(crate) const NO_SPACE: Known = known(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
pub(crate) const LEASE_NOT_FOUND: Known = known(Code::NotFound, "etcdserver: requested lease not found");
pub(crate) const LEASE_EXISTS: Known = known(Code::FailedPrecondition, "etcdserver: lease already exists");
pub(crate) const LEASE_TTL_TOO_LARGE: Known = known(Code::OutOfRange, "etcdserver: too large lease TTL");
pub(crate) const NO_LEADER: Known = known(Code::Unavailable, "etcdserver: no leader");
pub(crate) const TIMEOUT: Known = known(Code::Unavailable, "etcdserver: request timed out");
pub(crate) const CORRUPT: Known = known(Code::DataLoss, "etcdserver: corrupt cluster");

/// An error of a store as etcd tells it.
pub(crate) fn status(error: Error) -> Status {
    match error {
        Error::Compacted { .. } => COMPACTED.into(),
        Error::FutureRevision { .. } => FUTURE_REVISION.into(),
        Error::LeaseNotFound(_) => LEASE_NOT_FOUND.into(),
        Error::LeaseExists(_) => LEASE_EXISTS.into(),
        Error::LeaseTtlTooLarge(_) => LEASE_TTL_TOO_LARGE.into(),
        Error::EmptyKey => EMPTY_KEY.into(),
        Error::ValueProvided => VALUE_PROVIDED.into(),
        Error::LeaseProvided => LEASE_PROVIDED.into(),
        Error::KeyNotFound => KEY_NOT_FOUND.into(),
        Error::DuplicateKey(_) => DUPLICATE_KEY.into(),
        Error::TooManyOps(_) => TOO_MANY_OPS.into(),
        Error::RequestTooLarge(_) => REQUEST_TOO_LARGE.into(),
        Error::InvalidSortOption => INVALID_SORT.into(),
        Error::Invalid(reason) => Status::invalid_argument(reason),
        Error::NoSpace(_) => NO_SPACE.into(),
        Error::CorruptAlarm | Error::Corrupt { .. } => CORRUPT.into(),
        Error::Timeout => TIMEOUT.into(),
        Error::NoLeader => NO_LEADER.into(),
        Error::TooManyRequests => TOO_MANY_REQUESTS.into(),
        Error::Unsupported(what) => Status::unimplemented(what),
        error => Status::unavailable(format!("etcdserver: {error}")),
    }
}

/// A store that answers one operation with another's answer.
pub(crate) fn mismatch() -> Status {
    Status::internal("an operation had the answer of another kind")
}
