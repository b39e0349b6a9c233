//! The engine in memory: a B-tree behind a lock.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Engine, EngineError, Write};

/// An engine that keeps everything in memory and hands out shared slices, never copies.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    pairs: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.pairs.read().get(key).cloned())
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
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.pairs.read().range::<[u8], _>((Bound::Included(start), end)) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        let mut pairs = self.pairs.write();
        for write in batch.writes {
            match write {
                Write::Put(key, value) => {
                    pairs.insert(key, value);
                }
                Write::Delete(key) => {
                    pairs.remove(&key);
                }
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.pairs.write().clear();
        Ok(())
    }

    fn disk_size(&self) -> u64 {
        0
    }
}
