//! The contract of an engine: an ordered key space with atomic batches, under the MVCC store.
//!
//! An engine holds one record per change, under the change's position in history (see the `mvcc` module). It is
//! a materialised view: what is durable is decided by the store's log and checkpoints alone, and an engine is
//! emptied and filled again from those when a durable store opens. So an engine need not promise anything about crashes,
//! which is as well: sled 0.34's `flush`, for one, never calls `fsync`.

mod memory;
#[cfg(feature = "sled")]
mod sled;

use bytes::Bytes;

pub use self::memory::MemoryEngine;
#[cfg(feature = "sled")]
pub use self::sled::SledEngine;

/// An engine's failure, in its own words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("engine: {0}")]
pub struct EngineError(pub String);

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key, if it is there.
    Delete(Bytes),
}

/// Changes that an engine applies in order, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The changes.
    pub writes: Vec<Write>,
}

/// An ordered key space.
pub trait Engine: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Calls `visit` with the pairs of `start..end` in key order until it returns `false`. `visit` must not call the engine.
    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> bool,
    ) -> Result<(), EngineError>;

    /// Applies a batch: a reader sees all of it or none.
    fn apply(&self, batch: Batch) -> Result<(), EngineError>;

    /// Removes every key.
    fn clear(&self) -> Result<(), EngineError>;

    /// Bytes on disk, 0 where nothing is.
    fn disk_size(&self) -> u64;

    /// Bytes of the pairs that are there, about.
    fn size_in_use(&self) -> u64;

    /// Gives space that removed pairs have left back to the file system, as far as the engine can.
    fn defragment(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
