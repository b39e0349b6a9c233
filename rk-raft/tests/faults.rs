//! Members that crash, are cut off and come back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use rk_raft::{LocalGroup, MemberId, RaftOptions, RaftStore};
use rk_store::*;
use tokio::time::{Instant, timeout};

fn options(seed: u64) -> RaftOptions {
    let mut options = RaftOptions::default();
    (options.seed, options.snapshot_entries, options.request_timeout) = (seed, 150, Duration::from_secs(3));
    options.catch_up_entries = 500;
    options
}

async fn group(seed: u64) -> (LocalGroup, MemberId) {
    let group = LocalGroup::start(3, options(seed)).await.unwrap();
    let leader = group.leader().await;
    (group, leader)
}

fn others(group: &LocalGroup, id: MemberId) -> Vec<Arc<RaftStore>> {
    group.members().filter(|member| member.id() != id).cloned().collect()
}

async fn count(store: &dyn Store) -> Result<(u64, Revision), Error> {
    Ok(match store.get("counter".into()).await? {
        Some(kv) => (String::from_utf8_lossy(&kv.value).parse().unwrap(), kv.mod_revision),
        None => (0, 0),
    })
}

/// Counts up if nobody else has since: whether it did.
async fn count_up(store: &dyn Store, (count, revision): (u64, Revision)) -> Result<bool, Error> {
    let put = PutRequest::new("counter", (count + 1).to_string());
    let unchanged =
        Compare { range: KeyRange::key("counter"), op: CompareOp::Equal, target: CompareTarget::ModRevision(revision) };
    let txn = Txn { compare: vec![unchanged], success: vec![Op::Put(put)], failure: Vec::new() };
    store.txn(txn).await.map(|answer| answer.succeeded)
}

/// What a client saw of the counter: between `begin` and `end` it was `count`, at least at one moment.
#[derive(Debug, Clone, Copy)]
struct Seen {
    begin: Instant,
    end: Instant,
    count: u64,
}

/// Counts up through one member until it stops.
async fn client(store: Arc<RaftStore>, seen: Arc<Mutex<Vec<Seen>>>, until: Instant) {
    while Instant::now() < until {
        let begin = Instant::now();
        let Ok(found) = count(&*store).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        seen.lock().unwrap().push(Seen { begin, end: Instant::now(), count: found.0 });
        let begin = Instant::now();
        if let Ok(true) = count_up(&*store, found).await {
            seen.lock().unwrap().push(Seen { begin, end: Instant::now(), count: found.0 + 1 });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A counter only grows. So a history is linear if nothing that began after another thing had ended saw less.
fn assert_linear(mut seen: Vec<Seen>) {
    seen.sort_by_key(|seen| seen.begin);
    let mut by_end = seen.clone();
    by_end.sort_by_key(|seen| seen.end);
    let (mut floor, mut ended) = (0, by_end.iter().peekable());
    for later in seen {
        while let Some(earlier) = ended.next_if(|earlier| earlier.end < later.begin) {
            floor = floor.max(earlier.count);
        }
        assert!(later.count >= floor, "{later:?} saw less than {floor}, which was seen before");
    }
}

/// Clients at all members count while `disturb` does its worst; then everything is mended.
async fn disturbed(seed: u64, disturb: impl AsyncFnOnce(&mut LocalGroup)) {
    let (mut group, _) = group(seed).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let until = Instant::now() + Duration::from_secs(40);
    let members: Vec<_> = group.members().cloned().collect();
    let clients: Vec<_> = members.into_iter().map(|member| tokio::spawn(client(member, seen.clone(), until))).collect();
    disturb(&mut group).await;
    for client in clients {
        client.await.unwrap();
    }
    group.network().heal();
    group.network().set_loss(0.0);
    for id in 1..=3 {
        if group.member(id).is_none() {
            group.restart(id).await.unwrap();
        }
    }
    group.leader().await;
    let seen = seen.lock().unwrap().clone();
    let most = seen.iter().map(|seen| seen.count).max().unwrap();
    assert!(most > 100, "seed {seed}: only {most} increments: the test tests nothing");
    let mut states = Vec::new();
    for member in group.members() {
        let (count, _) = count(&**member).await.unwrap();
        assert!(count >= most, "seed {seed}: an acknowledged write is lost: {most} was seen, {count} is there");
        states.push(member.range(RangeRequest::new(KeyRange::all())).await.unwrap());
    }
    assert!(states.iter().all(|state| *state == states[0]), "seed {seed}: members differ");
    assert_linear(seen);
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_when_leaders_crash() {
    for seed in 0..5 {
        disturbed(seed, async |group| {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(3000 + 137 * seed)).await;
                let leader = group.leader().await;
                group.stop(leader);
                tokio::time::sleep(Duration::from_secs(5)).await;
                group.restart(leader).await.unwrap();
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_when_leaders_are_cut_off() {
    for seed in 10..13 {
        disturbed(seed, async |group| {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(3000 + 71 * seed)).await;
                group.network().isolate(group.leader().await);
                tokio::time::sleep(Duration::from_secs(6)).await;
                group.network().heal();
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_on_a_lossy_network() {
    for seed in 20..23 {
        disturbed(seed, async |group| {
            group.network().set_loss(0.1);
            tokio::time::sleep(Duration::from_secs(30)).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_minority_refuses_reads_and_writes() {
    let (group, leader) = group(1).await;
    let old = group.member(leader).unwrap().clone();
    old.put("a".into(), "1".into()).await.unwrap();
    group.network().isolate(leader);
    let refused = old.put("a".into(), "2".into()).await;
    assert!(matches!(refused, Err(Error::Timeout | Error::NoLeader)), "{refused:?}");
    let refused = old.get("a".into()).await;
    assert!(
        matches!(refused, Err(Error::Timeout | Error::NoLeader)),
        "a read of the minority may be stale: {refused:?}"
    );
    // What it knows it still tells its watchers.
    let mut watch = old.watch(WatchRequest::new(KeyRange::all(), 2)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 2);
    // The majority goes on, and the minority learns of it.
    let others = others(&group, leader);
    others[0].put("a".into(), "3".into()).await.unwrap();
    group.network().heal();
    loop {
        let batch = timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap().unwrap();
        if batch.events.iter().any(|event| event.kv.value == "3") {
            break;
        }
        assert!(batch.events.iter().all(|event| event.kv.value != "2"), "a refused write took effect");
    }
    assert_eq!(old.get("a".into()).await.unwrap().unwrap().value, "3");
}

#[tokio::test(start_paused = true)]
async fn two_of_three_gone_is_a_clear_error_and_ends() {
    let (mut group, leader) = group(2).await;
    group.member(leader).unwrap().put("a".into(), "1".into()).await.unwrap();
    let gone: Vec<_> = others(&group, leader).iter().map(|member| member.id()).collect();
    gone.iter().for_each(|id| group.stop(*id));
    let left = group.member(leader).unwrap().clone();
    let begin = Instant::now();
    for error in [left.put("a".into(), "2".into()).await.map(drop), left.lease_grant(0, 5).await.map(drop)] {
        assert!(matches!(error, Err(Error::Timeout | Error::NoLeader)), "{error:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    group.restart(gone[0]).await.unwrap();
    timeout(Duration::from_secs(30), group.leader()).await.unwrap();
    assert!(left.get("a".into()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_was_away_for_long_catches_up_by_a_snapshot() {
    let (mut group, leader) = group(3).await;
    let away = others(&group, leader)[0].id();
    group.stop(away);
    let store = group.member(leader).unwrap().clone();
    store.lease_grant(9, 1000).await.unwrap();
    for i in 0..3000 {
        store.put(format!("k{}", i % 10).into(), format!("{i}").into()).await.unwrap();
    }
    store.compact(1500).await.unwrap();
    group.restart(away).await.unwrap();
    let back = group.member(away).unwrap().clone();
    for revision in [0, 1500, 2000] {
        let request = RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) };
        assert_eq!(back.range(request.clone()).await.unwrap(), store.range(request).await.unwrap());
    }
    assert_eq!(back.leases().await.unwrap(), [9]);
    assert_eq!(back.status().await.unwrap().compact_revision, 1500);
    let mut watch = back.watch(WatchRequest::new(KeyRange::all(), 0)).await.unwrap();
    store.put("more".into(), "x".into()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events[0].kv.key, "more");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_leader_ends_no_lease_early() {
    let (mut group, leader) = group(4).await;
    let others = others(&group, leader);
    let store = others[0].clone();
    store.lease_grant(1, 20).await.unwrap();
    let bound = PutRequest { lease: 1, ..PutRequest::new("a", "1") };
    store.txn(Txn { success: vec![Op::Put(bound)], ..Txn::default() }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    // The followers' clocks run since the grant; only the leader knows of this.
    assert_eq!(store.lease_keep_alive(1).await.unwrap().ttl, 20);
    let renewed = Instant::now();
    group.stop(leader);
    let from = store.status().await.unwrap().revision + 1;
    let mut watch = store.watch(WatchRequest::new(KeyRange::all(), from)).await.unwrap();
    let gone = timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(gone.events[0].kind, EventKind::Delete);
    assert!(renewed.elapsed() >= Duration::from_secs(20), "it ended after {:?}", renewed.elapsed());
}

/// What happens in a group, as far as the outside can see.
async fn trace(seed: u64) -> Vec<String> {
    let begin = Instant::now();
    let (mut group, leader) = group(seed).await;
    let mut trace = vec![format!("{leader} leads after {:?}", begin.elapsed())];
    for _ in 0..3 {
        let leader = group.leader().await;
        group.stop(leader);
        let store = group.members().next().unwrap().clone();
        let lease = loop {
            // What was sent to the leader that is gone is not answered.
            if let Ok(lease) = store.lease_grant(0, 100).await {
                break lease;
            }
        };
        trace.push(format!("lease {:x} at {:?}, {} leads", lease.id, begin.elapsed(), group.leader().await));
        group.restart(leader).await.unwrap();
    }
    trace
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let first = trace(5).await;
    assert_eq!(trace(5).await, first);
    assert_ne!(trace(6).await, first);
}
