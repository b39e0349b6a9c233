//! fjall as an engine, for comparison.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use rk_store::{Engine, EngineError, Position, Record, Revision};

use crate::{failed, key, parts, position, value};

const NOTE: &str = "note";

/// An engine on a fjall database.
pub struct FjallEngine {
    db: Database,
    records: Keyspace,
    notes: Keyspace,
    size: AtomicU64,
}

impl FjallEngine {
    /// Opens the database in a folder, without the records behind those that were persisted.
    ///
    /// # Errors
    /// fjall's own.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        let db = Database::builder(dir).cache_size(32 << 20).open().map_err(failed)?;
        let records = db.keyspace("records", KeyspaceCreateOptions::default).map_err(failed)?;
        let notes = db.keyspace("notes", KeyspaceCreateOptions::default).map_err(failed)?;
        let engine = Self { db, records, notes, size: AtomicU64::new(0) };
        let revision = engine.note()?.map_or(0, |(revision, _)| revision);
        for pair in engine.records.range(key(Position::first(revision + 1))..) {
            engine.records.remove(pair.key().map_err(failed)?).map_err(failed)?;
        }
        Ok(engine)
    }

    fn note(&self) -> Result<Option<(Revision, Bytes)>, EngineError> {
        let Some(kept) = self.notes.get(NOTE).map_err(failed)? else { return Ok(None) };
        let (revision, note) = kept.split_first_chunk::<8>().ok_or_else(|| failed("a note without a revision"))?;
        Ok(Some((u64::from_be_bytes(*revision), Bytes::copy_from_slice(note))))
    }
}

impl Engine for FjallEngine {
    fn get(&self, at: Position) -> Result<Option<Bytes>, EngineError> {
        let found = self.records.get(key(at)).map_err(failed)?;
        found.map(|value| Ok(parts(&Bytes::from_owner(value))?.0)).transpose()
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
        for pair in self.records.range(key(from)..key(end)) {
            let (key, value) = pair.into_inner().map_err(failed)?;
            if !visit(position(&key)?, &parts(&Bytes::from_owner(value))?.0) {
                break;
            }
        }
        Ok(())
    }

    fn append(&self, records: Vec<Record>) -> Result<(), EngineError> {
        let mut batch = self.db.batch();
        for record in &records {
            batch.insert(&self.records, key(record.at), value(record));
        }
        batch.commit().map_err(failed)?;
        let size: usize = records.iter().map(|record| record.bytes.len()).sum();
        self.size.fetch_add(size as u64, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, positions: &[Position]) -> Result<(), EngineError> {
        for at in positions {
            if let Some(size) = self.records.size_of(key(*at)).map_err(failed)? {
                self.size.fetch_sub(u64::from(size).saturating_sub(4), Ordering::Relaxed);
                self.records.remove(key(*at)).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.size.store(0, Ordering::Relaxed);
        self.records.clear().map_err(failed)
    }

    fn disk_size(&self) -> u64 {
        self.db.disk_space().unwrap_or(0)
    }

    fn size_in_use(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn persists(&self) -> bool {
        true
    }

    fn persist(&self, revision: Revision, note: &[u8], thorough: bool) -> Result<(), EngineError> {
        let mut kept = revision.to_be_bytes().to_vec();
        kept.extend_from_slice(note);
        self.notes.insert(NOTE, kept).map_err(failed)?;
        if thorough {
            self.records.major_compact().map_err(failed)?;
        }
        self.db.persist(PersistMode::SyncAll).map_err(failed)
    }

    fn persisted(&self) -> Result<Option<Bytes>, EngineError> {
        Ok(self.note()?.map(|(_, note)| note))
    }

    fn heads(&self, visit: &mut dyn FnMut(Position, Bytes) -> Result<(), EngineError>) -> Result<(), EngineError> {
        for pair in self.records.iter() {
            let (key, value) = pair.into_inner().map_err(failed)?;
            self.size.fetch_add(value.len() as u64 - 4, Ordering::Relaxed);
            visit(position(&key)?, parts(&Bytes::from_owner(value))?.1)?;
        }
        Ok(())
    }
}
