//! The engine on [sled](::sled): values on disk, a bounded cache in memory.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use super::{Engine, EngineError, Record};
use crate::Position;

/// Memory for sled's page cache; its own default is 1 GiB.
const CACHE_BYTES: u64 = 32 << 20;

/// An engine on a sled database, for data larger than memory.
///
/// sled's `flush` does not sync to the device, so nothing acknowledged depends on it: see [`Engine`].
#[derive(Debug)]
pub struct SledEngine {
    db: ::sled::Db,
    size: AtomicU64,
}

impl SledEngine {
    /// Opens the database in `dir`, made if it is missing, and empties it.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, EngineError> {
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(::sled::Mode::HighThroughput)
            // The log makes writes durable; a timer that writes sled's pages out only costs.
            .flush_every_ms(None);
        let db = config.open().map_err(failed)?;
        db.clear().map_err(failed)?;
        Ok(Self { db, size: AtomicU64::new(0) })
    }
}

fn failed(error: ::sled::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

impl Engine for SledEngine {
    fn get(&self, at: Position) -> Result<Option<Bytes>, EngineError> {
        Ok(self.db.get(at.to_key()).map_err(failed)?.map(Bytes::from_owner))
    }

    fn scan(
        &self,
        from: Position,
        end: Position,
        visit: &mut dyn FnMut(Position, &Bytes) -> bool,
    ) -> Result<(), EngineError> {
        if from >= end {
            return Ok(());
        }
        for pair in self.db.range(from.to_key()..end.to_key()) {
            let (key, record) = pair.map_err(failed)?;
            let at = Position::from_key(&key).map_err(|error| EngineError::Failed(error.to_string()))?;
            if !visit(at, &Bytes::from_owner(record)) {
                break;
            }
        }
        Ok(())
    }

    fn append(&self, records: Vec<Record>) -> Result<(), EngineError> {
        let mut batch = ::sled::Batch::default();
        for record in &records {
            batch.insert(&record.at.to_key(), &record.bytes[..]);
        }
        self.db.apply_batch(batch).map_err(failed)?;
        let size: usize = records.iter().map(|record| record.bytes.len()).sum();
        self.size.fetch_add(size as u64, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, positions: &[Position]) -> Result<(), EngineError> {
        for at in positions {
            if let Some(record) = self.db.remove(at.to_key()).map_err(failed)? {
                self.size.fetch_sub(record.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.size.store(0, Ordering::Relaxed);
        self.db.clear().map_err(failed)
    }

    fn disk_size(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    fn size_in_use(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
}
