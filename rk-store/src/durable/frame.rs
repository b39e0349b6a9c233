//! Framed, checksummed files: the format of log segments and checkpoints.
//!
//! ```text
//! file   = magic 8 | number u64 | salt u32 | crc u32      then frames, then zeros up to the end
//! frame  = "rkfr" | length u32 | crc u32 | payload        crc over salt, length and payload
//! ```
//! All integers are little-endian, checksums are CRC-32C. The salt is new with each file, so bytes that merely look like a frame,
//! such as a copy of a log inside a value, never check.
//!
//! One frame is what was written and synced at once. So after a crash only the last frame can be torn: a bad
//! frame with a whole one behind it was damaged later, and is reported as corrupt.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut, Bytes};

use super::disk::{Disk, LogFile, sync_dir};
use crate::Error;

const MAGIC: [u8; 8] = *b"rkstore1";
const FRAME: [u8; 4] = *b"rkfr";
/// Bytes of a file's head.
pub(crate) const HEAD: usize = 24;
/// Bytes of a frame's head.
const FRAME_HEAD: usize = 12;

/// A framed file being written.
pub(crate) struct FrameWriter {
    file: Box<dyn LogFile>,
    path: PathBuf,
    salt: u32,
    len: u64,
    buffer: Vec<u8>,
}

/// A framed file that was read.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The number in its head.
    pub number: u64,
    /// Offsets and payloads, in order.
    pub payloads: Vec<(u64, Bytes)>,
    /// Where the last whole frame ends.
    pub end: u64,
    /// Why reading stopped at `end`, if not because of the end of what was written.
    pub torn: Option<&'static str>,
    salt: u32,
}

impl FrameWriter {
    /// Makes the file `path.tmp` with its head. [`FrameWriter::publish`] gives it its name.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, number: u64) -> io::Result<Self> {
        let salt = {
            use std::hash::{BuildHasher, Hasher, RandomState};
            RandomState::new().build_hasher().finish() as u32
        };
        let mut head = Vec::with_capacity(HEAD);
        head.put_slice(&MAGIC);
        head.put_u64_le(number);
        head.put_u32_le(salt);
        head.put_u32_le(crc32c::crc32c(&head));
        let temporary = temporary(path);
        let mut file = disk.create(&temporary)?;
        if let Err(error) = file.append(&head) {
            remove_quietly(&temporary);
            return Err(error);
        }
        Ok(Self { file, path: path.to_owned(), salt, len: HEAD as u64, buffer: Vec::new() })
    }

    /// Goes on behind the whole frames of a file, cutting off what follows.
    pub(crate) fn resume(disk: &dyn Disk, path: &Path, frames: &Frames) -> io::Result<Self> {
        let file = disk.resume(path, frames.end)?;
        Ok(Self { file, path: path.to_owned(), salt: frames.salt, len: frames.end, buffer: Vec::new() })
    }

    /// Syncs the file and moves it to its name.
    pub(crate) fn publish(&mut self) -> io::Result<()> {
        let temporary = temporary(&self.path);
        let published = self.file.sync().and_then(|()| std::fs::rename(&temporary, &self.path));
        if published.is_err() {
            remove_quietly(&temporary);
        }
        published?;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    /// Gives up a file that was not published.
    pub(crate) fn discard(self) {
        remove_quietly(&temporary(&self.path));
    }

    /// Appends a frame whose payload `fill` writes. If that fails, the file is as long as before, or the second value says
    /// why even that can't be had.
    pub(crate) fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), (io::Error, Option<io::Error>)> {
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.put_slice(&FRAME);
        buffer.put_u64_le(0);
        fill(buffer);
        let length = u32::try_from(buffer.len() - FRAME_HEAD)
            .map_err(|_| (io::Error::new(io::ErrorKind::InvalidInput, "a frame is longer than 4 GiB"), None))?;
        let crc = checksum(self.salt, &buffer[FRAME_HEAD..]);
        buffer[4..8].copy_from_slice(&length.to_le_bytes());
        buffer[8..12].copy_from_slice(&crc.to_le_bytes());
        if let Err(error) = self.file.append(buffer) {
            return Err((error, self.file.truncate(self.len).err()));
        }
        self.len += buffer.len() as u64;
        if buffer.capacity() > 1 << 20 {
            *buffer = Vec::new();
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Cuts off what was allocated ahead: nothing more is written to this file.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.file.truncate(self.len)?;
        self.file.sync()
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// Removes a temporary file of which nothing depends: one that stays is removed by the next open.
fn remove_quietly(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "a temporary file stays until the next start");
    }
}

fn checksum(salt: u32, payload: &[u8]) -> u32 {
    let mut head = [0; 8];
    head[..4].copy_from_slice(&salt.to_le_bytes());
    head[4..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Error {
    Error::Corrupt { file: path.display().to_string(), offset, reason: reason.into() }
}

/// Reads a framed file. Damage that is not just a torn end is [`Error::Corrupt`].
pub(crate) fn read(path: &Path) -> Result<Frames, Error> {
    let io = |error: io::Error| Error::io(format!("reading {}", path.display()), &error);
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(io)?.read_to_end(&mut bytes).map_err(io)?;
    parse(path, bytes.into())
}

fn parse(path: &Path, bytes: Bytes) -> Result<Frames, Error> {
    if bytes.len() < HEAD {
        return Err(corrupt(path, bytes.len() as u64, "it is shorter than its head"));
    }
    let mut head = bytes.slice(..HEAD);
    if head[..8] != MAGIC {
        return Err(corrupt(path, 0, "it does not begin as a file of this store"));
    }
    if crc32c::crc32c(&head[..HEAD - 4]) != u32::from_le_bytes(head[HEAD - 4..].try_into().unwrap_or_default()) {
        return Err(corrupt(path, 0, "its head does not match its checksum"));
    }
    head.advance(8);
    let (number, salt) = (head.get_u64_le(), head.get_u32_le());
    let mut frames = Frames { number, payloads: Vec::new(), end: HEAD as u64, torn: None, salt };
    let mut at = HEAD;
    loop {
        match frame_at(&bytes, at, salt) {
            Ok(payload) => {
                let next = at + FRAME_HEAD + payload.len();
                frames.payloads.push((at as u64, payload));
                frames.end = next as u64;
                at = next;
            }
            Err(_) if bytes[at..].iter().all(|&byte| byte == 0) => return Ok(frames),
            Err(reason) => {
                if let Some(whole) = (at + 1..bytes.len()).find(|&later| frame_at(&bytes, later, salt).is_ok()) {
                    return Err(corrupt(path, at as u64, format!("{reason}, and a whole frame follows at {whole}")));
                }
                frames.torn = Some(reason);
                return Ok(frames);
            }
        }
    }
}

/// The payload of the frame at an offset, sharing the file's memory.
fn frame_at(bytes: &Bytes, at: usize, salt: u32) -> Result<Bytes, &'static str> {
    let rest = &bytes[at..];
    if !rest.starts_with(&FRAME) {
        return Err("no frame begins here");
    }
    let Some(mut head) = rest.get(4..FRAME_HEAD) else { return Err("the frame's head is cut off") };
    let (length, crc) = (head.get_u32_le() as usize, head.get_u32_le());
    let Some(payload) = rest.get(FRAME_HEAD..FRAME_HEAD + length) else { return Err("the frame is cut off") };
    if checksum(salt, payload) != crc {
        return Err("the frame does not match its checksum");
    }
    Ok(bytes.slice(at + FRAME_HEAD..at + FRAME_HEAD + length))
}
