//! What others fell into with the raft library.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rk_raft::{
    Checkpoints, Incoming, LocalGroup, LocalNetwork, MemberId, MemoryLog, Point, RaftOptions, RaftStore, Start,
};
use rk_store::{Cluster, ClusterError, Error, Machine, SnapshotGuard, SnapshotHead, Store};
use tokio::time::{Instant, sleep, timeout};

fn options() -> RaftOptions {
    let mut options = RaftOptions::default();
    (options.snapshot_entries, options.catch_up_entries) = (100, 50);
    options
}

async fn three() -> (LocalGroup, Arc<RaftStore>) {
    let group = LocalGroup::start(3, options()).await.unwrap();
    let leader = group.leader().await;
    let leader = group.member(leader).unwrap().clone();
    (group, leader)
}

fn other(group: &LocalGroup, not: &RaftStore) -> Arc<RaftStore> {
    group.members().find(|member| member.id() != not.id()).unwrap().clone()
}

async fn fill(store: &RaftStore, entries: usize) {
    for i in 0..entries {
        store.put("key".into(), format!("{i}").into()).await.unwrap();
    }
}

async fn add(leader: &RaftStore, learner: bool) -> MemberId {
    leader.member_add(vec!["http://127.0.0.1:9999".into()], learner).await.unwrap().0.id
}

/// Makes a learner a voter once it has caught up.
async fn promote(leader: &RaftStore, id: MemberId) {
    loop {
        match leader.member_promote(id).await {
            Err(ClusterError::LearnerNotReady) => sleep(Duration::from_millis(100)).await,
            promoted => break drop(promoted.unwrap()),
        }
    }
}

/// A member that has heard of a term but got no state yet has a vote to keep and nothing to start from.
#[tokio::test(start_paused = true)]
async fn one_without_a_state_is_started_again_and_again() {
    let (mut group, leader) = three().await;
    fill(&leader, 300).await;
    let id = add(&leader, true).await;
    group.network().isolate(leader.id());
    group.join(id).await.unwrap();
    for _ in 0..3 {
        sleep(Duration::from_secs(2)).await;
        group.restart(id).await.unwrap();
    }
    group.network().heal();
    let joined = group.member(id).unwrap().clone();
    let found = timeout(Duration::from_secs(30), joined.get("key".into())).await.unwrap().unwrap().unwrap();
    assert_eq!(found.value, "299");
}

/// Raft tells once that a member is to get a state, and waits until it is told how that went: also if the member, or the
/// leader, is gone by then.
#[tokio::test(start_paused = true)]
async fn a_state_that_gets_lost_on_its_way_is_sent_again() {
    let (mut group, leader) = three().await;
    let behind = other(&group, &leader).id();
    group.stop(behind);
    fill(&leader, 1000).await;
    group.network().set_loss(0.6);
    group.restart(behind).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    group.restart(behind).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let leads = group.leader().await;
    group.restart(leads).await.unwrap();
    group.network().set_loss(0.0);
    let back = group.member(behind).unwrap().clone();
    let until = Instant::now() + Duration::from_secs(60);
    while !back.get("key".into()).await.is_ok_and(|found| found.is_some_and(|found| found.value == "999")) {
        assert!(Instant::now() < until, "it does not catch up");
    }
}

/// Raft ignores without a word whoever can't lead; and one that was told too early that it may.
#[tokio::test(start_paused = true)]
async fn the_leadership_goes_to_voters_only_and_to_a_new_one_too() {
    let (mut group, leader) = three().await;
    let id = add(&leader, true).await;
    let begin = Instant::now();
    for nobody in [id, 77] {
        let refused = leader.move_leader(nobody).await;
        assert!(matches!(refused, Err(ClusterError::BadTransferee)), "{refused:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "nothing stalls");
    group.join(id).await.unwrap();
    let joined = group.member(id).unwrap().clone();
    timeout(Duration::from_secs(30), joined.get("key".into())).await.unwrap().unwrap();
    promote(&leader, id).await;
    // At once, while the new voter does not know yet that it is one.
    leader.move_leader(id).await.unwrap();
    assert_eq!(RaftStore::leader(&leader), Some(id));
    joined.put("key".into(), "by the new leader".into()).await.unwrap();
    let refused = leader.move_leader(leader.id()).await;
    assert!(matches!(refused, Err(ClusterError::NotLeader)), "{refused:?}");
}

/// A change of members that is in the log and not in the state takes effect once, also after a restart.
#[tokio::test(start_paused = true)]
async fn a_change_of_members_survives_a_restart_before_it_was_saved() {
    let (mut group, leader) = three().await;
    let id = add(&leader, true).await;
    let before = leader.members(true).await.unwrap();
    drop(leader);
    for member in 1..=3 {
        group.stop(member);
    }
    for member in 1..=3 {
        group.restart(member).await.unwrap();
    }
    let leader = group.leader().await;
    let leader = group.member(leader).unwrap().clone();
    assert_eq!(leader.members(true).await.unwrap(), before);
    assert_eq!(leader.member_remove(id).await.unwrap().len(), 3);
    let again = leader.member_remove(id).await;
    assert!(matches!(again, Err(ClusterError::MemberNotFound)), "{again:?}");
}

/// A proposal on its way to a leader that is gone is sent to the next one, and takes effect once.
#[tokio::test(start_paused = true)]
async fn a_write_outlives_the_leader_it_was_sent_to() {
    let (mut group, leader) = three().await;
    let follower = other(&group, &leader);
    follower.put("n".into(), "0".into()).await.unwrap();
    group.network().isolate(leader.id());
    let writing = {
        let follower = follower.clone();
        tokio::spawn(async move { follower.put("n".into(), "1".into()).await })
    };
    let begin = Instant::now();
    writing.await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    group.network().heal();
    group.restart(leader.id()).await.unwrap();
    assert_eq!(follower.get("n".into()).await.unwrap().unwrap().version, 2);
}

/// A member whose data is gone must not go on under its old id: it would break what it has promised.
#[tokio::test(start_paused = true)]
async fn one_that_has_lost_its_data_stops() {
    let (mut group, leader) = three().await;
    let lost = other(&group, &leader).id();
    fill(&leader, 20).await;
    group.stop(lost);
    group.join(lost).await.unwrap();
    let stopped = timeout(Duration::from_secs(30), group.member(lost).unwrap().stopped()).await;
    let reason = stopped.unwrap().unwrap().to_string();
    assert!(reason.contains("its data was lost"), "{reason}");
}

/// A leader that is cut off answers from its lease only for as long as nobody else can lead.
#[tokio::test(start_paused = true)]
async fn a_lease_ends_before_another_leads() {
    for seed in 0..10 {
        let mut options = options();
        (options.seed, options.lease_reads, options.request_timeout) = (seed, true, Duration::from_secs(2));
        let group = LocalGroup::start(3, options).await.unwrap();
        let leader = group.leader().await;
        let leader = group.member(leader).unwrap().clone();
        leader.put("n".into(), "old".into()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        group.network().isolate(leader.id());
        let next = other(&group, &leader);
        let writing = tokio::spawn(async move { while next.put("n".into(), "new".into()).await.is_err() {} });
        let mut by_lease = 0;
        while !writing.is_finished() {
            let begin = Instant::now();
            match leader.get("n".into()).await {
                Ok(found) => {
                    assert_eq!((found.unwrap().value, writing.is_finished()), ("old".into(), false), "seed {seed}");
                    assert_eq!(begin.elapsed(), Duration::ZERO, "it asked others");
                    by_lease += 1;
                    sleep(Duration::from_millis(10)).await;
                }
                Err(error) => assert!(matches!(error, Error::Timeout | Error::NoLeader), "{error}"),
            }
        }
        assert!(by_lease > 0, "seed {seed}: no read was answered by the lease");
    }
}

/// Who led alone when it stopped knows nothing of what others have done since.
#[tokio::test(start_paused = true)]
async fn one_that_has_stopped_answers_no_reads() {
    let group = LocalGroup::start(1, options()).await.unwrap();
    let alone = group.member(1).unwrap();
    alone.put("key".into(), "value".into()).await.unwrap();
    assert!(alone.get("key".into()).await.unwrap().is_some());
    alone.stop();
    let refused = alone.get("key".into()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
}

/// Whoever is left alone must not forget that it is, or it would wait for the vote of one that is gone.
#[tokio::test(start_paused = true)]
async fn the_last_one_goes_on_after_a_crash() {
    for leader_leaves in [true, false] {
        let mut group = LocalGroup::start(2, options()).await.unwrap();
        let leader = group.leader().await;
        let leaves = if leader_leaves { leader } else { 3 - leader };
        let stays = 3 - leaves;
        let asked = group.member(stays).unwrap().clone();
        assert_eq!(asked.member_remove(leaves).await.unwrap().len(), 1);
        group.stop(stays);
        // Longer than anyone waits for anything.
        sleep(Duration::from_secs(30)).await;
        group.restart(stays).await.unwrap();
        let store = group.member(stays).unwrap().clone();
        timeout(Duration::from_secs(30), store.put("key".into(), "value".into())).await.unwrap().unwrap();
        let left = group.member(leaves).unwrap();
        assert!(timeout(Duration::from_secs(30), left.stopped()).await.unwrap().is_some(), "it ends at last");
    }
}

/// One that was removed while it could not be told learns it later: a learner too, which never asks for votes; and again when it
/// is started again.
#[tokio::test(start_paused = true)]
async fn one_that_was_removed_ends_whenever_it_comes_back() {
    for learner in [true, false] {
        let (mut group, leader) = three().await;
        let id = add(&leader, learner).await;
        group.join(id).await.unwrap();
        let joined = group.member(id).unwrap().clone();
        timeout(Duration::from_secs(30), joined.get("key".into())).await.unwrap().unwrap();
        drop(joined);
        group.network().isolate(id);
        leader.member_remove(id).await.unwrap();
        fill(&leader, 300).await;
        sleep(Duration::from_secs(10)).await;
        group.network().heal();
        for _ in 0..2 {
            let stopped = timeout(Duration::from_secs(30), group.member(id).unwrap().stopped()).await;
            let reason = stopped.expect("it ends").expect("for a reason").to_string();
            assert!(reason.contains("removed from the group"), "{reason}");
            group.restart(id).await.unwrap();
        }
    }
}

/// One that votes, and has missed that all other voters were replaced, asks only those for their votes: it learns that it was removed from
/// whom it knows as a learner.
#[tokio::test(start_paused = true)]
async fn one_whose_voters_are_all_gone_learns_that_it_was_removed() {
    let (mut group, leader) = three().await;
    let id = add(&leader, true).await;
    group.join(id).await.unwrap();
    let joined = group.member(id).unwrap().clone();
    timeout(Duration::from_secs(30), joined.get("key".into())).await.unwrap().unwrap();
    let away = other(&group, &leader).id();
    group.network().isolate(away);
    promote(&leader, id).await;
    leader.member_remove(away).await.unwrap();
    leader.move_leader(id).await.unwrap();
    for gone in (1..=3).filter(|member| *member != away) {
        joined.member_remove(gone).await.unwrap();
        timeout(Duration::from_secs(30), group.member(gone).unwrap().stopped()).await.unwrap().unwrap();
    }
    group.network().heal();
    let stopped = timeout(Duration::from_secs(30), group.member(away).unwrap().stopped()).await;
    let reason = stopped.expect("it ends").expect("for a reason").to_string();
    assert!(reason.contains("removed from the group"), "{reason}");
}

/// States that can't be saved for now, as on a full disk or while another one arrives.
struct Unwilling {
    states: MemoryLog,
    tries: AtomicUsize,
}

#[async_trait]
impl Checkpoints for Unwilling {
    async fn load(&self) -> Result<Option<(Point, Machine)>, Error> {
        self.states.load().await
    }

    async fn empty(&self) -> Result<Machine, Error> {
        self.states.empty().await
    }

    async fn save(&self, _: Point, _: SnapshotGuard, _: bool) -> Result<(), Error> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        Err(Error::NoSpace("the disk is full".into()))
    }

    async fn receive(&self, point: Point, head: SnapshotHead) -> Result<Box<dyn Incoming>, Error> {
        self.states.receive(point, head).await
    }

    fn size(&self) -> u64 {
        self.states.size()
    }
}

/// A state that is due stays due if it can't be saved, which is no reason to do nothing but try.
#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_saved_is_tried_again_after_a_while() {
    let log = MemoryLog::new(&[1]);
    let states = Arc::new(Unwilling { states: log.clone(), tries: AtomicUsize::new(0) });
    let network = LocalNetwork::new(1);
    let packets = network.connect(1);
    let start = Start { id: 1, log: Box::new(log), states: states.clone(), transport: Arc::new(network), packets };
    let store = RaftStore::start(start, options()).await.unwrap();
    fill(&store, 300).await;
    let before = states.tries.load(Ordering::Relaxed);
    sleep(Duration::from_secs(10)).await;
    let tries = states.tries.load(Ordering::Relaxed) - before;
    assert!((9..=11).contains(&tries), "{tries} tries in 10 s");
    assert_eq!(store.get("key".into()).await.unwrap().unwrap().value, "299");
}
