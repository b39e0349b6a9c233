//! Files as the log and the engine use them, behind a small trait: so that tests can cut the power and fill the disk, and a
//! simulation can put its own time and faults in the place of the machine's.
//!
//! What a file system keeps is only what was synced: a file's bytes by [`DiskFile::sync`], the fact that it was made, renamed or
//! removed by [`Disk::sync_dir`] of its folder.

mod lock;
mod timed;

use std::{
    fmt::Debug,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::timed::TimedDisk;
use crate::Error;

/// A file that is read and written at offsets, by several threads if they like.
// Always behind an `Arc` and never empty in the sense of a collection: `is_empty` would have no user.
#[allow(clippy::len_without_is_empty)]
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes from an offset on; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes at an offset. After an error some of them may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reserves space up to the offset `len`, so that a write there need not change the file's metadata. The file may grow by
    /// zeros. Only a matter of speed.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file, or lets it grow by zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// Returns once everything written would survive a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A file system, and the threads that wait for it.
pub trait Disk: Send + Sync + Debug {
    /// Makes a new, empty file, readable by its owner only; one of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that is there, to read and write it.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names of the files in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a folder and those above it, for their owner only, where they are missing.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes what was created, renamed or removed in a folder survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Keeps others out of a folder for as long as what is returned lives; [`Error::InUse`] if another has it.
    fn lock(&self, dir: &Path) -> Result<Box<dyn Send + Sync>, Error>;

    /// Does work that waits for the disk, away from the caller, who is in an async task. Work given while other work is done
    /// may be done beside it.
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }

    /// A number that no one can foresee: what tells a file's own bytes from a copy of another's.
    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher, RandomState};
        RandomState::new().build_hasher().finish()
    }
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl DiskFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        fs4::FileExt::allocate(self, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Arc::new(options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not text is none of ours.
        std::fs::read_dir(dir)?
            .filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Send + Sync>, Error> {
        Ok(Box::new(lock::DirLock::take(dir)?))
    }
}

/// The end of the names of files that are being written: what has it after a crash is of no use.
const TEMPORARY: &str = "tmp";

/// The name of a file while it is written.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    path.with_extension(TEMPORARY)
}

/// Removes what an interrupted run has left in a folder.
pub(crate) fn remove_temporary(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    for name in list(disk, dir)? {
        let path = dir.join(name);
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            remove(disk, &path)?;
        }
    }
    Ok(())
}

/// Removes a file that is of no more use.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    disk.remove(path).map_err(|error| Error::io(format!("removing {}", path.display()), &error))
}

/// Removes a file of which nothing depends: one that stays is removed by the next open.
pub(crate) fn remove_quietly(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove(path) {
        tracing::debug!(path = %path.display(), %error, "a temporary file stays until the next start");
    }
}

/// The names in a folder.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, Error> {
    disk.list(dir).map_err(|error| Error::io(format!("listing {}", dir.display()), &error))
}

/// The file of a folder with this prefix and number.
pub(crate) fn numbered(dir: &Path, prefix: &str, number: u64) -> PathBuf {
    dir.join(format!("{prefix}{number:016x}"))
}

/// The numbers of the files with this prefix in a folder, in order.
pub(crate) fn numbers(disk: &dyn Disk, dir: &Path, prefix: &str) -> Result<Vec<u64>, Error> {
    let number = |name: String| {
        let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    };
    let mut numbers: Vec<_> = list(disk, dir)?.into_iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a whole file.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, Error> {
    let io = |error: io::Error| Error::io(format!("reading {}", path.display()), &error);
    let file = disk.open(path).map_err(io)?;
    let len = usize::try_from(file.len().map_err(io)?).expect("a file fits into the address space");
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes).map_err(io)?;
    bytes.truncate(read);
    Ok(bytes)
}
