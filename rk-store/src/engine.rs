//! The contract of an engine: an ordered key space with atomic batches, under the MVCC store.

use bytes::Bytes;

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

/// An ordered key space. It need not be durable by itself: the store's log decides what is durable and is
/// replayed from the last position that [`Engine::flush`] is known to cover.
pub trait Engine: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Calls `visit` with the pairs of `start..end` in key order until it returns `false`.
    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError>;

    /// Applies a batch: a reader sees all of it or none.
    fn apply(&self, batch: &Batch) -> Result<(), EngineError>;

    /// Writes what was applied to the file system as well as the engine can.
    fn flush(&self) -> Result<(), EngineError>;

    /// Bytes on disk, 0 where nothing is.
    fn disk_size(&self) -> u64;
}
