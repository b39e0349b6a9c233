//! One change as the engine holds it.

use bytes::{BufMut, Bytes};

use crate::{
    Event, EventKind, KeyValue, Record, Revision,
    codec::{DecodeError, Reader, put_bytes},
};

/// A change's place in history: its revision and its rank inside the revision. Its bytes are the engine's key, so
/// the engine's order is the order of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The revision.
    pub revision: Revision,
    /// The rank of the change inside its revision, from 0.
    pub rank: u32,
}

impl Position {
    /// The place of a revision's first change.
    pub fn first(revision: Revision) -> Self {
        Self { revision, rank: 0 }
    }

    /// The engine's key.
    pub(crate) fn to_key(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.revision.to_be_bytes());
        key[8..].copy_from_slice(&self.rank.to_be_bytes());
        key
    }

    pub(crate) fn from_key(key: &[u8]) -> Result<Self, DecodeError> {
        let wrong = DecodeError("an engine key is not a position");
        let (revision, rank) = key.split_first_chunk::<8>().ok_or(wrong.clone())?;
        let rank = <[u8; 4]>::try_from(rank).map_err(|_| wrong)?;
        Ok(Self { revision: u64::from_be_bytes(*revision), rank: u32::from_be_bytes(rank) })
    }
}

const PUT: u8 = 0;
const DELETE: u8 = 1;

/// The record of a put or, for a tombstone, of a delete.
pub(crate) fn encode(at: Position, kind: EventKind, kv: &KeyValue) -> Record {
    let mut out = Vec::with_capacity(1 + 4 + kv.key.len() + 24 + kv.value.len());
    out.put_u8(if kind == EventKind::Put { PUT } else { DELETE });
    put_bytes(&mut out, &kv.key);
    if kind == EventKind::Put {
        out.put_u64_le(kv.create_revision);
        out.put_u64_le(kv.version);
        out.put_i64_le(kv.lease);
    }
    let head = out.len();
    out.put_slice(&kv.value);
    Record { at, bytes: out.into(), head }
}

/// The record with these bytes.
pub(crate) fn from_bytes(at: Position, bytes: Bytes) -> Result<Record, DecodeError> {
    let head = bytes.len() - decode(at, &bytes)?.kv.value.len();
    Ok(Record { at, bytes, head })
}

/// The change a record holds, without the pair before. Key and value share the record's memory. A record's head alone gives all but
/// the value.
pub(crate) fn decode(at: Position, record: &Bytes) -> Result<Event, DecodeError> {
    let mut reader = Reader::new(record.clone());
    let kind = match reader.u8()? {
        PUT => EventKind::Put,
        DELETE => EventKind::Delete,
        _ => return Err(DecodeError("an unknown kind of record")),
    };
    let key = reader.bytes()?;
    let kv = match kind {
        EventKind::Delete => {
            reader.end()?;
            tombstone(key, at.revision)
        }
        EventKind::Put => KeyValue {
            key,
            create_revision: reader.u64()?,
            mod_revision: at.revision,
            version: reader.u64()?,
            lease: reader.i64()?,
            value: reader.rest(),
        },
    };
    // etcd's numbers are signed.
    let counts = [at.revision, kv.create_revision, kv.version];
    if counts.into_iter().any(|count| count > i64::MAX as u64) || kv.create_revision > at.revision {
        return Err(DecodeError("a record's revisions make no sense"));
    }
    Ok(Event { kind, kv, prev_kv: None })
}

/// The pair of a delete event.
pub(crate) fn tombstone(key: Bytes, revision: Revision) -> KeyValue {
    KeyValue { key, value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0, lease: 0 }
}
