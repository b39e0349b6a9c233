//! A member's disk: what it keeps after a power cut is decided by what was synced, and all work on it takes time.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{
    Disk, DiskFile, Error,
    testing::disk::{FaultDisk, Survives},
};

/// Clones are handles of one disk.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk {
    disk: FaultDisk,
    random: Arc<Mutex<StdRng>>,
    /// Most milliseconds that a piece of work takes.
    slowest: Arc<AtomicU64>,
    full: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

/// How slow a disk is when nothing is wrong with it.
const USUAL: u64 = 2;

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(FaultDisk::new(seed), seed)
    }

    fn of(disk: FaultDisk, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Self { disk, random, slowest: Arc::new(AtomicU64::new(USUAL)), full: Arc::default(), broken: Arc::default() }
    }

    /// What is there after a power cut. This disk is gone.
    pub(crate) fn cut_power(&self) -> Self {
        let (survives, seed) = {
            let mut random = self.random.lock();
            let survives = [Survives::Nothing, Survives::Prefix, Survives::Sectors][random.random_range(0..3)];
            (survives, random.random())
        };
        Self::of(self.disk.cut_power(survives), seed)
    }

    /// Makes work take up to so many milliseconds; `None` for the usual time.
    pub(crate) fn set_slowest(&self, milliseconds: Option<u64>) {
        self.slowest.store(milliseconds.unwrap_or(USUAL), Ordering::Relaxed);
    }

    /// Makes the disk full, or no longer so.
    pub(crate) fn set_full(&self, full: bool) {
        self.disk.set_free(full.then_some(0));
        self.full.store(full, Ordering::Relaxed);
    }

    /// Makes each sync fail from now on.
    pub(crate) fn fail_syncs(&self) {
        self.disk.fail_syncs(true);
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether work on it may fail.
    pub(crate) fn is_impaired(&self) -> bool {
        self.full.load(Ordering::Relaxed) || self.broken.load(Ordering::Relaxed)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path)
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
        let slowest = self.slowest.load(Ordering::Relaxed);
        let time = Duration::from_millis(self.random.lock().random_range(0..=slowest));
        let disk = self.disk.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            disk.run(work);
        });
    }

    fn random(&self) -> u64 {
        self.disk.random()
    }
}
