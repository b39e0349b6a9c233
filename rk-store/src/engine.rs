//! The contract of an engine: history, one record per change, under the change's [`Position`].
//!
//! Positions only grow: a record is added behind all that are there, read for as long as someone may ask for it, and removed once
//! compaction has made it garbage. It never changes. Any ordered key space can be an engine, and so can files that are only
//! ever appended to.
//!
//! What is durable is decided by the store's log. An engine may forget everything with the process, as memory does; the store
//! then fills it again from a checkpoint and the log. Or it keeps what it is told to [persist](Engine::persist), and the
//! store goes on from there. It need not promise anything for what lies between: sled 0.34's `flush`, for one, never calls `fsync`.

mod memory;
#[cfg(feature = "log")]
mod segments;
#[cfg(feature = "sled")]
mod sled;

use bytes::Bytes;

pub use self::memory::MemoryEngine;
#[cfg(feature = "log")]
pub use self::segments::{SegmentEngine, SegmentOptions};
#[cfg(feature = "sled")]
pub use self::sled::SledEngine;
use crate::{Error, Position, Revision};

/// An engine's failure.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// In the engine's own words.
    #[error("engine: {0}")]
    Failed(String),
    /// No room on the disk, now.
    #[error("engine: no space: {0}")]
    NoSpace(String),
    /// What is on disk is not what was written.
    #[error("corrupt data in {file} at offset {offset}: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// Byte offset in the file.
        offset: u64,
        /// What was found.
        reason: String,
    },
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Failed(_) => Self::Unavailable(error.to_string()),
            EngineError::NoSpace(reason) => Self::NoSpace(reason),
            EngineError::Corrupt { file, offset, reason } => Self::Corrupt { file, offset, reason },
        }
    }
}

/// One change of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub at: Position,
    /// Its bytes.
    pub bytes: Bytes,
    /// How many of them, from the first, a start needs to see again: all but the value.
    pub head: usize,
}

/// Where history is kept. Readers and a writer work at the same time.
pub trait Engine: Send + Sync + 'static {
    /// The bytes of a record.
    fn get(&self, at: Position) -> Result<Option<Bytes>, EngineError>;

    /// Calls `visit` with the bytes of each of these records, in this order, until it returns `false` or one of them is not there;
    /// whether neither happened. `visit` must not call the engine.
    fn get_many(
        &self,
        places: &[Position],
        visit: &mut dyn FnMut(Position, &Bytes) -> bool,
    ) -> Result<bool, EngineError> {
        for &at in places {
            match self.get(at)? {
                Some(bytes) if visit(at, &bytes) => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Calls `visit` with the records of `from..end` in order until it returns `false`. `visit` must not call the engine.
    fn scan(
        &self,
        from: Position,
        end: Position,
        visit: &mut dyn FnMut(Position, &Bytes) -> bool,
    ) -> Result<(), EngineError>;

    /// Adds records in rising order, behind all that are there. It does not fail for want of space: see [`Engine::make_room`].
    fn append(&self, records: Vec<Record>) -> Result<(), EngineError>;

    /// Removes records, those of them that are there.
    fn remove(&self, positions: &[Position]) -> Result<(), EngineError>;

    /// Removes every record. What is persisted stays so until the next [`Engine::persist`].
    fn clear(&self) -> Result<(), EngineError>;

    /// Bytes on disk, 0 where nothing is.
    fn disk_size(&self) -> u64;

    /// Bytes of the records that are there, about.
    fn size_in_use(&self) -> u64;

    /// Called before more is logged than the engine has: [`EngineError::NoSpace`] if it could not take it up.
    fn make_room(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Whether the engine keeps what it is told to persist.
    fn persists(&self) -> bool {
        false
    }

    /// Returns once the records up to a revision and the note would survive a power cut, and what is removed is gone for good.
    /// Until then what was persisted before is. Records of later revisions may be added meanwhile, but none removed. `thorough` asks
    /// to give back all the space that is to be had, at the price of more work.
    fn persist(&self, revision: Revision, note: &[u8], thorough: bool) -> Result<(), EngineError> {
        let _ = (revision, note, thorough);
        Ok(())
    }

    /// Gives space that removed records have left back to the file system, as far as the engine can at any time.
    fn defragment(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// The note that was last persisted, `None` if nothing was. Records of later revisions are not there any more.
    fn persisted(&self) -> Result<Option<Bytes>, EngineError> {
        Ok(None)
    }

    /// Calls `visit` with the place and the head of each record that was persisted and not removed, in order.
    fn heads(&self, visit: &mut dyn FnMut(Position, Bytes) -> Result<(), EngineError>) -> Result<(), EngineError> {
        let _ = visit;
        Ok(())
    }
}
