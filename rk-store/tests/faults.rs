//! Damaged files and failing disks.

#![cfg(feature = "log")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rk_store::{testing::disk::FaultDisk, *};

async fn open(dir: &Path) -> Result<DurableStore, Error> {
    DurableStore::open(dir, DurableOptions::default()).await
}

async fn values(store: &DurableStore) -> Vec<bytes::Bytes> {
    let found = store.range(RangeRequest::new(KeyRange::all())).await.unwrap();
    found.kvs.into_iter().map(|kv| kv.value).collect()
}

/// A store with these values under keys in their order, one log frame each, closed. The frames end at these offsets of the log.
async fn written(dir: &Path, values: &[&'static str]) -> (PathBuf, Vec<u64>) {
    let log = dir.join("log-0000000000000001");
    let mut ends = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let store = open(dir).await.unwrap();
        store.put(format!("{i}").into(), (*value).into()).await.unwrap();
        store.close().await;
        ends.push(log.metadata().unwrap().len());
    }
    (log, ends)
}

/// Bytes of a file's head, and of it with the frame that says where the log begins.
const HEAD: u64 = 24;
const OPENING: usize = 45;

const VALUES: [&str; 4] = ["first", "second", "", "fourth"];

#[tokio::test]
async fn a_log_cut_anywhere_keeps_its_whole_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ends) = written(dir.path(), &VALUES).await;
    let whole = std::fs::read(&log).unwrap();
    for len in OPENING..whole.len() {
        std::fs::write(&log, &whole[..len]).unwrap();
        let store = open(dir.path()).await.unwrap();
        let kept = ends.iter().filter(|end| **end <= len as u64).count();
        assert_eq!(values(&store).await, VALUES[..kept], "cut to {len} bytes");
        // And it goes on from there.
        store.put("more".into(), "x".into()).await.unwrap();
        store.close().await;
        let store = open(dir.path()).await.unwrap();
        assert_eq!(values(&store).await.len(), kept + 1, "cut to {len} bytes");
        store.close().await;
    }
    // What it begins with is written and synced before the file gets its name: it can't be torn.
    for len in 0..OPENING {
        std::fs::write(&log, &whole[..len]).unwrap();
        assert!(matches!(open(dir.path()).await, Err(Error::Corrupt { .. })), "cut to {len} bytes");
    }
}

#[tokio::test]
async fn a_damaged_byte_in_the_log_is_reported_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ends) = written(dir.path(), &VALUES).await;
    let whole = std::fs::read(&log).unwrap();
    let last_begins = ends[ends.len() - 2];
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&log, &damaged).unwrap();
        match open(dir.path()).await {
            Err(Error::Corrupt { file, offset, .. }) => {
                assert_eq!(file, log.display().to_string());
                let begins = [HEAD, OPENING as u64].into_iter().chain(ends.iter().copied());
                let begins = begins.take_while(|begin| *begin <= at as u64).last().unwrap_or(0);
                assert_eq!(offset, begins, "byte {at}");
                assert!((at as u64) < last_begins, "byte {at}: damage of the last frame looks like a torn write");
                assert_eq!(std::fs::read(&log).unwrap(), damaged, "a corrupt file is left as it is");
            }
            Ok(store) => {
                assert!(at as u64 >= last_begins, "byte {at}: damage went unnoticed");
                assert_eq!(values(&store).await, VALUES[..3]);
                store.close().await;
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_is_reported_and_never_skipped() {
    let open = async |dir| DurableStore::open_in_memory(dir, DurableOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), &VALUES).await;
    let store = open(dir.path()).await.unwrap();
    store.lease_grant(1, 100).await.unwrap();
    store.checkpoint().await.unwrap();
    store.close().await;
    let path = dir.path().join("checkpoint-0000000000000006");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for damaged in [&flipped[..], &whole[..at]] {
            std::fs::write(&path, damaged).unwrap();
            let error = open(dir.path()).await.map(drop);
            assert!(
                matches!(&error, Err(Error::Corrupt { file, .. }) if *file == path.display().to_string()),
                "{error:?}"
            );
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(values(&open(dir.path()).await.unwrap()).await, VALUES);
}

#[tokio::test]
async fn damaged_values_are_reported_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), &VALUES).await;
    let store = open(dir.path()).await.unwrap();
    store.checkpoint().await.unwrap();
    store.close().await;
    for entry in std::fs::read_dir(dir.path().join("values")).unwrap() {
        let path = entry.unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            for damaged in [&flipped[..], &whole[..at]] {
                std::fs::write(&path, damaged).unwrap();
                // Values are not read by a start: theirs is found when one is asked for.
                let found = match open(dir.path()).await {
                    Ok(store) => {
                        let found = store.range(RangeRequest::new(KeyRange::all())).await.map(drop);
                        store.close().await;
                        found
                    }
                    Err(error) => Err(error),
                };
                let is_told = matches!(&found, Err(Error::Corrupt { file, .. }) if *file == path.display().to_string());
                assert!(is_told, "{}, byte {at}: {found:?}", path.display());
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(values(&open(dir.path()).await.unwrap()).await, VALUES);
}

#[tokio::test]
async fn a_missing_file_is_reported() {
    let open = async |dir| DurableStore::open_in_memory(dir, DurableOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), &VALUES).await;
    let store = open(dir.path()).await.unwrap();
    store.checkpoint().await.unwrap();
    store.close().await;
    let log = dir.path().join("log-0000000000000002");
    let aside = dir.path().join("aside");
    std::fs::rename(&log, &aside).unwrap();
    assert!(matches!(open(dir.path()).await, Err(Error::Corrupt { .. })), "without the log");
    std::fs::rename(&aside, &log).unwrap();
    std::fs::remove_file(dir.path().join("checkpoint-0000000000000005")).unwrap();
    assert!(matches!(open(dir.path()).await, Err(Error::Corrupt { .. })), "without the checkpoint");
}

/// A disk of limited size whose syncs can fail.
struct Faults(FaultDisk);

impl Faults {
    fn new(free: u64) -> Self {
        let disk = Self(FaultDisk::new(7));
        disk.set_free(free);
        disk
    }

    fn set_free(&self, bytes: u64) {
        self.0.set_free(Some(bytes));
    }

    async fn open(&self, dir: &Path) -> DurableStore {
        let mut options = DurableOptions::default();
        (options.segment_bytes, options.checkpoint_bytes) = (400, 4000);
        let disk = Arc::new(self.0.clone());
        options.disk = disk.clone();
        let mut segments = SegmentOptions::default();
        (segments.segment_bytes, segments.pending_bytes) = (1000, 150);
        let engine = move |dir: &Path| Ok(Arc::new(SegmentEngine::open(&dir.join("values"), disk, segments)?) as _);
        DurableStore::open_with(dir, options, engine).await.unwrap()
    }
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_nothing_else() {
    let dir = Path::new("data");
    let disk = Faults::new(10_000);
    let store = disk.open(dir).await;
    let mut watch = store.watch(WatchRequest::new(KeyRange::all(), 2)).await.unwrap();
    let mut acknowledged = Vec::new();
    // Full at many different places: inside a frame, at its end, in the head of a new segment, inside a checkpoint.
    for free in (0..600).step_by(7) {
        disk.set_free(free);
        for i in 0.. {
            let (key, value) = (format!("{free}-{i}"), format!("value {i}"));
            match store.put(key.clone().into(), value.clone().into()).await {
                Ok(_) => acknowledged.push((key, value)),
                Err(Error::NoSpace(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let refused = store.put("refused".into(), "x".into()).await;
        if let Err(error) = refused {
            assert!(matches!(error, Error::NoSpace(_)), "{error}");
            assert_eq!(store.get("refused".into()).await.unwrap(), None, "reads go on");
        } else {
            acknowledged.push(("refused".into(), "x".into()));
            disk.set_free(100_000);
            store.delete(KeyRange::key("refused")).await.unwrap();
            acknowledged.pop();
        }
    }
    disk.set_free(1_000_000);
    store.put("last".into(), "x".into()).await.unwrap();
    acknowledged.push(("last".into(), "x".into()));
    acknowledged.sort();
    let found = |answer: RangeResponse| -> Vec<(String, String)> {
        let text = |bytes: bytes::Bytes| String::from_utf8(bytes.into()).unwrap();
        answer.kvs.into_iter().map(|kv| (text(kv.key), text(kv.value))).collect()
    };
    let all = RangeRequest::new(KeyRange::all());
    assert_eq!(found(store.range(all.clone()).await.unwrap()), acknowledged);
    let last = store.status().await.unwrap().revision;
    let mut reached = 1;
    while reached < last {
        let batch = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
        assert_eq!(batch.revision, reached + 1);
        reached = batch.revision;
    }
    store.close().await;
    let store = disk.open(dir).await;
    assert_eq!(found(store.range(all).await.unwrap()), acknowledged, "after a restart");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_any_more() {
    let dir = Path::new("data");
    let disk = Faults::new(1_000_000);
    let store = disk.open(dir).await;
    store.put("a".into(), "1".into()).await.unwrap();
    let mut watch = store.watch(WatchRequest::new(KeyRange::all(), 2)).await.unwrap();
    disk.0.fail_syncs(true);
    assert!(matches!(store.put("a".into(), "2".into()).await, Err(Error::Unavailable(_))));
    disk.0.fail_syncs(false);
    assert!(matches!(store.put("a".into(), "3".into()).await, Err(Error::Unavailable(_))));
    assert!(matches!(store.checkpoint().await, Err(Error::Unavailable(_))));
    assert_eq!(store.get("a".into()).await.unwrap().unwrap().value, "1", "reads go on");
    store.close().await;
    // Watchers never saw what was not durable.
    let seen: Vec<_> = futures::StreamExt::collect(&mut watch).await;
    assert!(matches!(&seen[..], [Ok(first), Err(Error::Unavailable(_))] if first.revision == 2), "{seen:?}");
    let store = disk.open(dir).await;
    let value = store.get("a".into()).await.unwrap().unwrap().value;
    assert!(value == "1" || value == "2", "{value:?} was refused, not unknown");
    store.put("a".into(), "4".into()).await.unwrap();
}
