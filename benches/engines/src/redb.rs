//! redb as an engine, for comparison.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use rk_store::{Engine, EngineError, Position, Record, Revision};

use crate::{failed, key, parts, position, value};

const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
const NOTES: TableDefinition<'static, (), &[u8]> = TableDefinition::new("notes");

/// An engine on a redb database. Its writes are made durable by the next persist, as redb has it.
pub struct RedbEngine {
    db: Database,
    file: std::path::PathBuf,
    size: AtomicU64,
}

impl RedbEngine {
    /// Opens the database in a folder, made if it is missing.
    ///
    /// # Errors
    /// redb's own.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        std::fs::create_dir_all(dir).map_err(failed)?;
        let file = dir.join("redb");
        let db = Database::builder().set_cache_size(32 << 20).create(&file).map_err(failed)?;
        let engine = Self { db, file, size: AtomicU64::new(0) };
        engine.write(Durability::Immediate, |txn| {
            txn.open_table(RECORDS).map_err(failed)?;
            txn.open_table(NOTES).map_err(failed)?;
            Ok(())
        })?;
        // A close in good order keeps later ones.
        let revision = engine.note()?.map_or(0, |(revision, _)| revision);
        engine.write(Durability::Immediate, |txn| {
            let mut records = txn.open_table(RECORDS).map_err(failed)?;
            records.retain_in(&key(Position::first(revision + 1))[..].., |_, _| false).map_err(failed)
        })?;
        Ok(engine)
    }

    fn write(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut txn = self.db.begin_write().map_err(failed)?;
        txn.set_durability(durability).map_err(failed)?;
        work(&txn)?;
        txn.commit().map_err(failed)
    }

    fn note(&self) -> Result<Option<(Revision, Bytes)>, EngineError> {
        let notes = self.db.begin_read().map_err(failed)?.open_table(NOTES).map_err(failed)?;
        let Some(kept) = notes.get(()).map_err(failed)? else { return Ok(None) };
        let (revision, note) =
            kept.value().split_first_chunk::<8>().ok_or_else(|| failed("a note without a revision"))?;
        Ok(Some((u64::from_be_bytes(*revision), Bytes::copy_from_slice(note))))
    }
}

impl Engine for RedbEngine {
    fn get(&self, at: Position) -> Result<Option<Bytes>, EngineError> {
        let records = self.db.begin_read().map_err(failed)?.open_table(RECORDS).map_err(failed)?;
        let found = records.get(&key(at)[..]).map_err(failed)?;
        found.map(|value| Ok(parts(&Bytes::copy_from_slice(value.value()))?.0)).transpose()
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
        let records = self.db.begin_read().map_err(failed)?.open_table(RECORDS).map_err(failed)?;
        for pair in records.range(&key(from)[..]..&key(end)[..]).map_err(failed)? {
            let (key, value) = pair.map_err(failed)?;
            if !visit(position(key.value())?, &parts(&Bytes::copy_from_slice(value.value()))?.0) {
                break;
            }
        }
        Ok(())
    }

    fn append(&self, new: Vec<Record>) -> Result<(), EngineError> {
        let size: usize = new.iter().map(|record| record.bytes.len()).sum();
        self.size.fetch_add(size as u64, Ordering::Relaxed);
        self.write(Durability::None, |txn| {
            let mut records = txn.open_table(RECORDS).map_err(failed)?;
            for record in &new {
                records.insert(&key(record.at)[..], &value(record)[..]).map_err(failed)?;
            }
            Ok(())
        })
    }

    fn remove(&self, positions: &[Position]) -> Result<(), EngineError> {
        self.write(Durability::None, |txn| {
            let mut records = txn.open_table(RECORDS).map_err(failed)?;
            for at in positions {
                if let Some(record) = records.remove(&key(*at)[..]).map_err(failed)? {
                    self.size.fetch_sub((record.value().len() as u64).saturating_sub(4), Ordering::Relaxed);
                }
            }
            Ok(())
        })
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.size.store(0, Ordering::Relaxed);
        self.write(Durability::None, |txn| {
            let mut records = txn.open_table(RECORDS).map_err(failed)?;
            records.retain(|_, _| false).map_err(failed)
        })
    }

    fn disk_size(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    fn size_in_use(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn persists(&self) -> bool {
        true
    }

    fn persist(&self, revision: Revision, note: &[u8], _: bool) -> Result<(), EngineError> {
        let mut kept = revision.to_be_bytes().to_vec();
        kept.extend_from_slice(note);
        self.write(Durability::Immediate, |txn| {
            txn.open_table(NOTES).map_err(failed)?.insert((), &kept[..]).map_err(failed)?;
            Ok(())
        })
    }

    fn persisted(&self) -> Result<Option<Bytes>, EngineError> {
        Ok(self.note()?.map(|(_, note)| note))
    }

    fn heads(&self, visit: &mut dyn FnMut(Position, Bytes) -> Result<(), EngineError>) -> Result<(), EngineError> {
        let records = self.db.begin_read().map_err(failed)?.open_table(RECORDS).map_err(failed)?;
        for pair in records.iter().map_err(failed)? {
            let (key, value) = pair.map_err(failed)?;
            let (record, head) = parts(&Bytes::copy_from_slice(value.value()))?;
            self.size.fetch_add(record.len() as u64, Ordering::Relaxed);
            visit(position(key.value())?, head)?;
        }
        Ok(())
    }
}
