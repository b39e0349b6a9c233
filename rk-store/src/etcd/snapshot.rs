//! The Maintenance service's snapshot: a file that etcd's own tools read, `etcdctl snapshot status` and `restore` among them.
//!
//! The store's snapshot is written into a bbolt file in etcd's schema (its `server/storage/schema`), which is then sent with
//! its SHA-256 behind it. The file is a temporary one without a name: a bbolt file begins with what is known last.
//! [`SnapshotFile`] is the way back.

mod bolt;
mod file;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use bytes::{BufMut, Bytes};
use futures::{Stream, StreamExt};
use http::{Request, Response};
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;

use self::bolt::{Bolt, Bucket};
pub use self::file::SnapshotFile;
use super::{
    VERSION, convert,
    gate::requires_leader,
    grpc::{self, Body, Encoded},
    maintenance::alarm_member,
    proto::{
        etcdserverpb::{SnapshotRequest, SnapshotResponse},
        mvccpb,
    },
    service::{SNAPSHOT, Shared},
    status::status,
};
use crate::{
    Error, EventKind, Position, Revision, SnapshotHead,
    backup::{SnapshotSink, read_snapshot},
    mvcc::record::decode as decode_record,
};

/// Bytes in one message: etcd's.
const PIECE: usize = 32 << 10;

/// Serves a snapshot.
pub(crate) async fn serve<B>(shared: Arc<Shared>, request: Request<B>) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let led = requires_leader(request.headers());
    grpc::one::<_, SnapshotRequest>(request, shared.max_message()).await?;
    let (file, revision) = shared.snapshot_file().await.map_err(status)?;
    Ok(shared.stream(SNAPSHOT, led, pieces(shared.clone(), file, revision)))
}

impl Shared {
    /// The store's content as a bbolt file, and its revision.
    async fn snapshot_file(&self) -> Result<(File, Revision), Error> {
        let applied = self.cluster.member_status().await.map(|status| status.applied).unwrap_or(0);
        let snapshot = self.store.snapshot().await?;
        let dir = self.options.snapshot_dir.clone();
        let runtime = tokio::runtime::Handle::current();
        // Off the async threads: all of the store goes through a file.
        let written = tokio::task::spawn_blocking(move || {
            let mut writing = Writing::begin(&dir, applied).map_err(failed)?;
            runtime.block_on(read_snapshot(snapshot, &mut writing))?;
            writing.finish().map_err(failed)
        });
        written.await.map_err(|error| Error::Unavailable(format!("a snapshot was stopped: {error}")))?
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("writing a snapshot", &error)
}

/// A file that goes when it is closed.
fn nameless(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!("snapshot-{}.tmp", std::process::id()));
    for i in 0..100 {
        let path = path.with_extension(format!("{i}.tmp"));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} and others are in the way", path.display())))
}

/// A snapshot on its way into a file.
struct Writing {
    bolt: Bolt<BufWriter<File>>,
    keys: Bucket,
    head: Option<SnapshotHead>,
    applied: u64,
}

/// etcd's key of a change: its revision, an underscore and its rank, and a `t` for a delete.
fn revision_key(at: Position, kind: EventKind) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.put_u64(at.revision);
    key.put_u8(b'_');
    key.put_u64(at.rank.into());
    if kind == EventKind::Delete {
        key.put_u8(b't');
    }
    key
}

/// A lease as etcd keeps it (its `leasepb.Lease`).
#[derive(Clone, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
}

impl SnapshotSink for Writing {
    fn head(&mut self, head: SnapshotHead) -> Result<(), Error> {
        self.head = Some(head);
        Ok(())
    }

    fn record(&mut self, key: Bytes, record: Bytes) -> Result<(), Error> {
        let at = Position::from_key(&key)?;
        let event = decode_record(at, &record)?;
        let kv = match event.kind {
            EventKind::Put => convert::kv(event.kv),
            EventKind::Delete => mvccpb::KeyValue { key: event.kv.key, ..mvccpb::KeyValue::default() },
        };
        self.bolt.put(&mut self.keys, revision_key(at, event.kind), kv.encode_to_vec()).map_err(failed)
    }
}

impl Writing {
    fn begin(dir: &Path, applied: u64) -> io::Result<Self> {
        let bolt = Bolt::new(BufWriter::with_capacity(1 << 20, nameless(dir)?))?;
        Ok(Self { bolt, keys: Bucket::default(), head: None, applied })
    }

    /// Writes what is not history; the file, at its beginning, and the revision.
    fn finish(self) -> io::Result<(File, Revision)> {
        let Self { mut bolt, keys, head, applied } = self;
        let head = head.ok_or_else(|| io::Error::other("a snapshot had no head"))?;
        bolt.end(b"key", keys)?;
        let mut leases = Bucket::default();
        // In the order of their bytes: ids below zero come last.
        let by_key: BTreeMap<_, _> = head.leases.iter().map(|&(id, ttl)| (id.to_be_bytes(), (id, ttl))).collect();
        for (key, (id, ttl)) in by_key {
            bolt.put(&mut leases, key.to_vec(), StoredLease { id, ttl }.encode_to_vec())?;
        }
        bolt.end(b"lease", leases)?;
        let mut alarms: Vec<_> = head.alarms.iter().map(|alarm| alarm_member(alarm).encode_to_vec()).collect();
        alarms.sort_unstable();
        let mut active = Bucket::default();
        for alarm in alarms {
            bolt.put(&mut active, alarm, Vec::new())?;
        }
        bolt.end(b"alarm", active)?;
        let mut meta = Bucket::default();
        bolt.put(&mut meta, b"consistent_index".to_vec(), applied.to_be_bytes().to_vec())?;
        if head.compacted > 0 {
            let compacted = revision_key(Position::first(head.compacted), EventKind::Put);
            bolt.put(&mut meta, b"finishedCompactRev".to_vec(), compacted.clone())?;
            bolt.put(&mut meta, b"scheduledCompactRev".to_vec(), compacted)?;
        }
        bolt.end(b"meta", meta)?;
        for name in [b"auth" as &[u8], b"authRoles", b"authUsers", b"cluster", b"members", b"members_removed"] {
            bolt.end(name, Bucket::default())?;
        }
        let mut file = bolt.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok((file, head.revision))
    }
}

/// A file being sent.
struct Sending {
    shared: Arc<Shared>,
    file: File,
    revision: Revision,
    /// Bytes of the file still to be sent.
    left: u64,
    hash: Option<Sha256>,
}

/// The messages with a file and its hash.
fn pieces(shared: Arc<Shared>, file: File, revision: Revision) -> impl Stream<Item = Result<Encoded, Status>> {
    let left = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    let sending = Sending { shared, file, revision, left, hash: Some(Sha256::new()) };
    futures::stream::try_unfold(sending, |sending| async {
        // A read of 32 KiB that was just written costs less than handing it to another thread.
        let mut sending = sending;
        Ok(sending.next().map_err(|error| status(failed(error)))?.map(|piece| (piece.into(), sending)))
    })
    .boxed()
}

impl Sending {
    fn next(&mut self) -> io::Result<Option<SnapshotResponse>> {
        let Some(hash) = &mut self.hash else { return Ok(None) };
        let blob = if self.left > 0 {
            let len = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; len];
            self.file.read_exact(&mut piece)?;
            hash.update(&piece);
            self.left -= len as u64;
            Bytes::from(piece)
        } else {
            let hash = self.hash.take().map(Sha256::finalize).unwrap_or_default();
            Bytes::copy_from_slice(&hash)
        };
        Ok(Some(SnapshotResponse {
            header: Some(self.shared.header(self.revision)),
            remaining_bytes: self.left,
            blob,
            version: VERSION.into(),
        }))
    }
}
