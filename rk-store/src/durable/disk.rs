//! The files a log is written to, behind a small trait, so that tests can make a disk fail.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// A file that grows at its end.
pub trait LogFile: Send {
    /// Writes bytes at the end. After an error some of them may be there: see [`LogFile::truncate`].
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `len` bytes and goes on from there.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Returns once everything appended would survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
}

/// Where log files are made.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes a new, empty file, readable by its owner only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;

    /// Opens a file to go on behind its first `len` bytes; what follows them is cut off.
    fn resume(&self, path: &Path, len: u64) -> io::Result<Box<dyn LogFile>>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

/// Bytes that are allocated ahead of the end. Syncing a write into allocated space need not write
/// the file's new size: about a third more syncs per second on ext4.
const ALLOCATE: u64 = 1 << 20;

struct OsFile {
    file: File,
    len: u64,
    allocated: u64,
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Box::new(OsFile { file, len: 0, allocated: 0 }))
    }

    fn resume(&self, path: &Path, len: u64) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().write(true).open(path)?;
        let mut file = OsFile { file, len, allocated: len };
        file.truncate(len)?;
        file.sync()?;
        Ok(Box::new(file))
    }
}

impl LogFile for OsFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.len + bytes.len() as u64;
        if end > self.allocated {
            let wanted = end.next_multiple_of(ALLOCATE);
            // Only a matter of speed: where it is refused, the write itself tells whether there is space.
            self.allocated = if fs4::FileExt::allocate(&self.file, wanted).is_ok() { wanted } else { end };
        }
        self.file.write_all(bytes)?;
        self.len = end;
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.seek(SeekFrom::Start(len))?;
        (self.len, self.allocated) = (len, len);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Makes what was created, renamed or removed in a directory survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
