//! A snapshot in a file of etcd's, as any store restores it.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    StoredLease,
    bolt::{BoltReader, Cursor},
};
use crate::{
    Alarm, AlarmKind, Error, EventKind, KeyValue, Lease, MAX_LEASE_TTL, Position, Revision, SnapshotChunk,
    SnapshotHead, SnapshotStream, backup,
    etcd::proto::{
        etcdserverpb::{AlarmMember, AlarmType},
        mvccpb,
    },
    mvcc::record::{encode, tombstone},
};

/// Bytes of a SHA-256.
const HASH: usize = 32;
/// The size of a file of pages is a multiple of this; so what is behind them shows in what is left.
const SECTOR: u64 = 512;
/// Ranks inside a revision that are known of.
const MAX_RANK: u64 = i32::MAX as u64;

/// A file that `etcdctl snapshot save` has written, from etcd or from a server of this crate: a bbolt file in etcd's schema (its
/// `server/storage/schema`) with its SHA-256 behind it.
///
/// It holds history since the last compaction, leases and alarms, which any store takes from [`SnapshotFile::into_stream`]. Members are
/// left out, as `etcdctl snapshot restore` leaves them out, and so are users and roles, for nothing here would ask who they are.
///
/// ```no_run
/// # async fn example() -> Result<(), rk_store::Error> {
/// use rk_store::{MemoryOptions, MemoryStore, etcd::SnapshotFile};
///
/// let file = SnapshotFile::open("saved.db")?;
/// let store = MemoryStore::restore(file.into_stream(), MemoryOptions::default()).await?;
/// # Ok(()) }
/// ```
pub struct SnapshotFile {
    reader: BoltReader<BufReader<File>>,
    head: SnapshotHead,
    keys: Cursor,
    sha256: [u8; HASH],
    users: usize,
}

impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotFile").field("head", &self.head).finish_non_exhaustive()
    }
}

impl SnapshotFile {
    /// Opens a file, and checks that its content is that of which the hash stands at its end. Waits for the disk: all of it is read.
    ///
    /// # Errors
    /// - [`Error::Corrupt`]: it is no such file, has no hash, or is damaged as far as was looked at; the records are looked at
    ///   when they are streamed.
    /// - [`Error::Unsupported`]: it is of a cluster whose authentication is on: restored, everyone might read it.
    /// - [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), true)
    }

    /// Opens a file that need not have its hash behind it, as a copy of etcd's `member/snap/db` has none. Damage then shows only where it makes
    /// no sense.
    ///
    /// # Errors
    /// As [`SnapshotFile::open`].
    pub fn open_unchecked(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), false)
    }

    fn open_with(path: &Path, check: bool) -> Result<Self, Error> {
        let name = path.display().to_string();
        let io = |error| Error::io(&name, &error);
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let has_hash = size % SECTOR == HASH as u64;
        let len = if has_hash { size - HASH as u64 } else { size };
        let corrupt = |offset, reason: &str| Error::Corrupt { file: name.clone(), offset, reason: reason.into() };
        let sha256 = hash(&mut (&mut file).take(len)).map_err(io)?;
        if check && !has_hash {
            return Err(corrupt(size, "it has no hash at its end: it is no snapshot of etcd, or it is cut"));
        }
        if check {
            let mut found = [0; HASH];
            file.read_exact(&mut found).map_err(io)?;
            if found != sha256 {
                return Err(corrupt(len, "the hash of its content is another than the one at its end"));
            }
        }
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut reader = BoltReader::open(BufReader::new(file), name, len)?;
        if let Some(mut auth) = reader.bucket("auth")? {
            while let Some((key, value)) = reader.next(&mut auth)? {
                if key == "authEnabled" && value[..] == [1] {
                    return Err(Error::Unsupported("a snapshot of a cluster whose authentication is on"));
                }
            }
        }
        let mut users = 0;
        for bucket in ["authUsers", "authRoles"] {
            if let Some(mut bucket) = reader.bucket(bucket)? {
                while reader.next(&mut bucket)?.is_some() {
                    users += 1;
                }
            }
        }
        let head = head(&mut reader)?;
        let missing = reader.corrupt(0, "it is no snapshot of etcd: it has no bucket of keys");
        let keys = reader.bucket("key")?.ok_or(missing)?;
        Ok(Self { reader, head, keys, sha256, users })
    }

    /// The revision of the state in it.
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// The SHA-256 of its content.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// How many users and roles it has, which are left out.
    pub fn users_and_roles(&self) -> usize {
        self.users
    }

    /// The bytes for [`restore_snapshot`](crate::restore_snapshot), and for what restores a store by it.
    pub fn into_stream(self) -> SnapshotStream {
        let Self { mut reader, head, mut keys, .. } = self;
        backup::stream(head, move |from, bytes| records(&mut reader, &mut keys, from, bytes))
    }
}

fn hash(file: &mut impl Read) -> std::io::Result<[u8; HASH]> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            len => hash.update(&piece[..len]),
        }
    }
}

/// The change whose key in the bucket of keys this is.
fn change_of(key: &[u8]) -> Option<(Position, EventKind)> {
    let (revision, rest) = key.split_first_chunk::<8>()?;
    let (rank, rest) = rest.strip_prefix(b"_")?.split_first_chunk::<8>()?;
    let kind = match rest {
        [] => EventKind::Put,
        [b't'] => EventKind::Delete,
        _ => return None,
    };
    let (revision, rank) = (u64::from_be_bytes(*revision), u64::from_be_bytes(*rank));
    let rank = u32::try_from(rank).ok().filter(|_| rank <= MAX_RANK)?;
    Some((Position { revision, rank }, kind))
}

fn head<R: Read + Seek>(reader: &mut BoltReader<R>) -> Result<SnapshotHead, Error> {
    let no_change = |reader: &BoltReader<R>| reader.corrupt(0, "a key of a change is none");
    let mut compacted = 0;
    if let Some(mut meta) = reader.bucket("meta")? {
        while let Some((key, value)) = reader.next(&mut meta)? {
            // What was to be compacted when it was saved is compacted by who restores it.
            if key == "finishedCompactRev" || key == "scheduledCompactRev" {
                let (at, _) = change_of(&value).ok_or_else(|| no_change(reader))?;
                compacted = at.revision.max(compacted);
            }
        }
    }
    let last = match reader.last_key("key")? {
        Some(key) => change_of(&key).ok_or_else(|| no_change(reader))?.0.revision,
        None => 0,
    };
    // All that was changed at the last revisions may be compacted away.
    let revision = last.max(compacted).max(1);
    if revision >= i64::MAX as u64 {
        return Err(reader.corrupt(0, format!("the revision {revision} is none")));
    }
    let mut leases = Vec::new();
    if let Some(mut bucket) = reader.bucket("lease")? {
        while let Some((key, value)) = reader.next(&mut bucket)? {
            let lease = StoredLease::decode(value)
                .ok()
                .filter(|lease| lease.id.to_be_bytes() == key[..] && lease.id != 0 && lease.ttl <= MAX_LEASE_TTL)
                .ok_or_else(|| reader.corrupt(bucket.offset(), "a lease can't be read"))?;
            leases.push((lease.id, Lease::granted(lease.id, lease.ttl).granted_ttl));
        }
    }
    let mut alarms = Vec::new();
    if let Some(mut bucket) = reader.bucket("alarm")? {
        while let Some((key, _)) = reader.next(&mut bucket)? {
            let unknown = || reader.corrupt(bucket.offset(), "an alarm can't be read");
            let alarm = AlarmMember::decode(key).map_err(|_| unknown())?;
            let kind = match alarm.alarm() {
                AlarmType::Nospace => AlarmKind::NoSpace,
                AlarmType::Corrupt => AlarmKind::Corrupt,
                AlarmType::None => return Err(unknown()),
            };
            alarms.push(Alarm { member: alarm.member_id, kind });
        }
    }
    Ok(SnapshotHead { revision, compacted, leases, alarms })
}

/// The next about `bytes` bytes of records; where the last of them is, if there are more.
fn records<R: Read + Seek>(
    reader: &mut BoltReader<R>,
    keys: &mut Cursor,
    from: Position,
    bytes: usize,
) -> Result<SnapshotChunk, Error> {
    let (mut pairs, mut size, mut last) = (Vec::new(), 0, from);
    while size < bytes {
        let Some((key, value)) = reader.next(keys)? else { return Ok(SnapshotChunk { pairs, next: None }) };
        let (at, kind) = change_of(&key).ok_or_else(|| reader.corrupt(keys.offset(), "a key of a change is none"))?;
        let kv = mvccpb::KeyValue::decode(value).map_err(|error| {
            reader.corrupt(
                keys.offset(),
                format!("the change {} of revision {} can't be read: {error}", at.rank, at.revision),
            )
        })?;
        last = at;
        // etcdutl marks a revision with nothing, where it is told to raise it (`--bump-revision`).
        if kv.key.is_empty() {
            continue;
        }
        let record = change(at, kind, kv).ok_or_else(|| {
            let reason = format!("the change {} of revision {} makes no sense", at.rank, at.revision);
            reader.corrupt(keys.offset(), reason)
        })?;
        let key = Bytes::copy_from_slice(&at.to_key());
        size += key.len() + record.len();
        pairs.push((key, record));
    }
    Ok(SnapshotChunk { pairs, next: Some(last) })
}

/// The record of a change; `None` for one that no store makes.
fn change(at: Position, kind: EventKind, kv: mvccpb::KeyValue) -> Option<Bytes> {
    let kv = match kind {
        EventKind::Delete => tombstone(kv.key, at.revision),
        EventKind::Put => KeyValue {
            key: kv.key,
            value: kv.value,
            create_revision: u64::try_from(kv.create_revision).ok()?,
            mod_revision: u64::try_from(kv.mod_revision).ok()?,
            version: u64::try_from(kv.version).ok()?,
            lease: kv.lease,
        },
    };
    let fits = kind == EventKind::Delete
        || (kv.mod_revision == at.revision && (1..=at.revision).contains(&kv.create_revision) && kv.version > 0);
    fits.then(|| encode(at, kind, &kv).bytes)
}
