//! What a member starts with, and what it is asked and told while it works.

use std::sync::Arc;

use raft::eraftpb;
use rk_store::{ClusterError, Command, Error, LeaseId, Machine, Outcome, Replica, SnapshotGuard};
use tokio::sync::mpsc;

use crate::{
    MemberId, Packet, RaftOptions, Transport,
    log::{Checkpoints, Point, RaftLog, Recovered, Staged},
    membership::Change,
    proposals::Reply,
    reads::LeaseCheck,
    shared::Shared,
};

/// What a member's clients ask of it.
pub(crate) enum Request {
    /// Answers once this member has applied all that was acknowledged before.
    Barrier(Reply<()>),
    /// The seconds left of a lease, renewed if so wanted.
    Lease { id: LeaseId, renew: bool, reply: Reply<i64> },
    /// Saves the state and gives back all the space that is to be had.
    Defragment(Reply<()>),
    /// Starts to hand the leadership over.
    Transfer { to: MemberId, reply: Reply<(), ClusterError> },
}

/// What a member's clients propose.
pub(crate) enum Proposal {
    Command(Command, Reply<Outcome>),
    Change(Change, Reply<Vec<rk_store::Member>, ClusterError>),
}

/// What the member's other tasks tell it.
pub(crate) enum Event {
    /// All writes up to this number are durable.
    Persisted(u64),
    /// The state at a point, for a member that lacks it or to be saved here.
    Snapshot { to: Option<MemberId>, point: Box<Point>, state: SnapshotGuard },
    /// The state at this index was saved here.
    Saved(u64, Result<(), Error>),
    /// All entries that these questions may be about are applied.
    Reached(Vec<LeaseCheck>),
    /// A state was sent, or not.
    Sent { to: MemberId, transfer: u64, whole: bool },
    /// A state has come.
    Received(Box<Received>),
    /// The log or the engine failed.
    Failed(Error),
}

/// A state that has come, with the message that makes raft take it.
pub(crate) struct Received {
    pub transfer: u64,
    pub message: eraftpb::Message,
    pub point: Point,
    pub machine: Machine,
    pub staged: Box<dyn Staged>,
}

/// What a member works with.
pub(crate) struct Parts {
    pub id: MemberId,
    pub point: Point,
    pub recovered: Recovered,
    pub log: Box<dyn RaftLog>,
    pub states: Arc<dyn Checkpoints>,
    pub transport: Arc<dyn Transport>,
    pub options: RaftOptions,
    pub replica: Arc<Replica>,
    pub shared: Arc<Shared>,
}

/// What is asked of a member, and by whom.
pub(crate) struct Queues {
    pub requests: mpsc::Receiver<Request>,
    pub proposals: mpsc::Receiver<Proposal>,
    pub packets: mpsc::Receiver<Packet>,
}
