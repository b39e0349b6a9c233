//! A replica's state as the bytes of a raft snapshot: the head behind its length, then the engine's pairs.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use rk_store::{Error, Machine, MemoryEngine, Position, Replica, SnapshotHead};

const CHUNK: usize = 256 << 10;

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u64_le(bytes.len() as u64);
    out.put_slice(bytes);
}

fn take(bytes: &mut Bytes) -> Result<Bytes, Error> {
    let short = || Error::Unavailable("a snapshot ends too early".into());
    let len = bytes.try_get_u64_le().map_err(|_| short())?;
    let len = usize::try_from(len).ok().filter(|len| *len <= bytes.len()).ok_or_else(short)?;
    Ok(bytes.split_to(len))
}

/// The bytes of a replica's state.
pub(crate) fn encode(replica: &Arc<Replica>) -> Result<Bytes, Error> {
    let snapshot = replica.snapshot();
    let mut head = Vec::new();
    snapshot.head().encode(&mut head);
    let mut out = Vec::new();
    put(&mut out, &head);
    let mut from = Some(Position::first(0));
    while let Some(position) = from {
        let chunk = snapshot.records(position, CHUNK)?;
        for (key, record) in &chunk.pairs {
            put(&mut out, key);
            put(&mut out, record);
        }
        from = chunk.next;
    }
    Ok(out.into())
}

/// The state machine that these bytes describe.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Machine, Error> {
    let head = SnapshotHead::decode(take(&mut bytes)?)
        .map_err(|error| Error::Unavailable(format!("a snapshot's head: {error}")))?;
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        // Copied, so that a record that outlives the others does not keep the whole snapshot in memory.
        let (key, record) = (take(&mut bytes)?, take(&mut bytes)?);
        pairs.push(Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&record))));
    }
    Machine::restore(Arc::new(MemoryEngine::new()), &head, pairs)
}
