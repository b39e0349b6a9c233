//! A snapshot as a stream of bytes, and back.
//!
//! ```text
//! "rksnap1\n"  frame*        frame: length u32, CRC-32C u32, payload
//! payload: HEAD head | RECORDS (key, record)* | END count of records u64, CRC-32C of all payloads before u32
//! ```
//! Integers are little-endian. A stream that was cut, damaged or put together wrongly is refused with the offset of
//! the frame.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};

use crate::{
    Engine, Error, Machine, Position, SnapshotChunk, SnapshotHead,
    codec::{DecodeError, Reader, put_bytes},
    mvcc::Restoring,
};

/// The bytes of a snapshot, in pieces.
pub type SnapshotStream = BoxStream<'static, Result<Bytes, Error>>;

const MAGIC: &[u8; 8] = b"rksnap1\n";
const HEAD: u8 = 0;
const RECORDS: u8 = 1;
const END: u8 = 2;
/// Bytes of records in a frame, about.
const FRAME_BYTES: usize = 256 << 10;
/// No frame is longer: more than the largest record that any server's limits allow, and a frame's worth of small ones.
const MAX_FRAME_BYTES: usize = 64 << 20;
/// Length and checksum.
const FRAME_HEAD: usize = 8;

/// The bytes of a snapshot. `records` gives about so many bytes of its records from a position on, and where to go on.
pub(crate) fn stream(
    head: SnapshotHead,
    records: impl FnMut(Position, usize) -> Result<SnapshotChunk, Error> + Send + 'static,
) -> SnapshotStream {
    let writing = Writing { head, records, next: Next::Head, count: 0, checksum: 0 };
    futures::stream::try_unfold(writing, |mut writing| async {
        tokio::task::yield_now().await;
        Ok(writing.frame()?.map(|frame| (frame, writing)))
    })
    .boxed()
}

enum Next {
    Head,
    Records(Position),
    End,
    Nothing,
}

struct Writing<R> {
    head: SnapshotHead,
    records: R,
    next: Next,
    count: u64,
    checksum: u32,
}

impl<R: FnMut(Position, usize) -> Result<SnapshotChunk, Error>> Writing<R> {
    fn frame(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = Vec::new();
        if matches!(self.next, Next::Head) {
            out.put_slice(MAGIC);
        }
        let begin = out.len();
        out.put_bytes(0, FRAME_HEAD);
        self.next = match self.next {
            Next::Head => {
                out.put_u8(HEAD);
                self.head.encode(&mut out);
                Next::Records(Position::first(0))
            }
            Next::Records(position) => {
                out.put_u8(RECORDS);
                let chunk = (self.records)(position, FRAME_BYTES)?;
                for (key, record) in &chunk.pairs {
                    put_bytes(&mut out, key);
                    put_bytes(&mut out, record);
                }
                self.count += chunk.pairs.len() as u64;
                chunk.next.map_or(Next::End, Next::Records)
            }
            Next::End => {
                out.put_u8(END);
                out.put_u64_le(self.count);
                out.put_u32_le(self.checksum);
                Next::Nothing
            }
            Next::Nothing => return Ok(None),
        };
        let (head, payload) = out[begin..].split_at_mut(FRAME_HEAD);
        let len = u32::try_from(payload.len()).ok().filter(|len| *len as usize <= MAX_FRAME_BYTES);
        let len = len.ok_or_else(|| Error::Invalid("a record is too large for a snapshot".into()))?;
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        self.checksum = crc32c::crc32c_append(self.checksum, payload);
        Ok(Some(out.into()))
    }
}

/// The state machine of a snapshot, over an engine that is emptied and filled.
///
/// # Errors
/// [`Error::Corrupt`] if the bytes are not those of one whole snapshot, the stream's own errors and the engine's.
pub async fn restore_snapshot(
    engine: Arc<dyn Engine>,
    stream: impl Stream<Item = Result<Bytes, Error>> + Unpin,
) -> Result<Machine, Error> {
    let mut machine = RestoringMachine { engine, restoring: None };
    read_snapshot(stream, &mut machine).await?;
    let restoring = machine.restoring.ok_or_else(|| Error::Invalid("a snapshot had no head".into()))?;
    restoring.finish()
}

struct RestoringMachine {
    engine: Arc<dyn Engine>,
    restoring: Option<Restoring>,
}

impl SnapshotSink for RestoringMachine {
    fn head(&mut self, head: SnapshotHead) -> Result<(), Error> {
        self.restoring = Some(Restoring::begin(self.engine.clone(), head)?);
        Ok(())
    }

    fn record(&mut self, key: Bytes, record: Bytes) -> Result<(), Error> {
        match &mut self.restoring {
            // Copied, so that what stays of a frame does not keep all of it in memory.
            Some(restoring) => restoring.push(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&record)),
            None => Ok(()),
        }
    }
}

/// What takes the parts of a snapshot: first the head, then records in order.
pub(crate) trait SnapshotSink {
    fn head(&mut self, head: SnapshotHead) -> Result<(), Error>;
    /// An engine's key and record.
    fn record(&mut self, key: Bytes, record: Bytes) -> Result<(), Error>;
}

/// Reads a whole snapshot.
///
/// # Errors
/// [`Error::Corrupt`] if the bytes are not those of one whole snapshot, the stream's own errors and the sink's.
pub(crate) async fn read_snapshot(
    mut stream: impl Stream<Item = Result<Bytes, Error>> + Unpin,
    sink: &mut impl SnapshotSink,
) -> Result<(), Error> {
    let mut reading = Reading { sink, buffer: BytesMut::new(), offset: 0, stage: Stage::Head, count: 0, checksum: 0 };
    while let Some(bytes) = stream.try_next().await? {
        reading.take(&bytes)?;
        tokio::task::yield_now().await;
    }
    reading.finish()
}

/// What must come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Records,
    Nothing,
}

struct Reading<'a, S> {
    sink: &'a mut S,
    buffer: BytesMut,
    /// Where the buffer begins in the stream.
    offset: u64,
    stage: Stage,
    count: u64,
    checksum: u32,
}

impl<S: SnapshotSink> Reading<'_, S> {
    fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::Corrupt { file: "a snapshot".into(), offset: self.offset, reason: reason.into() }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        if self.offset == 0 {
            match self.buffer.split_first_chunk::<8>() {
                Some((magic, _)) if magic == MAGIC => {
                    self.buffer.advance(MAGIC.len());
                    self.offset = MAGIC.len() as u64;
                }
                Some(_) => return Err(self.corrupt("it does not begin as a snapshot")),
                None => return Ok(()),
            }
        }
        while self.buffer.len() >= FRAME_HEAD {
            let mut head = &self.buffer[..FRAME_HEAD];
            let (len, checksum) = (head.get_u32_le() as usize, head.get_u32_le());
            if len > MAX_FRAME_BYTES {
                return Err(self.corrupt(format!("a frame of {len} bytes")));
            }
            if self.buffer.len() < FRAME_HEAD + len {
                return Ok(());
            }
            let payload = self.buffer.split_to(FRAME_HEAD + len).freeze().slice(FRAME_HEAD..);
            if crc32c::crc32c(&payload) != checksum {
                return Err(self.corrupt("a frame's checksum is wrong"));
            }
            self.frame(payload)?;
            self.offset += (FRAME_HEAD + len) as u64;
        }
        Ok(())
    }

    fn frame(&mut self, payload: Bytes) -> Result<(), Error> {
        let offset = self.offset;
        let malformed =
            |error: DecodeError| Error::Corrupt { file: "a snapshot".into(), offset, reason: error.to_string() };
        let before = self.checksum;
        self.checksum = crc32c::crc32c_append(before, &payload);
        let mut reader = Reader::new(payload);
        let kind = reader.u8().map_err(malformed)?;
        self.stage = match (kind, self.stage) {
            (HEAD, Stage::Head) => {
                self.sink.head(SnapshotHead::decode(reader.rest()).map_err(malformed)?)?;
                Stage::Records
            }
            (RECORDS, Stage::Records) => {
                while !reader.is_empty() {
                    let (key, record) = reader.bytes().and_then(|key| Ok((key, reader.bytes()?))).map_err(malformed)?;
                    self.sink.record(key, record)?;
                    self.count += 1;
                }
                Stage::Records
            }
            (END, Stage::Records) => {
                let (count, checksum) = reader.u64().and_then(|count| Ok((count, reader.u32()?))).map_err(malformed)?;
                reader.end().map_err(malformed)?;
                if (count, checksum) != (self.count, before) {
                    return Err(self.corrupt("frames are missing or out of order"));
                }
                Stage::Nothing
            }
            _ => return Err(self.corrupt("a frame of the wrong kind")),
        };
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        if self.stage == Stage::Nothing && self.buffer.is_empty() {
            return Ok(());
        }
        Err(self.corrupt("its end is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyRange, MemoryEngine, MemoryOptions, MemoryStore, RangeRequest, Store};

    async fn some_bytes() -> (MemoryStore, Vec<u8>) {
        let store = MemoryStore::new();
        for i in 0..30 {
            store.put(format!("k{}", i % 7).into(), format!("value {i}").into()).await.unwrap();
        }
        store.lease_grant(1, 100).await.unwrap();
        store.compact(10).await.unwrap();
        let pieces: Vec<Bytes> = store.snapshot().await.unwrap().try_collect().await.unwrap();
        (store, pieces.concat())
    }

    /// Restores from bytes that come in pieces of a length.
    async fn restore(bytes: &[u8], piece: usize) -> Result<MemoryStore, Error> {
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        MemoryStore::restore(futures::stream::iter(pieces).boxed(), MemoryOptions::default()).await
    }

    #[tokio::test]
    async fn pieces_of_any_size_make_the_same_state() {
        let (store, bytes) = some_bytes().await;
        let all = RangeRequest::new(KeyRange::all());
        for piece in [1, 7, 100, bytes.len()] {
            let restored = restore(&bytes, piece).await.unwrap();
            assert_eq!(restored.range(all.clone()).await.unwrap(), store.range(all.clone()).await.unwrap());
            assert_eq!(restored.hash_kv(0).await.unwrap(), store.hash_kv(0).await.unwrap());
        }
    }

    #[tokio::test]
    async fn damage_and_cuts_are_reported_and_never_skipped() {
        let (_, bytes) = some_bytes().await;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            for damaged in [&flipped[..], &bytes[..at]] {
                let error = restore(damaged, 64).await.map(drop);
                assert!(matches!(error, Err(Error::Corrupt { .. })), "at {at}: {error:?}");
            }
        }
        let more = [&bytes[..], b"x"].concat();
        assert!(matches!(restore(&more, 64).await, Err(Error::Corrupt { .. })), "bytes behind its end");
        let twice = [&bytes[..], &bytes[8..]].concat();
        assert!(matches!(restore(&twice, 64).await, Err(Error::Corrupt { .. })), "two of them");
        let nothing = restore_snapshot(Arc::new(MemoryEngine::new()), futures::stream::empty()).await;
        assert!(matches!(nothing, Err(Error::Corrupt { .. })));
    }
}
