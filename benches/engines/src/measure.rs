//! The measurements, each done in a process of its own.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rk_store::{DurableStore, Error, KeyRange, Op, PutRequest, RangeRequest, Store, Txn};

use crate::Kind;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 1024;
/// Puts in one txn, and txns at a time, where a store is only to be filled.
const FILL_TXN: u64 = 32;
const FILL_WRITERS: u64 = 32;

/// What to measure, and with how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Acknowledged puts in a second, by so many writers.
    Puts,
    /// Fills a store, reads it and reports what it has written.
    Fill,
    /// Opens the store that was filled.
    Start,
    /// Puts, overwrites and compacts, and reports the size.
    Overwrite,
}

/// A measurement's figures, by name.
pub type Figures = Vec<(&'static str, f64)>;

/// A generator of numbers: the same load for each engine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// A key of 32 bytes.
fn key(i: u64) -> Bytes {
    format!("/registry/things/ns-{:02}/{:010}", i % 100, i).into()
}

/// A value that compresses little.
fn value(random: &mut Random) -> Bytes {
    (0..VALUE_BYTES / 4).flat_map(|_| (random.next() as u32).to_le_bytes()).collect::<Vec<_>>().into()
}

/// Puts of new and old keys by `writers` writers for `time`; acknowledged puts in a second.
pub async fn puts(kind: Kind, dir: &Path, writers: u64, time: Duration) -> Result<Figures, Error> {
    let store = Arc::new(kind.open(dir).await?);
    let values: Arc<[Bytes]> = (0..64).map(|i| value(&mut Random(i))).collect();
    let done = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, values, done) = (store.clone(), values.clone(), done.clone());
            tokio::spawn(async move {
                let mut random = Random(writer);
                while begin.elapsed() < time {
                    let number = random.next();
                    store.put(key(number % 100_000), values[number as usize % values.len()].clone()).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer does not panic")?;
    }
    let rate = done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    store.close().await;
    Ok(vec![("puts/s", rate)])
}

/// Puts the keys `0..count`, many at a time.
async fn fill(store: &Arc<DurableStore>, count: u64, told: &(impl Fn(u64) + Sync)) -> Result<(), Error> {
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..FILL_WRITERS)
        .map(|writer| {
            let (store, next) = (store.clone(), next.clone());
            tokio::spawn(async move {
                let mut random = Random(writer);
                loop {
                    let from = next.fetch_add(FILL_TXN, Ordering::Relaxed);
                    if from >= count {
                        return Ok::<_, Error>(());
                    }
                    let puts = (from..count.min(from + FILL_TXN))
                        .map(|i| Op::Put(PutRequest::new(key(i * 7919 % count), value(&mut random))));
                    store.txn(Txn { success: puts.collect(), ..Txn::default() }).await?;
                }
            })
        })
        .collect();
    for task in tasks {
        while !task.is_finished() {
            told(next.load(Ordering::Relaxed).min(count));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        task.await.expect("a writer does not panic")?;
    }
    Ok(())
}

/// Bytes that this process has had written to the disk.
fn written() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(f64::NAN)
}

/// Resident memory in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}

/// Bytes that the files of a folder take on disk.
fn size(dir: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return f64::NAN };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.blocks() as f64 * 512.0,
            Err(_) => 0.0,
        })
        .sum()
}

/// Fills a store with `keys` keys and reads it in all ways.
pub async fn filled(kind: Kind, dir: &Path, keys: u64, told: impl Fn(u64) + Sync) -> Result<Figures, Error> {
    let store = Arc::new(kind.open(dir).await?);
    let begin = Instant::now();
    fill(&store, keys, &told).await?;
    let filled = begin.elapsed().as_secs_f64();
    store.checkpoint().await?;
    let mut figures = vec![
        ("fill puts/s", keys as f64 / filled),
        ("written/acknowledged", written() / (keys * VALUE_BYTES as u64) as f64),
        ("memory after fill MiB", resident()),
        ("disk MB", size(dir) / 1e6),
    ];
    let mut random = Random(9);
    let (begin, reads) = (Instant::now(), keys.min(200_000));
    for _ in 0..reads {
        let found = store.get(key(random.next() % keys)).await?;
        assert_eq!(found.map(|kv| kv.value.len()), Some(VALUE_BYTES));
    }
    figures.push(("get us", begin.elapsed().as_secs_f64() * 1e6 / reads as f64));
    let (begin, mut bytes) = (Instant::now(), 0);
    for namespace in 0..100 {
        let range = KeyRange::prefix(format!("/registry/things/ns-{namespace:02}/"));
        let found = store.range(RangeRequest::new(range)).await?;
        bytes += found.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
    }
    figures.push(("scan MB/s", bytes as f64 / 1e6 / begin.elapsed().as_secs_f64()));
    store.close().await;
    Ok(figures)
}

/// Opens the store that was filled: the time until a key can be read, and the memory then.
pub async fn start(kind: Kind, dir: &Path, keys: u64) -> Result<Figures, Error> {
    let begin = Instant::now();
    let store = kind.open(dir).await?;
    assert!(store.get(key(keys / 2)).await?.is_some());
    let figures = vec![("start ms", begin.elapsed().as_secs_f64() * 1e3), ("memory at start MiB", resident())];
    store.close().await;
    Ok(figures)
}

/// Puts `keys` keys and overwrites them all in another order, compacts, and gives the space back.
pub async fn overwritten(kind: Kind, dir: &Path, keys: u64, told: impl Fn(u64) + Sync) -> Result<Figures, Error> {
    let store = Arc::new(kind.open(dir).await?);
    fill(&store, keys, &told).await?;
    fill(&store, keys, &|done| told(keys + done)).await?;
    let revision = store.status().await?.revision;
    store.compact(revision).await?;
    store.checkpoint().await?;
    let compacted = size(dir) / 1e6;
    store.defragment().await?;
    let figures = vec![("after compaction MB", compacted), ("after defragmentation MB", size(dir) / 1e6)];
    store.close().await;
    Ok(figures)
}
