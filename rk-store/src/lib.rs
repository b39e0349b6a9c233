//! The etcd data model as a trait, with embedded, durable engines behind it.
//!
//! A [`Store`] is a flat, ordered map from byte keys to byte values with one monotonic
//! [`Revision`] for the whole store: transactions, reads at past revisions, watches from a
//! revision, compaction and leases, as the etcd v3 API defines them
//! (<https://etcd.io/docs/v3.6/learning/api/>).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rk_store::Error> {
//! use futures::StreamExt;
//! use rk_store::{Compare, CompareOp, CompareTarget, KeyRange, MemoryStore, Op, PutRequest, Store, Txn, WatchRequest};
//!
//! let store = MemoryStore::new();
//! let created = store.put("/config/colour".into(), "blue".into()).await?;
//!
//! // Everything below /config/ from the first revision on, whenever it happens.
//! let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("/config/"), created)).await?;
//!
//! // Change the value only if nobody else has.
//! let unchanged = Compare {
//!     range: KeyRange::key("/config/colour"),
//!     op: CompareOp::Equal,
//!     target: CompareTarget::ModRevision(created),
//! };
//! let put = PutRequest::new("/config/colour", "green");
//! let txn = Txn { compare: vec![unchanged], success: vec![Op::Put(put)], failure: vec![] };
//! assert!(store.txn(txn).await?.succeeded);
//!
//! for value in ["blue", "green"] {
//!     let batch = watch.next().await.expect("a watch goes on for ever")?;
//!     assert_eq!(batch.events[0].kv.value, value);
//! }
//! # Ok(()) }
//! ```
//!
//! # Stores
//! - [`MemoryStore`]: for tests and for what may be lost.
//! - `DurableStore` (feature `log`, on by default): a directory on disk; what it has acknowledged survives `kill -9` and power loss.
//!   Values are in files of its own (`SegmentEngine`); in memory, or in sled (feature `sled`), if so wanted. What is in memory of each
//!   key is its place in an index, about 115 bytes for a key of 32 bytes, and 16 bytes for the place of its value: some 130 MB for a
//!   million keys.
//! - The crate rk-raft: a group of replicas.
//!
//! # Parts
//! - [`Machine`]: the MVCC state machine, deterministic and synchronous: [`Command`]s in, revisions out, over an [`Engine`].
//! - `log` (feature `log`): the write-ahead log, of use for others too.
//! - [`Replica`]: a machine with its watch hub and lease clock: what every store here, and rk-raft, serves from.
//! - [`Cluster`]: who stores it: members, the leader, and how they change.
//! - [`auto_compact`]: compaction by itself, over any store.
//! - [`history`]: time travel: read, list and compare at past revisions, over any store.
//! - `etcd` (feature `etcd`): the etcd v3 API over any store.
//! - `TlsRules` (feature `tls`): which versions, cipher suites and certificates a server takes.
//! - `connection` (feature `connection`): what the HTTP servers over a store share.
//! - `testing` (feature `testing`): the conformance suites for [`Store`] and [`Engine`], for your implementations too.

mod backup;
mod clock;
mod cluster;
mod codec;
mod command;
mod compactor;
#[cfg(feature = "connection")]
pub mod connection;
mod counts;
#[cfg(feature = "log")]
mod disk;
#[cfg(feature = "log")]
mod durable;
mod engine;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
mod hash;
pub mod history;
mod hub;
mod lease;
#[cfg(feature = "log")]
pub mod log;
mod memory;
mod mvcc;
#[doc(hidden)]
pub mod planted;
mod quota;
mod reading;
mod reload;
mod replica;
#[cfg(feature = "log")]
mod serial;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
mod tls;
mod types;
mod watch;

pub use backup::{SnapshotStream, restore_snapshot};
pub use clock::{Clock, Stretch};
pub use cluster::{Cluster, ClusterError, Member, MemberId, MemberStatus};
pub use codec::DecodeError;
pub use command::{Command, Outcome};
pub use compactor::{AutoCompaction, auto_compact};
pub use counts::{Counts, DurationCounts, Durations, SLOW_APPLY, Traffic};
#[cfg(feature = "log")]
pub use disk::{Disk, DiskFile, OsDisk, TimedDisk};
#[cfg(feature = "log")]
pub use durable::{DurableOptions, DurableStore};
#[cfg(feature = "sled")]
pub use engine::SledEngine;
pub use engine::{Engine, EngineError, MemoryEngine, Record};
#[cfg(feature = "log")]
pub use engine::{SegmentEngine, SegmentOptions};
pub use error::Error;
pub use lease::{LeaseClock, end_leases};
pub use memory::{MemoryOptions, MemoryStore};
pub use mvcc::{
    Applied, Commit, Limits, MAX_REQUEST_BYTES, MAX_TXN_OPS, Machine, Position, SnapshotChunk, SnapshotHead,
    is_read_only, remove_records, snapshot_records,
};
pub use quota::Quota;
pub use reload::Reloaded;
pub use replica::{DEFAULT_WATCH_BUFFER, Replica, SnapshotGuard};
pub use store::Store;
#[cfg(feature = "tls")]
pub use tls::{CertificateNames, TlsRules};
pub use types::*;
pub use watch::{PROGRESS_INTERVAL, ProgressRequest, WatchStream};
