//! The write-ahead log: segments `log-<first>`, named by the number of their first command.
//!
//! Commands are numbered from 1 without gaps. A frame holds the commands of one group commit.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{BufMut, Bytes};

use super::{
    disk::Disk,
    frame::{self, FrameWriter, HEAD},
};
use crate::{
    Command, Error,
    codec::{DecodeError, Reader},
};

const PREFIX: &str = "log-";

/// The log being written.
pub(crate) struct Log {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    segment: FrameWriter,
    next: u64,
    /// Bytes of the segments before this one that a checkpoint has not replaced yet.
    older: u64,
}

/// Why commands were not logged.
pub(crate) enum LogError {
    /// Not now, for want of space mostly; the log is as before.
    Refused(Error),
    /// What is in the file is not known any more: nothing may be written behind it.
    Broken(String),
}

/// The file of a log segment or checkpoint.
pub(crate) fn numbered(dir: &Path, prefix: &str, number: u64) -> PathBuf {
    dir.join(format!("{prefix}{number:016x}"))
}

/// The numbers of the files with this prefix in a directory, in order.
pub(crate) fn numbers(dir: &Path, prefix: &str) -> Result<Vec<u64>, Error> {
    let io = |error: io::Error| Error::io(format!("listing {}", dir.display()), &error);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let Some(digits) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
        if let Ok(number) = u64::from_str_radix(digits, 16)
            && digits.len() == 16
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether an error says that there is no room, now, for what was to be written.
fn is_no_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl Log {
    /// Reads the log in `dir`, calls `replay` with each command from number `from` on, and opens the log to go on.
    pub(crate) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        from: u64,
        mut replay: impl FnMut(Command) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let segments = numbers(dir, PREFIX)?;
        // A segment is of use if the one behind it begins after `from`.
        let keep = segments.partition_point(|&first| first <= from).saturating_sub(1);
        let kept = &segments[keep..];
        match kept.first() {
            None if from > 1 => return Err(missing(dir, from, from)),
            None => return Self::begin(dir, disk, from),
            Some(&first) if first > from => return Err(missing(dir, from, first)),
            Some(_) => {}
        }
        let mut next = kept[0];
        let mut older = 0;
        for (i, &first) in kept.iter().enumerate() {
            let path = numbered(dir, PREFIX, first);
            let frames = frame::read(&path)?;
            let corrupt =
                |offset: u64, reason: String| Err(Error::Corrupt { file: path.display().to_string(), offset, reason });
            if frames.number != first {
                return corrupt(8, format!("its head says {:x}, not what its name says", frames.number));
            }
            if first != next {
                return corrupt(0, format!("it begins with command {first}, but the log before it ends at {next}"));
            }
            for (offset, payload) in &frames.payloads {
                let commands = decode(payload.clone(), next);
                let commands = match commands {
                    Ok(commands) => commands,
                    Err(error) => return corrupt(*offset, error.to_string()),
                };
                for command in commands {
                    if next >= from {
                        replay(command)?;
                    }
                    next += 1;
                }
            }
            if i + 1 < kept.len() {
                if let Some(reason) = frames.torn {
                    return corrupt(frames.end, format!("{reason}, and a later segment follows"));
                }
                older += frames.end;
                continue;
            }
            if let Some(reason) = frames.torn {
                tracing::info!(file = %path.display(), offset = frames.end, reason, "cut off a write that was never acknowledged");
            }
            let io = |error: io::Error| Error::io(format!("opening {}", path.display()), &error);
            let segment = FrameWriter::resume(&*disk, &path, &frames).map_err(io)?;
            let mut log = Self { dir: dir.to_owned(), disk, segment, next, older };
            log.remove_before(from)?;
            log.older = older;
            return Ok(log);
        }
        Err(missing(dir, from, from))
    }

    fn begin(dir: &Path, disk: Arc<dyn Disk>, first: u64) -> Result<Self, Error> {
        let path = numbered(dir, PREFIX, first);
        let io = |error: io::Error| Error::io(format!("making {}", path.display()), &error);
        let mut segment = FrameWriter::create(&*disk, &path, first).map_err(io)?;
        segment.publish().map_err(io)?;
        Ok(Self { dir: dir.to_owned(), disk, segment, next: first, older: 0 })
    }

    /// The number of the next command.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes in segments.
    pub(crate) fn size(&self) -> u64 {
        self.older + self.segment.len()
    }

    /// Bytes in the segment being written.
    pub(crate) fn segment_size(&self) -> u64 {
        self.segment.len()
    }

    /// Writes commands and returns once they would survive a power cut.
    pub(crate) fn append<'a>(&mut self, commands: impl Iterator<Item = &'a Command>) -> Result<(), LogError> {
        let mut count = 0;
        let first = self.next;
        let appended = self.segment.append(|out| {
            out.put_u64_le(first);
            for command in commands {
                let at = out.len();
                out.put_u32_le(0);
                command.encode(out);
                let length = (out.len() - at - 4) as u32;
                out[at..at + 4].copy_from_slice(&length.to_le_bytes());
                count += 1;
            }
        });
        let path = self.segment.path().display().to_string();
        match appended {
            Ok(()) => {}
            Err((error, None)) if is_no_space(&error) => {
                return Err(LogError::Refused(Error::NoSpace(format!("writing {path}: {error}"))));
            }
            Err((error, _)) => return Err(LogError::Broken(format!("writing {path} failed: {error}"))),
        }
        self.segment.sync().map_err(|error| LogError::Broken(format!("syncing {path} failed: {error}")))?;
        self.next += count;
        Ok(())
    }

    /// Goes on in a new segment, if this one holds anything.
    pub(crate) fn rotate(&mut self) -> Result<(), LogError> {
        if self.segment.len() == HEAD as u64 {
            return Ok(());
        }
        let path = numbered(&self.dir, PREFIX, self.next);
        let refused = |error: io::Error| LogError::Refused(Error::io(format!("making {}", path.display()), &error));
        let mut segment = FrameWriter::create(&*self.disk, &path, self.next).map_err(refused)?;
        // The old segment ends where its frames end, before there is a new one behind it.
        if let Err(error) = self.segment.finish() {
            segment.discard();
            return Err(LogError::Broken(format!("closing {} failed: {error}", self.segment.path().display())));
        }
        match segment.publish() {
            Ok(()) => {}
            // The new segment has its name, so nothing may follow in the old one.
            Err(error) if path.exists() => {
                return Err(LogError::Broken(format!("making {} failed: {error}", path.display())));
            }
            Err(error) => return Err(refused(error)),
        }
        self.older += self.segment.len();
        self.segment = segment;
        Ok(())
    }

    /// Gives back what was allocated ahead.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.segment.finish()
    }

    /// Removes the segments that hold nothing from `number` on. The current one always stays.
    pub(crate) fn remove_before(&mut self, number: u64) -> Result<(), Error> {
        let segments = numbers(&self.dir, PREFIX)?;
        let keep = segments.partition_point(|&first| first <= number).saturating_sub(1);
        for &first in &segments[..keep] {
            remove(&numbered(&self.dir, PREFIX, first))?;
        }
        self.older = 0;
        for &first in
            segments[keep..].iter().filter(|&&first| numbered(&self.dir, PREFIX, first) != self.segment.path())
        {
            let path = numbered(&self.dir, PREFIX, first);
            let metadata = std::fs::metadata(&path);
            self.older += metadata.map_err(|error| Error::io(format!("reading {}", path.display()), &error))?.len();
        }
        Ok(())
    }
}

/// Removes a file that is of no more use.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    std::fs::remove_file(path).map_err(|error| Error::io(format!("removing {}", path.display()), &error))
}

fn missing(dir: &Path, from: u64, found: u64) -> Error {
    Error::Corrupt {
        file: dir.display().to_string(),
        offset: 0,
        reason: format!("the log's commands from {from:x} on are missing (what is there begins at {found:x})"),
    }
}

/// The commands of one frame, the first of which must have this number.
fn decode(payload: Bytes, first: u64) -> Result<Vec<Command>, DecodeError> {
    let mut reader = Reader::new(payload);
    if reader.u64()? != first {
        return Err(DecodeError("a frame's number does not follow the one before"));
    }
    let mut commands = Vec::new();
    while !reader.is_empty() {
        commands.push(Command::decode(reader.bytes()?)?);
    }
    Ok(commands)
}
