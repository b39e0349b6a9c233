//! The etcd data model as a trait, with embedded, durable engines behind it.
//!
//! A [`Store`] is a flat, ordered map from byte keys to byte values with one monotonic
//! [`Revision`] for the whole store: transactions, reads at past revisions, watches from a
//! revision, compaction and leases, as the etcd v3 API defines them
//! (<https://etcd.io/docs/v3.6/learning/api/>).

mod codec;
mod command;
#[cfg(feature = "log")]
mod durable;
mod engine;
mod error;
mod hub;
mod lease;
mod memory;
mod mvcc;
mod replica;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod types;
mod watch;

pub use codec::DecodeError;
pub use command::{Command, Outcome};
#[cfg(feature = "log")]
pub use durable::{Disk, DurableOptions, DurableStore, LogFile, OsDisk};
#[cfg(feature = "sled")]
pub use engine::SledEngine;
pub use engine::{Batch, Engine, EngineError, MemoryEngine, Write};
pub use error::Error;
pub use lease::{LeaseClock, end_leases};
pub use memory::MemoryStore;
pub use mvcc::{
    Applied, Commit, MAX_LEASE_TTL, MAX_REQUEST_BYTES, MAX_TXN_OPS, Machine, Position, SnapshotChunk, SnapshotHead,
    is_read_only, remove_records, snapshot_records, validate,
};
pub use replica::{DEFAULT_WATCH_BUFFER, Replica, SnapshotGuard};
pub use store::{Store, WatchStream};
pub use types::*;
pub use watch::PROGRESS_INTERVAL;
