//! A file system whose syncs are timed.

use std::{io, path::Path, sync::Arc, time::Instant};

use super::{Disk, DiskFile};
use crate::{Durations, Error};

/// A [`Disk`] that counts how long each sync of a file takes.
#[derive(Debug)]
pub struct TimedDisk {
    disk: Arc<dyn Disk>,
    syncs: Arc<Durations>,
}

impl TimedDisk {
    /// Counts the syncs of a disk here.
    pub fn new(disk: Arc<dyn Disk>, syncs: Arc<Durations>) -> Self {
        Self { disk, syncs }
    }

    fn timed(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TimedFile { file, syncs: self.syncs.clone() })
    }
}

#[derive(Debug)]
struct TimedFile {
    file: Arc<dyn DiskFile>,
    syncs: Arc<Durations>,
}

impl DiskFile for TimedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        let begin = Instant::now();
        let synced = self.file.sync();
        self.syncs.note(begin.elapsed());
        synced
    }
}

impl Disk for TimedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path).map(|file| self.timed(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.timed(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.make_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Send + Sync>, Error> {
        self.disk.lock(dir)
    }

    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        self.disk.run(work);
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }
}
