//! The engine in memory: a B-tree behind a lock.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Engine, EngineError, Write};

/// An engine that keeps everything in memory and hands out shared slices, never copies.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    pairs: RwLock<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    map: BTreeMap<Bytes, Bytes>,
    bytes: u64,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.pairs.read().map.get(key).cloned())
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
        for (key, value) in self.pairs.read().map.range::<[u8], _>((Bound::Included(start), end)) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        let mut pairs = self.pairs.write();
        let Pairs { map, bytes } = &mut *pairs;
        for write in batch.writes {
            let (key_len, replaced) = match write {
                Write::Put(key, value) => {
                    *bytes += (key.len() + value.len()) as u64;
                    (key.len(), map.insert(key, value))
                }
                Write::Delete(key) => (key.len(), map.remove(&key)),
            };
            *bytes -= replaced.map_or(0, |value| (key_len + value.len()) as u64);
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        *self.pairs.write() = Pairs::default();
        Ok(())
    }

    fn disk_size(&self) -> u64 {
        0
    }

    fn size_in_use(&self) -> u64 {
        self.pairs.read().bytes
    }
}
