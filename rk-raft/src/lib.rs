//! A replicated rk-store: the same contract, kept by a raft group.
//!
//! Each member of a group holds the whole store and is a [`rk_store::Store`]: a [`RaftStore`]. Commands of rk-store's state machine are the
//! entries of the raft log (tikv's [`raft`] crate), and each member applies them to a [`rk_store::Replica`] of its own. A group
//! of three goes on without one of them, a group of five without two.
//!
//! - Writes go to the leader, whichever member was asked, and are acknowledged when a majority has them.
//! - Reads are linearizable: by raft's ReadIndex, from the member that was asked, or by the leader's lease.
//! - Watches are served by the member that was asked.
//! - Leases end by the leader's clock and never early, whoever leads.
//!
//! - Members come and go at run time, through [`rk_store::Cluster`], which a [`RaftStore`] implements too.
//!
//! What a member runs on are contracts: a [`RaftLog`] that keeps entries and vote, [`Checkpoints`] that keep the state
//! that the log goes on from ([`MemoryLog`] is both), and a [`Transport`] that carries packets ([`LocalNetwork`]). Time is that of [`RaftOptions::clock`] and randomness comes from
//! [`RaftOptions::seed`], so a [`LocalGroup`] can be tested under a paused clock, with members stopped, cut off and
//! started again:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rk_store::Error> {
//! use rk_raft::{LocalGroup, RaftOptions};
//! use rk_store::Store;
//!
//! let mut group = LocalGroup::start(3, RaftOptions::default()).await?;
//! let leader = group.leader().await;
//! group.member(leader).unwrap().put("greeting".into(), "hello".into()).await?;
//!
//! group.stop(leader);
//! let other = group.members().next().unwrap();
//! let found = other.get("greeting".into()).await?;
//! assert_eq!(found.map(|kv| kv.value), Some("hello".into()));
//! # Ok(()) }
//! ```

mod applier;
mod cluster;
mod codec;
mod entry;
mod group;
#[cfg(feature = "grpc")]
mod grpc;
mod guard;
mod log;
mod logging;
#[cfg(feature = "grpc")]
mod member;
mod membership;
mod message;
mod node;
mod options;
mod proposals;
mod reads;
mod shared;
#[cfg(feature = "testing")]
pub mod sim;
mod store;
mod ticks;
mod transfer;
mod transport;
mod writer;

pub use cluster::MemberChange;
pub use group::LocalGroup;
#[cfg(feature = "grpc")]
pub use grpc::{GrpcTransport, PROTOCOL_VERSION, PeerListener, PeerTls, discover};
pub use log::{
    Batch, Checkpoints, Identity, Incoming, MakeEngine, MemberDir, MemberDirOptions, MemoryLog, Point, RaftLog,
    Recovered, Staged, Syncs,
};
#[cfg(feature = "grpc")]
pub use member::{Initial, MemberConfig};
pub use membership::{MAX_LEARNERS, Membership};
pub use options::RaftOptions;
pub use raft::eraftpb;
pub use rk_store::MemberId;
pub use store::{RaftStore, Start};
pub use transport::{Lane, LocalNetwork, Packet, Transport};
