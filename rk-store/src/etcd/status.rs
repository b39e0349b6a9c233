//! Errors as etcd tells them: gRPC codes and texts of etcd's `api/v3rpc/rpctypes/error.go`.

use tonic::{Code, Status};

use crate::{ClusterError, Error};

/// One of etcd's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    code: Code,
    text: &'static str,
}

const fn known(code: Code, text: &'static str) -> Known {
    Known { code, text }
}

impl Known {
    /// Whether this is what a server says.
    pub(crate) fn is(self, status: &Status) -> bool {
        (status.code(), status.message()) == (self.code, self.text)
    }
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
pub(crate) const MEMBER_NOT_FOUND: Known = known(Code::NotFound, "etcdserver: member not found");
pub(crate) const MEMBER_EXISTS: Known = known(Code::FailedPrecondition, "etcdserver: member ID already exist");
pub(crate) const PEER_URL_EXISTS: Known = known(Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
pub(crate) const MEMBER_BAD_URLS: Known = known(Code::InvalidArgument, "etcdserver: given member URLs are invalid");
pub(crate) const TOO_MANY_LEARNERS: Known =
    known(Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
pub(crate) const NOT_LEARNER: Known = known(Code::FailedPrecondition, "etcdserver: can only promote a learner member");
pub(crate) const LEARNER_NOT_READY: Known =
    known(Code::FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader");
pub(crate) const NOT_ENOUGH_STARTED: Known =
    known(Code::FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members");
pub(crate) const NOT_FOR_LEARNERS: Known = known(Code::Unavailable, "etcdserver: rpc not supported for learner");
pub(crate) const UNHEALTHY: Known = known(Code::Unavailable, "etcdserver: unhealthy cluster");
pub(crate) const BAD_TRANSFEREE: Known = known(Code::FailedPrecondition, "etcdserver: bad leader transferee");
pub(crate) const NOT_LEADER: Known = known(Code::FailedPrecondition, "etcdserver: not leader");
pub(crate) const NO_DOWNGRADE: Known = known(Code::FailedPrecondition, "etcdserver: no inflight downgrade job");
pub(crate) const DOWNGRADE_TARGET: Known = known(Code::InvalidArgument, "etcdserver: invalid downgrade target version");
pub(crate) const DOWNGRADE_FORMAT: Known =
    known(Code::InvalidArgument, "etcdserver: wrong downgrade target version format");
pub(crate) const AUTH_NOT_ENABLED: Known = known(Code::FailedPrecondition, "etcdserver: authentication is not enabled");
pub(crate) const NO_ROOT_USER: Known = known(Code::FailedPrecondition, "etcdserver: root user does not exist");
pub(crate) const USER_EMPTY: Known = known(Code::InvalidArgument, "etcdserver: user name is empty");
pub(crate) const USER_NOT_FOUND: Known = known(Code::FailedPrecondition, "etcdserver: user name not found");
pub(crate) const ROLE_EMPTY: Known = known(Code::InvalidArgument, "etcdserver: role name is empty");
pub(crate) const ROLE_NOT_FOUND: Known = known(Code::FailedPrecondition, "etcdserver: role name not found");

/// A cluster's refusal as etcd tells it.
pub(crate) fn cluster_status(error: ClusterError) -> Status {
    let known = match error {
        ClusterError::MemberNotFound => MEMBER_NOT_FOUND,
        ClusterError::MemberExists => MEMBER_EXISTS,
        ClusterError::PeerUrlExists => PEER_URL_EXISTS,
        ClusterError::InvalidUrls => MEMBER_BAD_URLS,
        ClusterError::TooManyLearners => TOO_MANY_LEARNERS,
        ClusterError::NotLearner => NOT_LEARNER,
        ClusterError::LearnerNotReady => LEARNER_NOT_READY,
        ClusterError::NotEnoughStarted => NOT_ENOUGH_STARTED,
        ClusterError::Unhealthy => UNHEALTHY,
        ClusterError::BadTransferee => BAD_TRANSFEREE,
        ClusterError::NotLeader => NOT_LEADER,
        ClusterError::NoLeader => NO_LEADER,
        ClusterError::TimedOut => TIMEOUT,
        ClusterError::Store(error) => return status(error),
        error @ ClusterError::NotSupported(_) => return Status::unimplemented(error.to_string()),
    };
    known.into()
}

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
