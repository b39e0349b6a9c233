//! The engines under rk-store's durable store beside one another: the same load through the same log, and only what
//! holds the values differs.
//!
//! `cargo bench -p rk-benches-engines` prints the table. Each figure is taken in a process of its own, so that memory and bytes written are
//! that engine's alone.

#![deny(missing_docs)]

mod fjall;
pub mod measure;
mod redb;
pub mod table;

use std::{path::Path, sync::Arc};

use bytes::{BufMut, Bytes};
use rk_store::{
    DurableOptions, DurableStore, Engine, EngineError, Error, MemoryEngine, OsDisk, Position, Record, SegmentEngine,
    SegmentOptions, SledEngine,
};

pub use self::{fjall::FjallEngine, redb::RedbEngine};

/// What holds the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// rk-store's own files, the default.
    Segments,
    /// Everything in memory, written whole at each checkpoint.
    Memory,
    /// sled 0.34, which persists nothing by itself: written whole at each checkpoint.
    Sled,
    /// fjall, which persists by itself.
    Fjall,
    /// redb, which persists by itself.
    Redb,
}

impl Kind {
    /// All, in the order of the table.
    pub const ALL: [Self; 5] = [Self::Segments, Self::Memory, Self::Sled, Self::Fjall, Self::Redb];

    /// The name on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::Memory => "memory",
            Self::Sled => "sled",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }

    fn engine(self, dir: &Path) -> Result<Arc<dyn Engine>, Error> {
        let dir = dir.join("values");
        Ok(match self {
            Self::Segments => Arc::new(SegmentEngine::open(&dir, Arc::new(OsDisk), SegmentOptions::default())?),
            Self::Memory => Arc::new(MemoryEngine::new()),
            Self::Sled => Arc::new(SledEngine::open(&dir)?),
            Self::Fjall => Arc::new(FjallEngine::open(&dir)?),
            Self::Redb => Arc::new(RedbEngine::open(&dir)?),
        })
    }

    /// The durable store over such an engine.
    pub async fn open(self, dir: &Path) -> Result<DurableStore, Error> {
        DurableStore::open_with(dir, DurableOptions::default(), move |dir| self.engine(dir)).await
    }
}

fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Failed(error.to_string())
}

/// A position as the key of an ordered key space.
fn key(at: Position) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&at.revision.to_be_bytes());
    key[8..].copy_from_slice(&at.rank.to_be_bytes());
    key
}

fn position(key: &[u8]) -> Result<Position, EngineError> {
    let (revision, rank) = key.split_first_chunk::<8>().ok_or_else(|| failed("a key is no position"))?;
    let rank = <[u8; 4]>::try_from(rank).map_err(failed)?;
    Ok(Position { revision: u64::from_be_bytes(*revision), rank: u32::from_be_bytes(rank) })
}

/// A record as a value: the length of its head before its bytes.
fn value(record: &Record) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + record.bytes.len());
    value.put_u32_le(record.head as u32);
    value.put_slice(&record.bytes);
    value
}

/// A record's bytes, and its head, of a value.
fn parts(value: &Bytes) -> Result<(Bytes, Bytes), EngineError> {
    let head = value.first_chunk::<4>().ok_or_else(|| failed("a value is no record"))?;
    let record = value.slice(4..);
    let head = u32::from_le_bytes(*head) as usize;
    if head > record.len() {
        return Err(failed("a record is shorter than its head"));
    }
    Ok((record.clone(), record.slice(..head)))
}
