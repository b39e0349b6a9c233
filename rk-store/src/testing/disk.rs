//! A disk in memory whose power can be cut: it knows what was written and what was synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{Disk, DiskFile, Error};

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

/// What of the unsynced writes is there after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// Nothing.
    Nothing,
    /// Of each file the writes up to some moment, the last one torn at a sector; of names the changes up to some moment.
    Prefix,
    /// Of each file any of the sectors written; of names the changes up to some moment.
    Sectors,
}

/// One thing that was done to a disk.
#[derive(Debug, Clone)]
enum Change {
    Create { name: PathBuf, file: u64 },
    Rename { from: PathBuf, to: PathBuf },
    Remove { name: PathBuf },
    SyncDir { dir: PathBuf },
    Write { file: u64, at: u64, bytes: Arc<[u8]> },
    SetLen { file: u64, len: u64 },
    Sync { file: u64 },
}

#[derive(Debug, Clone, Default)]
struct Content {
    synced: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone, Default)]
struct Tree {
    files: BTreeMap<u64, Content>,
    synced: BTreeMap<PathBuf, u64>,
    now: BTreeMap<PathBuf, u64>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    locks: BTreeMap<PathBuf, Weak<()>>,
    /// Files that someone has open, whatever names they have.
    open: BTreeMap<u64, Vec<Weak<()>>>,
    next_file: u64,
    free: Option<u64>,
    syncs_fail: bool,
    off: bool,
    /// All that was done, if it is recorded.
    recorded: Option<Vec<Change>>,
}

/// A [`Disk`] in memory. Clones share it. Its faults are chosen by a seed.
///
/// ```
/// use std::{path::Path, sync::Arc};
/// use rk_store::{DurableOptions, DurableStore, Store, testing::disk::{FaultDisk, Survives}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rk_store::Error> {
/// let disk = FaultDisk::new(1);
/// let mut options = DurableOptions::default();
/// options.disk = Arc::new(disk.clone());
/// let store = DurableStore::open("data", options.clone()).await?;
/// store.put("key".into(), "value".into()).await?;
///
/// options.disk = Arc::new(disk.cut_power(Survives::Nothing));
/// let store = DurableStore::open("data", options).await?;
/// assert_eq!(store.get("key".into()).await?.unwrap().value, "value");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
    random: Arc<AtomicU64>,
}

#[derive(Debug)]
struct FaultFile {
    disk: FaultDisk,
    file: u64,
    _open: Arc<()>,
}

impl FaultDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self::with(Tree::default(), seed)
    }

    fn with(tree: Tree, seed: u64) -> Self {
        let next_file = tree.files.keys().next_back().map_or(0, |last| last + 1);
        let state = State {
            tree,
            locks: BTreeMap::new(),
            open: BTreeMap::new(),
            next_file,
            free: None,
            syncs_fail: false,
            off: false,
            recorded: None,
        };
        Self { state: Arc::new(Mutex::new(state)), random: Arc::new(AtomicU64::new(seed)) }
    }

    /// Room for this many bytes more, `None` for any number. Space is not given back by what is removed.
    pub fn set_free(&self, bytes: Option<u64>) {
        self.state.lock().free = bytes;
    }

    /// Whether syncs fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.state.lock().syncs_fail = fail;
    }

    /// Turns this disk off: whatever is done to it fails from now on, and work given to it is not done. The disk returned holds
    /// what is there once the power is back.
    pub fn cut_power(&self, survives: Survives) -> Self {
        self.state.lock().off = true;
        self.copy(survives)
    }

    /// What a power cut at this moment would leave.
    pub fn copy(&self, survives: Survives) -> Self {
        let seed = self.next_random();
        let tree = self.state.lock().tree.after_power_cut(survives, &mut Random(seed));
        Self::with(tree, seed)
    }

    /// Notes all that is done from now on, for [`FaultDisk::replay`].
    pub fn record(&self) {
        self.state.lock().recorded = Some(Vec::new());
    }

    /// How many things were done since [`FaultDisk::record`].
    pub fn recorded(&self) -> usize {
        self.state.lock().recorded.as_ref().map_or(0, Vec::len)
    }

    /// Does what was recorded once more, on an empty disk, and calls `visit` before and after each sync with the number of things
    /// done so far. Only of use for a disk that was recorded from its beginning.
    pub fn replay(&self, seed: u64, mut visit: impl FnMut(usize, &FaultDisk)) {
        let recorded = self.state.lock().recorded.clone().unwrap_or_default();
        let disk = Self::new(seed);
        for (done, change) in recorded.into_iter().enumerate() {
            let is_sync = matches!(change, Change::Sync { .. } | Change::SyncDir { .. });
            if is_sync {
                visit(done, &disk);
            }
            disk.state.lock().tree.apply(change);
            if is_sync {
                visit(done + 1, &disk);
            }
        }
    }

    /// The content of a file, changed in place: damage.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.tree.find(path)?;
        let content = state.tree.files.entry(file).or_default();
        change(&mut content.now);
        content.synced = content.now.clone();
        content.unsynced.clear();
        Ok(())
    }

    fn next_random(&self) -> u64 {
        let mut random = Random(self.random.load(Ordering::Relaxed));
        let number = random.next();
        self.random.store(random.0, Ordering::Relaxed);
        number
    }

    fn change(&self, state: &mut State, change: Change) {
        if let Some(recorded) = &mut state.recorded {
            recorded.push(change.clone());
        }
        state.tree.apply(change);
    }

    fn handle(&self, state: &mut State, file: u64) -> Arc<dyn DiskFile> {
        let open = Arc::new(());
        state.open.entry(file).or_default().push(Arc::downgrade(&open));
        Arc::new(FaultFile { disk: self.clone(), file, _open: open })
    }

    fn on<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.off { Err(io::Error::other("the power is off")) } else { work(&mut state) }
    }
}

/// A small generator: the faults of a seed are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Content {
    fn apply(&mut self, change: Change) {
        match &change {
            Change::Write { at, bytes, .. } => write(&mut self.now, *at as usize, bytes),
            Change::SetLen { len, .. } => self.now.resize(*len as usize, 0),
            _ => {}
        }
        self.unsynced.push(change);
    }

    fn after_power_cut(&self, survives: Survives, random: &mut Random) -> Self {
        let mut content = self.synced.clone();
        let count = match survives {
            Survives::Nothing => 0,
            Survives::Prefix => random.below(self.unsynced.len() + 1),
            Survives::Sectors => self.unsynced.len(),
        };
        for (i, change) in self.unsynced[..count].iter().enumerate() {
            match change {
                Change::SetLen { len, .. } => content.resize(*len as usize, 0),
                Change::Write { at, bytes, .. } => {
                    let torn = (survives == Survives::Prefix && i + 1 == count).then(|| random.below(bytes.len() + 1));
                    let (mut from, end) = (*at as usize, *at as usize + bytes.len());
                    while from < end {
                        let to = (from / SECTOR + 1) * SECTOR;
                        let to = to.min(end);
                        let part = &bytes[from - *at as usize..to - *at as usize];
                        let kept = match torn {
                            Some(torn) => to <= *at as usize + torn,
                            None => survives == Survives::Prefix || random.below(2) == 0,
                        };
                        if kept {
                            write(&mut content, from, part);
                        } else if content.len() < to && survives == Survives::Sectors {
                            // The new length is there, what was written is not.
                            content.resize(to, 0);
                        }
                        from = to;
                    }
                }
                _ => {}
            }
        }
        Self { synced: content.clone(), now: content, unsynced: Vec::new() }
    }
}

fn rename(names: &mut BTreeMap<PathBuf, u64>, change: &Change) {
    match change {
        Change::Create { name, file } => {
            names.insert(name.clone(), *file);
        }
        Change::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove { name } => {
            names.remove(name);
        }
        _ => {}
    }
}

impl Tree {
    fn find(&self, path: &Path) -> io::Result<u64> {
        self.now.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn apply(&mut self, change: Change) {
        match &change {
            Change::Create { file, .. } => {
                self.files.insert(*file, Content::default());
                rename(&mut self.now, &change);
                self.unsynced.push(change);
            }
            Change::Rename { .. } | Change::Remove { .. } => {
                rename(&mut self.now, &change);
                self.unsynced.push(change);
            }
            Change::SyncDir { dir } => {
                let (done, left) = std::mem::take(&mut self.unsynced).into_iter().partition(|change| match change {
                    Change::Create { name, .. } | Change::Rename { from: name, .. } | Change::Remove { name } => {
                        name.parent() == Some(dir)
                    }
                    _ => false,
                });
                let done: Vec<_> = done;
                done.iter().for_each(|change| rename(&mut self.synced, change));
                self.unsynced = left;
            }
            Change::Write { file, .. } | Change::SetLen { file, .. } => {
                self.files.entry(*file).or_default().apply(change);
            }
            Change::Sync { file } => {
                let content = self.files.entry(*file).or_default();
                content.synced = content.now.clone();
                content.unsynced.clear();
            }
        }
    }

    /// Forgets files that have no name and that nobody has open.
    fn forget(&mut self, open: impl Fn(u64) -> bool) {
        let renamed =
            self.unsynced.iter().any(|change| matches!(change, Change::Create { .. } | Change::Rename { .. }));
        let named: BTreeSet<_> = self.synced.values().chain(self.now.values()).copied().collect();
        self.files.retain(|file, _| renamed || named.contains(file) || open(*file));
    }

    fn after_power_cut(&self, survives: Survives, random: &mut Random) -> Self {
        let mut names = self.synced.clone();
        let count = if survives == Survives::Nothing { 0 } else { random.below(self.unsynced.len() + 1) };
        self.unsynced[..count].iter().for_each(|change| rename(&mut names, change));
        let files = self.files.iter().filter(|(file, _)| names.values().any(|named| named == *file));
        let files = files.map(|(file, content)| (*file, content.after_power_cut(survives, random))).collect();
        Self { files, synced: names.clone(), now: names, unsynced: Vec::new() }
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.on(|state| {
            let file = state.next_file;
            state.next_file += 1;
            self.change(state, Change::Create { name: path.to_owned(), file });
            Ok(self.handle(state, file))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.on(|state| {
            let file = state.tree.find(path)?;
            Ok(self.handle(state, file))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on(|state| {
            state.tree.find(from)?;
            self.change(state, Change::Rename { from: from.to_owned(), to: to.to_owned() });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.on(|state| {
            state.tree.find(path)?;
            self.change(state, Change::Remove { name: path.to_owned() });
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.on(|state| {
            let names = state.tree.now.keys().filter(|path| path.parent() == Some(dir));
            Ok(names.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
        })
    }

    /// Folders are there for whoever names them.
    fn make_dir(&self, _: &Path) -> io::Result<()> {
        self.on(|_| Ok(()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.on(|state| {
            if state.syncs_fail {
                return Err(io::Error::other("an injected fault"));
            }
            self.change(state, Change::SyncDir { dir: dir.to_owned() });
            state.open.retain(|_, handles| {
                handles.retain(|handle| handle.strong_count() > 0);
                !handles.is_empty()
            });
            let State { tree, open, .. } = state;
            tree.forget(|file| open.contains_key(&file));
            Ok(())
        })
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Send + Sync>, Error> {
        let mut state = self.state.lock();
        if state.locks.get(dir).is_some_and(|held| held.strong_count() > 0) {
            return Err(Error::InUse { dir: dir.display().to_string(), holder: "this process".into() });
        }
        let held = Arc::new(());
        state.locks.insert(dir.to_owned(), Arc::downgrade(&held));
        Ok(Box::new(held))
    }

    /// Does the work in a task of its own, so that in a runtime of one thread the order of things does not depend on chance.
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let state = self.state.clone();
        tokio::spawn(async move {
            if !state.lock().off {
                work();
            }
        });
    }

    fn random(&self) -> u64 {
        self.next_random()
    }
}

impl DiskFile for FaultFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.on(|state| {
            let content = state.tree.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
            let from = content.now.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            let count = buffer.len().min(content.now.len() - from);
            buffer[..count].copy_from_slice(&content.now[from..from + count]);
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.on(|state| {
            let fits = state.free.map_or(bytes.len(), |free| bytes.len().min(free as usize));
            if let Some(free) = &mut state.free {
                *free -= fits as u64;
            }
            let write = Change::Write { file: self.file, at: offset, bytes: bytes[..fits].into() };
            self.disk.change(state, write);
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        self.disk.on(|_| Ok(()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.on(|state| {
            self.disk.change(state, Change::SetLen { file: self.file, len });
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.on(|state| {
            let content = state.tree.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
            Ok(content.now.len() as u64)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.on(|state| {
            if state.syncs_fail {
                return Err(io::Error::other("an injected fault"));
            }
            self.disk.change(state, Change::Sync { file: self.file });
            Ok(())
        })
    }
}
