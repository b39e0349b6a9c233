//! Framed, checksummed files: the format of log segments and checkpoints.
//!
//! ```text
//! file   = magic 8 | number u64 | salt u32 | crc u32      then frames, then nothing of use
//! frame  = "rkfr" | length u32 | crc u32 | payload        crc over salt, length and payload
//! ```
//! All integers are little-endian, checksums are CRC-32C. The salt is new with each file, so bytes that merely look like a frame,
//! such as a copy of a log inside a value, never check.
//!
//! One frame is what was written and synced at once. So after a crash only the last frame can be torn: a bad
//! frame with a whole one behind it was damaged later, and is reported as corrupt.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes};

use crate::{
    Error,
    disk::{Disk, DiskFile, read_all, remove_quietly, temporary},
    planted::{Bug, is_planted},
};

const MAGIC: [u8; 8] = *b"rkstore1";
const FRAME: [u8; 4] = *b"rkfr";
/// Bytes of a file's head.
pub(crate) const HEAD: usize = 24;
/// Bytes of a frame's head.
pub(crate) const FRAME_HEAD: usize = 12;
/// Bytes that are allocated ahead of the end: a sync of a write into allocated space need not write the file's new size.
const ALLOCATE: u64 = 1 << 20;
/// The largest buffer that is kept for the next frame.
const KEEP_BUFFER: usize = 1 << 20;

/// A framed file being written.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    salt: u32,
    len: u64,
    /// Up to where the file has its space.
    allocated: u64,
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
        Self::begin(disk, path, number, disk.create(&temporary(path))?, 0)
    }

    /// As [`FrameWriter::create`], in the space of a file that is of no more use. Writing where something was written before
    /// changes no metadata, so it syncs faster than anything else.
    pub(crate) fn reuse(disk: &dyn Disk, spare: &Path, path: &Path, number: u64) -> io::Result<Self> {
        disk.rename(spare, &temporary(path))?;
        // The names it had before must not be there, after a power cut, with what is written now.
        disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        let file = disk.open(&temporary(path))?;
        let allocated = file.len()?;
        Self::begin(disk, path, number, file, allocated)
    }

    fn begin(disk: &dyn Disk, path: &Path, number: u64, file: Arc<dyn DiskFile>, allocated: u64) -> io::Result<Self> {
        let salt = disk.random() as u32;
        let mut head = Vec::with_capacity(HEAD);
        head.put_slice(&MAGIC);
        head.put_u64_le(number);
        head.put_u32_le(salt);
        head.put_u32_le(crc32c::crc32c(&head));
        if let Err(error) = file.write_at(0, &head) {
            remove_quietly(disk, &temporary(path));
            return Err(error);
        }
        Ok(Self { file, path: path.to_owned(), salt, len: HEAD as u64, allocated, buffer: Vec::new() })
    }

    /// The same writer, which takes no space ahead: for a file that is seldom synced.
    pub(crate) fn growing(mut self) -> Self {
        self.allocated = u64::MAX;
        self
    }

    /// Goes on behind the whole frames of a file, cutting off what follows.
    pub(crate) fn resume(disk: &dyn Disk, path: &Path, frames: &Frames) -> io::Result<Self> {
        let file = disk.open(path)?;
        file.set_len(frames.end)?;
        file.sync()?;
        Ok(Self {
            file,
            path: path.to_owned(),
            salt: frames.salt,
            len: frames.end,
            allocated: frames.end,
            buffer: Vec::new(),
        })
    }

    /// Syncs the file and moves it to its name.
    pub(crate) fn publish(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let temporary = temporary(&self.path);
        let published = self.file.sync().and_then(|()| disk.rename(&temporary, &self.path));
        if published.is_err() {
            remove_quietly(disk, &temporary);
        }
        published?;
        disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    /// Gives up a file that was not published.
    pub(crate) fn discard(self, disk: &dyn Disk) {
        remove_quietly(disk, &temporary(&self.path));
    }

    /// Appends a frame whose payload `fill` writes; where the payload begins. If that fails, the file is as before, also after a
    /// power cut, or the second value says why even that can't be had.
    pub(crate) fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64, (io::Error, Option<io::Error>)> {
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
        let end = self.len + buffer.len() as u64;
        if end > self.allocated {
            let wanted = end.next_multiple_of(ALLOCATE);
            // Where it is refused, the write itself tells whether there is space.
            self.allocated = if self.file.allocate(wanted).is_ok() { wanted } else { end };
        }
        if let Err(error) = self.file.write_at(self.len, buffer) {
            self.allocated = if self.allocated == u64::MAX { u64::MAX } else { self.len };
            return Err((error, self.file.set_len(self.len).and_then(|()| self.file.sync()).err()));
        }
        let payload = self.len + FRAME_HEAD as u64;
        self.len = end;
        if buffer.capacity() > KEEP_BUFFER {
            *buffer = Vec::new();
        }
        Ok(payload)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        if is_planted(Bug::SkipSync) {
            return Ok(());
        }
        self.file.sync()
    }

    /// Cuts off what was allocated ahead: nothing more is written to this file.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.allocated = self.len;
        self.file.set_len(self.len)?;
        self.file.sync()
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
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
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Frames, Error> {
    parse(path, read_all(disk, path)?.into())
}

/// The frames in the bytes of a file.
pub(crate) fn parse(path: &Path, bytes: Bytes) -> Result<Frames, Error> {
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
