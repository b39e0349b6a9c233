//! The etcd data model as a trait, with embedded, durable engines behind it.
//!
//! A [`Store`] is a flat, ordered map from byte keys to byte values with one monotonic
//! [`Revision`] for the whole store: transactions, reads at past revisions, watches from a
//! revision, compaction and leases, as the etcd v3 API defines them
//! (<https://etcd.io/docs/v3.6/learning/api/>).

mod engine;
mod error;
mod store;
mod types;

pub use engine::{Batch, Engine, EngineError, Write};
pub use error::Error;
pub use store::{Store, WatchStream};
pub use types::*;
