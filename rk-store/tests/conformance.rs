//! The conformance suites on every store and engine of this crate.

use std::sync::Arc;

use rk_store::{MemoryEngine, MemoryOptions, MemoryStore, Store, testing};

rk_store::store_conformance!(memory, Arc::new(MemoryStore::new()));

#[tokio::test(start_paused = true)]
async fn watchers_behind_a_small_ring_go_on_from_history() {
    let options = MemoryOptions { watch_buffer: 50, ..MemoryOptions::default() };
    testing::store::g14_slow_watchers_hold_nobody_up(Arc::new(MemoryStore::with_options(options))).await;
}

#[test]
fn memory_store_is_as_the_model() {
    testing::model::against_model(300, async || Arc::new(MemoryStore::new()) as Arc<dyn Store>);
}

#[tokio::test]
async fn memory_store_is_restored() {
    let restore = async |snapshot| {
        Arc::new(MemoryStore::restore(snapshot, MemoryOptions::default()).await.unwrap()) as Arc<dyn Store>
    };
    testing::store::g19_snapshots_restore(Arc::new(MemoryStore::new()), restore).await;
}

#[test]
fn memory_engine() {
    testing::engine::conformance(&MemoryEngine::new()).unwrap();
}

#[cfg(feature = "sled")]
#[test]
fn sled_engine() {
    let dir = tempfile::tempdir().unwrap();
    testing::engine::conformance(&rk_store::SledEngine::open(dir.path()).unwrap()).unwrap();
}

#[cfg(feature = "log")]
mod on_disk {
    use std::{io, path::Path};

    use rk_store::{
        Disk, DiskFile, DurableOptions, DurableStore, Error, KeyRange, OsDisk, SegmentEngine, SegmentOptions,
    };
    use tempfile::TempDir;

    use super::*;

    /// The file system, with a directory that goes when the store that writes to it has gone.
    #[derive(Debug)]
    struct TempDisk(#[allow(dead_code)] TempDir);

    impl Disk for TempDisk {
        fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            OsDisk.create(path)
        }
        fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            OsDisk.open(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            OsDisk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            OsDisk.remove(path)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            OsDisk.list(dir)
        }
        fn make_dir(&self, dir: &Path) -> io::Result<()> {
            OsDisk.make_dir(dir)
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            OsDisk.sync_dir(dir)
        }
        fn lock(&self, dir: &Path) -> Result<Box<dyn Send + Sync>, Error> {
            OsDisk.lock(dir)
        }
    }

    fn temporary() -> (std::path::PathBuf, DurableOptions) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let mut options = DurableOptions::default();
        options.disk = Arc::new(TempDisk(dir));
        (path, options)
    }

    async fn durable() -> Arc<dyn Store> {
        let (dir, options) = temporary();
        Arc::new(DurableStore::open(dir, options).await.unwrap())
    }

    /// Segments and checkpoints every few requests.
    async fn restless() -> Arc<dyn Store> {
        let (dir, mut options) = temporary();
        (options.segment_bytes, options.checkpoint_bytes) = (500, 1500);
        Arc::new(DurableStore::open(dir, options).await.unwrap())
    }

    /// As above, with all values in memory.
    async fn in_memory() -> Arc<dyn Store> {
        let (dir, mut options) = temporary();
        (options.segment_bytes, options.checkpoint_bytes) = (500, 1500);
        Arc::new(DurableStore::open_in_memory(dir, options).await.unwrap())
    }

    #[test]
    fn segment_engine() {
        let disk = Arc::new(testing::disk::FaultDisk::new(1));
        let engine = SegmentEngine::open(Path::new("values"), disk, SegmentOptions::default()).unwrap();
        testing::engine::conformance(&engine).unwrap();
        let disk = Arc::new(testing::disk::FaultDisk::new(1));
        let open = || {
            Ok(Arc::new(SegmentEngine::open(Path::new("values"), disk.clone(), SegmentOptions::default()).unwrap())
                as _)
        };
        testing::engine::persistence(open).unwrap();
    }

    rk_store::store_conformance!(durable_store_in_memory, in_memory().await);
    rk_store::store_conformance!(durable_store, durable().await);
    rk_store::store_conformance!(durable_store_with_checkpoints, restless().await);

    #[test]
    fn durable_store_is_as_the_model() {
        testing::model::against_model(60, restless);
    }

    #[tokio::test]
    async fn durable_store_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let open = async || Arc::new(DurableStore::open(dir.path(), DurableOptions::default()).await.unwrap());
        let store = open().await;
        let same = store.clone();
        let reopen = async |_| {
            same.close().await;
            open().await as Arc<dyn Store>
        };
        testing::store::g06_durability(store, reopen).await;
    }

    /// The same commands make the same hashes, whichever engine holds the content and however often it was written out.
    #[tokio::test]
    async fn hashes_do_not_depend_on_the_engine() {
        let stores = [Arc::new(MemoryStore::new()) as _, durable().await, restless().await, in_memory().await];
        let mut hashes = Vec::new();
        for store in stores {
            for i in 0..60_u64 {
                store.put(format!("k{}", i % 7).into(), format!("{i}").into()).await.unwrap();
                if i % 5 == 0 {
                    store.delete(KeyRange::key(format!("k{}", i % 3))).await.unwrap();
                }
                if i % 20 == 19 {
                    store.compact(store.status().await.unwrap().revision - 6).await.unwrap();
                }
            }
            let status = store.status().await.unwrap();
            let mut of_store = Vec::new();
            for revision in status.compact_revision..=status.revision {
                of_store.push(store.hash_kv(revision).await.unwrap());
            }
            hashes.push(of_store);
        }
        assert!(hashes[0].len() > 5 && hashes.iter().all(|of_store| *of_store == hashes[0]), "{hashes:?}");
    }

    #[tokio::test]
    async fn durable_store_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let restore = async |snapshot| {
            let dir = dir.path().join("restored");
            DurableStore::restore(&dir, snapshot, DurableOptions::default()).await.unwrap().close().await;
            // What it took from the snapshot is on disk.
            Arc::new(DurableStore::open(&dir, DurableOptions::default()).await.unwrap()) as Arc<dyn Store>
        };
        testing::store::g19_snapshots_restore(durable().await, restore).await;
        // From one engine to another, and never over a store that is there.
        testing::store::g19_snapshots_restore(in_memory().await, async |snapshot| {
            let dir = dir.path().join("from memory");
            Arc::new(DurableStore::restore(&dir, snapshot, DurableOptions::default()).await.unwrap()) as Arc<dyn Store>
        })
        .await;
        let snapshot = MemoryStore::new().snapshot().await.unwrap();
        let again = DurableStore::restore(dir.path().join("restored"), snapshot, DurableOptions::default()).await;
        assert!(matches!(again, Err(rk_store::Error::Invalid(_))), "{again:?}");
    }

    #[cfg(feature = "sled")]
    mod on_sled {
        use super::*;

        async fn sled() -> Arc<dyn Store> {
            let (dir, options) = temporary();
            Arc::new(DurableStore::open_sled(dir, options).await.unwrap())
        }

        rk_store::store_conformance!(sled_store, sled().await);

        #[test]
        fn sled_store_is_as_the_model() {
            testing::model::against_model(20, sled);
        }

        #[tokio::test]
        async fn sled_store_is_durable() {
            let dir = tempfile::tempdir().unwrap();
            let open = async || Arc::new(DurableStore::open_sled(dir.path(), DurableOptions::default()).await.unwrap());
            let store = open().await;
            let same = store.clone();
            let reopen = async |_| {
                same.close().await;
                // sled gives its own lock up with the last handle.
                drop(same);
                open().await as Arc<dyn Store>
            };
            testing::store::g06_durability(store, reopen).await;
        }
    }
}
