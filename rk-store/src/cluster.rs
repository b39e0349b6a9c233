//! The contract of a cluster: who belongs to it, who leads, and how that changes.
//!
//! A [`Store`](crate::Store) says what is stored; a [`Cluster`] says who stores it. A group of replicas implements both; a store that
//! stands alone is a cluster of one. What is asked for and answered follows the Cluster service and the status and
//! move-leader calls of the Maintenance service of the etcd v3 API (`rpc.proto`).

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Alarm, Counts, Error};

/// A member's id, unique in its cluster and never given again; not 0.
pub type MemberId = u64;

/// A member, as all members know it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty for a member that was added and has not started yet.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none for a member that was added and has not started yet.
    pub client_urls: Vec<String>,
    /// Whether it only listens: it has the data and no vote, and can't lead.
    pub is_learner: bool,
}

/// How one member sees itself and the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberStatus {
    /// The member that it takes for the leader, if any.
    pub leader: Option<MemberId>,
    /// Its raft term.
    pub term: u64,
    /// The index of the last log entry that it knows to be committed.
    pub index: u64,
    /// The index of the last log entry that it has applied.
    pub applied: u64,
    /// Bytes that its data takes on disk.
    pub size: u64,
    /// Bytes of these that hold data; the rest comes free with defragmentation.
    pub size_in_use: u64,
    /// Whether it is a learner.
    pub is_learner: bool,
    /// The alarms that are active as far as it knows.
    pub alarms: Vec<Alarm>,
    /// What else is wrong with it, in words: a missing leader, a full disk.
    pub errors: Vec<String>,
}

/// Why a change of a cluster was refused. A refused change changed nothing. The texts are etcd's.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No member has this id.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// A member with this id is there, or was.
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    /// Another member has one of these peer URLs.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    /// No URLs, or such that nobody could use.
    #[error("etcdserver: given member URLs are invalid")]
    InvalidUrls,
    /// The cluster has as many learners as it may have.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// Only a learner can be promoted.
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    /// The learner has not caught up with the leader yet: wait, then try again.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// With this change too few members that run would be left for a majority.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Some member is not reachable, so the cluster might stop with this change.
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    /// The member to lead next is not there or may not lead.
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    /// Only the leader can do this, and the member asked is not the leader.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// There is no leader now.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The cluster did not answer in time; whether the change took place is not known.
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// A cluster of this kind can't be changed so.
    #[error("etcdserver: not supported: {0}")]
    NotSupported(&'static str),
    /// The store under it failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A cluster, as one of its members sees and changes it.
///
/// Changes take effect one at a time, each through the log that the data goes through, and are there with the answer.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// The cluster's id: clients and members of another cluster have another one.
    fn cluster_id(&self) -> u64;

    /// The id of this member.
    fn member_id(&self) -> MemberId;

    /// The raft term that this member is in now; 0 where there are no terms. Cheap: each answer to a client carries it.
    fn term(&self) -> u64;

    /// The leader as this member knows it, now and with each change.
    fn leader(&self) -> watch::Receiver<Option<MemberId>>;

    /// Whether this member is a learner now. Cheap: each request asks it.
    fn is_learner(&self) -> bool {
        false
    }

    /// This member's own numbers.
    async fn member_status(&self) -> Result<MemberStatus, ClusterError>;

    /// What this member has counted, if it does.
    fn counts(&self) -> Counts {
        Counts::default()
    }

    /// The members in the order of their ids: as all have agreed (`linearizable`, which needs a majority), or as this
    /// member knows them.
    async fn members(&self, linearizable: bool) -> Result<Vec<Member>, ClusterError>;

    /// Adds a member that is to be started later, as a learner if so wanted. The new member and all of them.
    async fn member_add(&self, peer_urls: Vec<String>, learner: bool) -> Result<(Member, Vec<Member>), ClusterError>;

    /// Removes a member for ever; it may be the one asked, and may lead. Those that are left.
    async fn member_remove(&self, id: MemberId) -> Result<Vec<Member>, ClusterError>;

    /// Gives a member other peer URLs. All members.
    async fn member_update(&self, id: MemberId, peer_urls: Vec<String>) -> Result<Vec<Member>, ClusterError>;

    /// Gives a learner that has caught up with the leader its vote. All members.
    async fn member_promote(&self, id: MemberId) -> Result<Vec<Member>, ClusterError>;

    /// Has another member lead, as this member leads. Returns when it does.
    async fn move_leader(&self, to: MemberId) -> Result<(), ClusterError>;
}
