//! Power cuts in a member's folder: at every sync of a recorded life, what is on the disk then makes a member with all that it has
//! acknowledged, entries and votes.

use std::{path::Path, sync::Arc};

use rk_raft::{
    Batch, LocalNetwork, MemberDir, MemberDirOptions, Membership, RaftLog, RaftOptions, RaftStore, Start,
    eraftpb::{Entry, HardState},
};
use rk_store::{
    Cluster, Disk, Engine, Error, KeyRange, KeyValue, MemoryEngine, RangeRequest, Revision, SegmentEngine,
    SegmentOptions, Store,
    testing::disk::{FaultDisk, Survives},
};

/// Files of the log and of the engine are made all the time.
fn options(disk: &FaultDisk, on_disk: bool) -> MemberDirOptions {
    let mut options = MemberDirOptions::default();
    (options.segment_bytes, options.disk) = (1500, Arc::new(disk.clone()));
    options.engine = Arc::new(move |dir: &Path, disk: &Arc<dyn Disk>| -> Result<Arc<dyn Engine>, Error> {
        let mut segments = SegmentOptions::default();
        (segments.segment_bytes, segments.pending_bytes) = (1500, 300);
        Ok(match on_disk {
            true => Arc::new(SegmentEngine::open(dir, disk.clone(), segments)?),
            false => Arc::new(MemoryEngine::new()),
        })
    });
    options
}

/// The only member of its group, on what its disk holds.
async fn open(disk: &FaultDisk, on_disk: bool) -> Result<RaftStore, Error> {
    let dir = MemberDir::open("member", options(disk, on_disk)).await?;
    if dir.identity().is_none() {
        dir.bootstrap(1, Membership::numbered(&[1]), None).await?;
    }
    let network = LocalNetwork::new(1);
    let packets = network.connect(1);
    let start =
        Start { id: 1, log: Box::new(dir.clone()), states: Arc::new(dir), transport: Arc::new(network), packets };
    let mut options = RaftOptions::default();
    options.snapshot_entries = 12;
    RaftStore::start(start, options).await
}

/// What a member holds that anyone was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    revision: Revision,
    kvs: Vec<KeyValue>,
}

async fn content(store: &RaftStore) -> Content {
    let found = store.range(RangeRequest::new(KeyRange::all())).await.unwrap();
    Content { revision: found.revision, kvs: found.kvs }
}

async fn at_every_sync(on_disk: bool, seed: u64) {
    let disk = FaultDisk::new(seed);
    disk.record();
    let store = open(&disk, on_disk).await.unwrap();
    // After so many changes of the disk the member has acknowledged this content, in this term; at first nothing.
    let mut history = vec![(disk.recorded(), content(&store).await, 0)];
    for i in 0..60 {
        let value = format!("{i} {}", "x".repeat(i * 31 % 200));
        store.put(format!("key-{}", i * 7 % 11).into(), value.into()).await.unwrap();
        if i % 20 == 13 {
            store.compact(i as Revision - 5).await.unwrap();
        }
        history.push((disk.recorded(), content(&store).await, store.term()));
    }
    drop(store);
    let mut cuts = Vec::new();
    disk.replay(seed, |done, disk| {
        for survives in [Survives::Nothing, Survives::Prefix, Survives::Sectors] {
            cuts.push((done, survives, disk.copy(survives)));
        }
    });
    assert!(cuts.len() > 300, "{} cuts test nothing", cuts.len());
    for (i, (done, survives, disk)) in cuts.into_iter().enumerate() {
        let place = format!("seed {seed}, after {done} changes, {survives:?}");
        let store = open(&disk, on_disk).await.unwrap_or_else(|error| panic!("{place}: {error}"));
        let found = content(&store).await;
        let acknowledged = history.iter().rposition(|(at, ..)| *at <= done);
        let from = acknowledged.unwrap_or(0);
        // What was under way may be there or not; before the first answer there was nothing.
        let fits = history[from..].iter().take(2).any(|(_, content, _)| *content == found);
        assert!(fits, "{place}: {found:#?}\nand not {:#?}", history[from].1);
        let term = acknowledged.map_or(0, |at| history[at].2);
        assert!(store.term() > term, "{place}: term {} after {term}", store.term());
        // And it goes on from there, over one more power cut.
        if i % 10 == 0 {
            store.put("more".into(), "x".into()).await.unwrap();
            let before = content(&store).await;
            drop(store);
            let store = open(&disk.cut_power(survives), on_disk).await.unwrap();
            assert_eq!(content(&store).await, before, "{place}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_every_sync_with_values_on_disk() {
    for seed in 0..2 {
        at_every_sync(true, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn at_every_sync_with_values_in_memory() {
    at_every_sync(false, 3).await;
}

#[tokio::test]
async fn entries_and_vote_take_one_sync_and_survive_a_power_cut_at_it_together() {
    // No new file of the log, which takes a sync of its own.
    let large = |disk: &FaultDisk| {
        let mut options = options(disk, true);
        options.segment_bytes = 1 << 20;
        options
    };
    let disk = FaultDisk::new(1);
    let mut dir = MemberDir::open("member", large(&disk)).await.unwrap();
    dir.bootstrap(1, Membership::numbered(&[1, 2, 3]), None).await.unwrap();
    dir.load().await.unwrap();
    for term in 2..20 {
        let entries =
            (0..3).map(|i| Entry { index: 2 + 2 * (term - 2) + i, term, data: "entry".into(), ..Entry::default() });
        let state = HardState { term, vote: term % 3 + 1, commit: 1, ..HardState::default() };
        let before = dir.syncs().log.counts().count;
        dir.write(Batch { entries: entries.collect(), state: Some(state.clone()) }).await.unwrap();
        assert_eq!(dir.syncs().log.counts().count - before, 1);
        let left = disk.copy(Survives::Nothing);
        let mut found = MemberDir::open("member", large(&left)).await.unwrap();
        let recovered = found.load().await.unwrap();
        assert_eq!(recovered.state, state);
        assert_eq!(recovered.entries.last().map(|entry| (entry.index, entry.term)), Some((4 + 2 * (term - 2), term)));
    }
}
