//! The engine in memory: a B-tree behind a lock.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Engine, EngineError, Record};
use crate::Position;

/// An engine that keeps everything in memory and hands out shared slices, never copies.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    records: RwLock<BTreeMap<Position, Bytes>>,
    size: AtomicU64,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Engine for MemoryEngine {
    fn get(&self, at: Position) -> Result<Option<Bytes>, EngineError> {
        Ok(self.records.read().get(&at).cloned())
    }

    fn scan(
        &self,
        from: Position,
        end: Position,
        visit: &mut dyn FnMut(Position, &Bytes) -> bool,
    ) -> Result<(), EngineError> {
        if from < end {
            let records = self.records.read();
            // Stops where `visit` says so.
            let _more = records.range(from..end).all(|(at, record)| visit(*at, record));
        }
        Ok(())
    }

    fn append(&self, records: Vec<Record>) -> Result<(), EngineError> {
        let size: usize = records.iter().map(|record| record.bytes.len()).sum();
        self.records.write().extend(records.into_iter().map(|record| (record.at, record.bytes)));
        self.size.fetch_add(size as u64, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, positions: &[Position]) -> Result<(), EngineError> {
        let mut records = self.records.write();
        let size: usize = positions.iter().filter_map(|at| Some(records.remove(at)?.len())).sum();
        self.size.fetch_sub(size as u64, Ordering::Relaxed);
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.records.write().clear();
        self.size.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn disk_size(&self) -> u64 {
        0
    }

    fn size_in_use(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
}
