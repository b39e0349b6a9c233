//! A number for a copy's content, to compare copies by.

use crate::{Error, HashKv, Position, Revision, SnapshotGuard};

/// Bytes of records read in one go, about.
const CHUNK_BYTES: usize = 256 << 10;

/// The hash of a snapshot up to a revision, 0 being its own. Gives way to other tasks again and again.
///
/// What is hashed are the places in history and the bytes of all changes that a read from the compact revision on can see. So it
/// is the same in every copy that has applied the same commands, whichever engine holds it.
pub(crate) async fn hash_kv(snapshot: SnapshotGuard, revision: Revision) -> Result<HashKv, Error> {
    let (current, compacted) = (snapshot.head().revision, snapshot.head().compacted);
    let revision = match revision {
        0 => current,
        _ if revision < compacted => return Err(Error::Compacted { requested: revision, compacted }),
        _ if revision > current => return Err(Error::FutureRevision { requested: revision, current }),
        _ => revision,
    };
    let (mut hash, mut from) = (0, Some(Position::first(0)));
    while let Some(position) = from.filter(|position| position.revision <= revision) {
        let chunk = snapshot.records(position, CHUNK_BYTES)?;
        for (key, record) in &chunk.pairs {
            if Position::from_key(key)?.revision > revision {
                break;
            }
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), record);
        }
        from = chunk.next;
        tokio::task::yield_now().await;
    }
    Ok(HashKv { hash, revision, compact_revision: compacted })
}
