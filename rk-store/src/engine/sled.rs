//! The engine on [sled](::sled): values on disk, a bounded cache in memory.

use std::path::Path;

use bytes::Bytes;

use super::{Batch, Engine, EngineError, Write};

/// Memory for sled's page cache; its own default is 1 GiB.
const CACHE_BYTES: u64 = 32 << 20;

/// An engine on a sled database, for data larger than memory.
///
/// sled's `flush` does not sync to the device, so nothing acknowledged depends on it: see [`Engine`].
#[derive(Debug)]
pub struct SledEngine {
    db: ::sled::Db,
}

impl SledEngine {
    /// Opens the database in `dir`, made if it is missing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, EngineError> {
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(::sled::Mode::HighThroughput)
            // The log makes writes durable; a timer that writes sled's pages out only costs.
            .flush_every_ms(None);
        Ok(Self { db: config.open().map_err(failed)? })
    }
}

fn failed(error: ::sled::Error) -> EngineError {
    EngineError(error.to_string())
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.db.get(key).map_err(failed)?.map(Bytes::from_owner))
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> bool,
    ) -> Result<(), EngineError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let pairs = match end {
            Some(end) => self.db.range(start..end),
            None => self.db.range(start..),
        };
        for pair in pairs {
            let (key, value) = pair.map_err(failed)?;
            if !visit(&Bytes::from_owner(key), &Bytes::from_owner(value)) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        let mut changes = ::sled::Batch::default();
        for write in batch.writes {
            match write {
                Write::Put(key, value) => changes.insert(&key[..], &value[..]),
                Write::Delete(key) => changes.remove(&key[..]),
            }
        }
        self.db.apply_batch(changes).map_err(failed)
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.db.clear().map_err(failed)
    }

    fn disk_size(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// sled does not say what of its files is in use.
    fn size_in_use(&self) -> u64 {
        self.disk_size()
    }
}
