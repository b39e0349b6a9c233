//! Objects in the store, and the watch cache in front of it.
//!
//! One watch of the whole store feeds every [`Collection`]: a map of the current objects and a ring of the recent
//! changes, both of shared, once encoded objects. Lists are snapshots of the map, watches read the ring at their own
//! pace, writes go to the store and come back through the watch. What is too old for the ring is read from the
//! store's history.

mod cache;
mod collection;
mod encode;
mod encryption;
mod forms;
mod growth;
mod index;
mod item;
mod items;
pub(crate) mod key;
mod list;
mod reached;
mod sorted;
mod watch;
mod watches;
mod write;

pub(crate) use cache::Cache;
pub(crate) use collection::Collection;
pub(crate) use encode::{Fields, encode, encode_fields, encode_unique, fields, is_same};
pub use encryption::{Encryption, EncryptionError};
pub(crate) use forms::For;
pub(crate) use list::{Listed, Selection};
pub(crate) use watch::{WatchSpec, start as watch};
pub(crate) use write::{Beside, Claims, Expected, Write, Written};

use crate::{Error, StatusExt, status};

/// A store's failure in the API's terms.
pub(crate) fn store_error(error: rk_store::Error) -> Error {
    use rk_store::Error as Store;
    match error {
        Store::Compacted { .. } => status::expired(format!("The resourceVersion is too old: {error}")),
        Store::FutureRevision { requested, current } => too_large(requested, current),
        Store::NoSpace(message) => status::no_space(&message),
        Store::Unavailable(_) => status::unavailable(error.to_string()),
        // Nothing was begun: clients may just try again, and many do when they are told when.
        Store::NoLeader => status::unavailable(error.to_string()).retry_after(1),
        Store::Timeout => status::failure(504, "Timeout", error.to_string()),
        other => status::internal(other),
    }
    .into()
}

/// 504: a version that this store has not reached, as Kubernetes words it.
pub(crate) fn too_large(asked: u64, current: u64) -> crate::Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    status::failure(504, "Timeout", message)
        .cause("ResourceVersionTooLarge", "", "Too large resource version")
        .retry_after(1)
}
