//! Container logs in the CRI's format: `TIME stdout|stderr F|P TEXT`, one line of the container per line, long
//! lines in parts (`P`), with rotation.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Longest part of a line in one record, as containerd has it.
const PART: usize = 16 * 1024;

/// When a log file is set aside, and how many are kept: the kubelet's `containerLogMaxSize` and `MaxFiles`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRotation {
    /// Bytes at which a new file is begun.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_files: usize,
}

impl Default for LogRotation {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5 }
    }
}

/// A log file being written.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: LogRotation,
}

impl LogFile {
    pub(super) fn open(path: &Path, rotation: LogRotation) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, rotation })
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path, self.rotation)?;
        Ok(())
    }

    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + records.len() as u64 > self.rotation.max_size {
            self.rotate()?;
        }
        self.file.write_all(records)?;
        self.size += records.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let stamp = rk_api::now().strftime("%Y%m%d-%H%M%S%.6f").to_string();
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{stamp}"));
        fs::rename(&self.path, PathBuf::from(name))?;
        let mut old = rotated(&self.path)?;
        let excess = old.len().saturating_sub(self.rotation.max_files.saturating_sub(1));
        for path in old.drain(..excess) {
            fs::remove_file(path)?;
        }
        self.reopen()
    }
}

/// The files that rotation set aside for `path`, oldest first.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Cuts one stream of a container into records.
pub(super) struct LineCutter {
    stream: &'static str,
    pending: Vec<u8>,
}

impl LineCutter {
    pub(super) fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Takes what the container wrote, and appends the records it completes to the log.
    pub(super) fn push(&mut self, bytes: &[u8], log: &mut LogFile) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        let mut records = Vec::with_capacity(bytes.len() + 64);
        let mut rest = self.pending.as_slice();
        loop {
            let line = rest.iter().take(PART + 1).position(|byte| *byte == b'\n');
            let (text, tag, skip) = match line {
                Some(end) => (&rest[..end], "F", end + 1),
                None if rest.len() > PART => (&rest[..PART], "P", PART),
                None => break,
            };
            record(&mut records, self.stream, tag, text);
            rest = &rest[skip..];
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        if records.is_empty() { Ok(()) } else { log.write(&records) }
    }

    /// The stream ended: a last line without a newline is written as it is.
    pub(super) fn finish(mut self, log: &mut LogFile) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        record(&mut records, self.stream, "P", &std::mem::take(&mut self.pending));
        log.write(&records)
    }
}

fn record(records: &mut Vec<u8>, stream: &str, tag: &str, text: &[u8]) {
    let time = rk_api::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ");
    records.extend_from_slice(format!("{time} {stream} {tag} ").as_bytes());
    records.extend_from_slice(text);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_records_and_long_ones_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path, LogRotation::default()).unwrap();
        let mut cutter = LineCutter::new("stdout");
        cutter.push(b"hel", &mut log).unwrap();
        cutter.push(b"lo\n\nlast", &mut log).unwrap();
        cutter.push(&vec![b'x'; PART], &mut log).unwrap();
        cutter.finish(&mut log).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let parts: Vec<(&str, &str)> = text
            .lines()
            .map(|line| {
                let mut words = line.splitn(4, ' ').skip(2);
                (words.next().unwrap(), words.next().unwrap())
            })
            .collect();
        assert_eq!(parts[0], ("F", "hello"));
        assert_eq!(parts[1], ("F", ""));
        assert_eq!((parts[2].0, parts[2].1.len()), ("P", PART));
        assert_eq!((parts[3].0, parts[3].1), ("P", "xxxx"));
    }

    #[test]
    fn a_full_file_is_set_aside_and_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path, LogRotation { max_size: 200, max_files: 3 }).unwrap();
        let mut cutter = LineCutter::new("stderr");
        for _ in 0..20 {
            cutter.push(&[b'y'; 100], &mut log).unwrap();
            cutter.push(b"\n", &mut log).unwrap();
        }
        assert_eq!(rotated(&path).unwrap().len(), 2);
        assert!(fs::metadata(&path).unwrap().len() <= 200);
    }
}
