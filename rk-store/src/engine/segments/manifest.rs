//! The file that says which segments are whole, up to which revision: written anew with each persist, and moved in place of the one
//! before.

use std::path::Path;

use bytes::{BufMut, Bytes};

use super::segment::Extent;
use crate::{
    Disk, Error, Revision,
    codec::{DecodeError, Reader, put_bytes},
    log::frame::{self, FrameWriter},
};

const NAME: &str = "manifest";

/// What was persisted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub revision: Revision,
    pub note: Bytes,
    pub segments: Vec<Extent>,
}

impl Manifest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.revision);
        put_bytes(out, &self.note);
        for segment in &self.segments {
            out.put_u64_le(segment.id);
            out.put_u64_le(segment.count as u64);
            out.put_u64_le(segment.data_len);
            out.put_u64_le(segment.index_len);
            out.put_u32_le(u32::try_from(segment.dead.len()).expect("a segment has fewer than 2^32 records"));
            for word in &segment.dead {
                out.put_u64_le(*word);
            }
        }
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (revision, note) = (reader.u64()?, reader.bytes()?);
        let mut segments = Vec::new();
        while !reader.is_empty() {
            let (id, count) = (reader.u64()?, reader.u64()?);
            let (data_len, index_len) = (reader.u64()?, reader.u64()?);
            // An entry takes 24 bytes of the index at least.
            let count = usize::try_from(count).ok().filter(|count| *count as u64 <= index_len / 24);
            let count = count.ok_or(DecodeError("a segment has more records than bytes"))?;
            let words = reader.u32()? as usize;
            if words != 0 && words != count.div_ceil(64) {
                return Err(DecodeError("the bits of removed records are not as many as the records"));
            }
            let dead = (0..words).map(|_| reader.u64()).collect::<Result<_, _>>()?;
            segments.push(Extent { id, count, data_len, index_len, dead });
        }
        Ok(Self { revision, note, segments })
    }

    /// Writes the manifest; after a power cut it is this one or the one before. Its size.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<u64, Error> {
        let path = dir.join(NAME);
        let io = |error: std::io::Error| Error::io(format!("writing {}", path.display()), &error);
        let mut file = FrameWriter::create(disk, &path, self.revision).map_err(io)?;
        let written = file.append(|out| self.encode(out)).map(drop).map_err(|(error, _)| error);
        if let Err(error) = written.and_then(|()| file.finish()) {
            file.discard(disk);
            return Err(io(error));
        }
        file.publish(disk).map_err(io)?;
        Ok(file.len())
    }

    /// The manifest in a folder and its size, `None` if nothing was persisted there.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<(Self, u64)>, Error> {
        if !crate::disk::list(disk, dir)?.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let path = dir.join(NAME);
        let frames = frame::read(disk, &path)?;
        let corrupt = |offset: u64, reason: &str| Error::Corrupt {
            file: path.display().to_string(),
            offset,
            reason: reason.to_owned(),
        };
        let [(offset, payload)] = &frames.payloads[..] else {
            return Err(corrupt(frames.end, frames.torn.unwrap_or("it is not one frame")));
        };
        if let Some(reason) = frames.torn {
            return Err(corrupt(frames.end, reason));
        }
        let manifest = Self::decode(payload.clone()).map_err(|error| corrupt(*offset, error.0))?;
        Ok(Some((manifest, frames.end)))
    }
}
