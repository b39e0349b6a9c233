//! Power cuts: at every sync of a recorded workload, what is on the disk then makes a store with every acknowledged write, and none
//! that was refused.

#![cfg(feature = "log")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rk_store::{
    testing::disk::{FaultDisk, Survives},
    *,
};

const DIR: &str = "data";

#[derive(Debug, Clone, Copy)]
enum Values {
    Memory,
    Segments,
}

/// Log segments, segments of values and checkpoints are made all the time.
async fn open(disk: &FaultDisk, values: Values) -> Result<DurableStore, Error> {
    let disk = Arc::new(disk.clone());
    let mut options = DurableOptions::default();
    (options.segment_bytes, options.checkpoint_bytes, options.disk) = (700, 2500, disk.clone());
    let mut segments = SegmentOptions::default();
    (segments.segment_bytes, segments.pending_bytes) = (1500, 300);
    let engine = move |dir: &Path| -> Result<Arc<dyn Engine>, Error> {
        Ok(match values {
            Values::Memory => Arc::new(MemoryEngine::new()),
            Values::Segments => Arc::new(SegmentEngine::open(&dir.join("values"), disk, segments)?),
        })
    };
    DurableStore::open_with(DIR, options, engine).await
}

/// What a store holds: all keys at each revision that can be read, and the leases.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    compacted: Revision,
    at: BTreeMap<Revision, Vec<KeyValue>>,
    leases: Vec<LeaseId>,
}

async fn content(store: &DurableStore) -> Content {
    let status = store.status().await.unwrap();
    let mut at = BTreeMap::new();
    for revision in status.compact_revision.max(1)..=status.revision {
        let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
        at.insert(revision, store.range(request).await.unwrap().kvs);
    }
    Content { compacted: status.compact_revision, at, leases: store.leases().await.unwrap() }
}

/// Does one thing to a store, which all of them are acknowledged or refused.
async fn step(store: &DurableStore, step: u64) {
    let key = format!("key-{}", step * 7 % 11);
    match step % 13 {
        3 => {
            store.delete(KeyRange::key(key)).await.unwrap();
        }
        6 => {
            let put = |i: u64| {
                let put = PutRequest::new(format!("many-{}", i % 4), format!("{step} {i}"));
                Op::Put(put)
            };
            store.txn(Txn { success: (0..3).map(put).collect(), ..Txn::default() }).await.unwrap();
        }
        8 => {
            let revision = store.status().await.unwrap().revision;
            store.compact(revision - step % 5).await.unwrap();
        }
        9 => {
            store.lease_grant(step as LeaseId, 1000).await.unwrap();
        }
        10 => {
            let put = PutRequest { lease: step as LeaseId - 1, ..PutRequest::new(key, "leased") };
            store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await.unwrap();
        }
        11 if step.is_multiple_of(2) => store.lease_revoke(step as LeaseId - 2).await.unwrap(),
        12 => assert!(matches!(store.compact(1).await, Err(Error::Compacted { .. }))),
        _ => {
            let value = format!("{step} {}", "x".repeat((step * 31 % 200) as usize));
            store.put(key.into(), value.into()).await.unwrap();
        }
    }
}

async fn at_every_sync(values: Values, seed: u64) {
    let disk = FaultDisk::new(seed);
    disk.record();
    let store = open(&disk, values).await.unwrap();
    // After so many changes of the disk the store has acknowledged this content.
    let mut history = vec![(disk.recorded(), content(&store).await)];
    for i in 0..150 {
        step(&store, i + seed).await;
        history.push((disk.recorded(), content(&store).await));
        if i % 50 == 33 {
            store.defragment().await.unwrap();
        }
    }
    store.close().await;
    let mut cuts = Vec::new();
    disk.replay(seed, |done, disk| {
        for survives in [Survives::Nothing, Survives::Prefix, Survives::Sectors] {
            cuts.push((done, survives, disk.copy(survives)));
        }
    });
    assert!(cuts.len() > 1000, "{} cuts test nothing", cuts.len());
    for (i, (done, survives, disk)) in cuts.into_iter().enumerate() {
        let failed = |error| panic!("{values:?}, seed {seed}, after {done} changes, {survives:?}: {error}");
        let store = open(&disk, values).await.unwrap_or_else(failed);
        let found = content(&store).await;
        let acknowledged = history.iter().rposition(|(at, _)| *at <= done).unwrap_or(0);
        // What was under way may be there or not.
        let fits = history[acknowledged..].iter().take(2).any(|(_, content)| *content == found);
        assert!(
            fits,
            "{values:?}, seed {seed}, after {done} changes, {survives:?}: {found:#?}\nand not {:#?}",
            history[acknowledged].1
        );
        // And it goes on from there, over one more power cut.
        if i % 10 == 0 {
            store.put("more".into(), "x".into()).await.unwrap();
            store.checkpoint().await.unwrap();
            store.put("more".into(), "y".into()).await.unwrap();
            let before = content(&store).await;
            let store = open(&disk.cut_power(survives), values).await.unwrap_or_else(failed);
            assert_eq!(content(&store).await, before);
        }
    }
}

#[tokio::test]
async fn at_every_sync_with_values_in_segments() {
    for seed in 0..3 {
        at_every_sync(Values::Segments, seed).await;
    }
}

#[tokio::test]
async fn at_every_sync_with_values_in_memory() {
    at_every_sync(Values::Memory, 1).await;
}
