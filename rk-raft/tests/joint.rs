//! Several changes of the members at once, through a joint configuration.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rk_raft::{LocalGroup, LocalNetwork, MemberChange, MemberId, Membership, MemoryLog, RaftOptions, RaftStore, Start};
use rk_store::{Cluster, ClusterError, Member, Store};
use tokio::time::{sleep, timeout};

fn ids(members: &[Member]) -> Vec<MemberId> {
    members.iter().map(|member| member.id).collect()
}

fn addition(port: u16, learner: bool) -> MemberChange {
    MemberChange::Add { peer_urls: vec![format!("http://127.0.0.1:{port}")], learner }
}

async fn leader(group: &LocalGroup) -> Arc<RaftStore> {
    group.member(group.leader().await).unwrap().clone()
}

/// Three voters and a learner that has all they have.
async fn three_and_a_learner() -> (LocalGroup, MemberId) {
    let mut group = LocalGroup::start(3, RaftOptions::default()).await.unwrap();
    let leads = leader(&group).await;
    leads.put("key".into(), "value".into()).await.unwrap();
    let learner = leads.member_add(vec!["http://127.0.0.1:9999".into()], true).await.unwrap().0.id;
    group.join(learner).await.unwrap();
    let joined = group.member(learner).unwrap();
    timeout(Duration::from_secs(30), joined.get("key".into())).await.unwrap().unwrap();
    (group, learner)
}

/// Makes changes as soon as the leader has heard that the learner has all.
async fn change(store: &RaftStore, changes: Vec<MemberChange>) -> Vec<Member> {
    for _ in 0..100 {
        match store.change_members(changes.clone()).await {
            Err(ClusterError::LearnerNotReady) => sleep(Duration::from_millis(50)).await,
            changed => return changed.unwrap(),
        }
    }
    panic!("the learner does not catch up");
}

/// What a member that was removed says when it has ended.
async fn see_end(store: &RaftStore) {
    let reason = timeout(Duration::from_secs(60), store.stopped()).await.expect("it ends").expect("for a reason");
    assert!(reason.to_string().contains("removed from the group"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_learner_takes_the_place_of_a_dead_member() {
    let (mut group, learner) = three_and_a_learner().await;
    let leads = leader(&group).await;
    let dead = (1..=3).find(|id| *id != leads.id()).unwrap();
    group.stop(dead);
    let changes = vec![MemberChange::Promote(learner), MemberChange::Remove(dead)];
    // Asked of one that does not lead.
    let members = change(group.member(learner).unwrap(), changes).await;
    assert!(!ids(&members).contains(&dead) && members.len() == 3);
    assert!(members.iter().all(|member| !member.is_learner), "{members:?}");
    // Two of the three are enough, the new one among them.
    let another = ids(&members).into_iter().find(|id| ![leads.id(), learner].contains(id)).unwrap();
    group.stop(another);
    leads.put("key".into(), "by two".into()).await.unwrap();
    group.restart(another).await.unwrap();
    group.restart(dead).await.unwrap();
    see_end(group.member(dead).unwrap()).await;
    assert_eq!(group.member(another).unwrap().get("key".into()).await.unwrap().unwrap().value, "by two");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_yet_to_start_takes_the_place_of_a_dead_one() {
    let mut group = LocalGroup::start(3, RaftOptions::default()).await.unwrap();
    let leads = leader(&group).await;
    leads.put("key".into(), "value".into()).await.unwrap();
    let dead = (1..=3).find(|id| *id != leads.id()).unwrap();
    group.stop(dead);
    let members = leads.change_members(vec![addition(9999, false), MemberChange::Remove(dead)]).await.unwrap();
    let new = ids(&members).into_iter().find(|id| *id > 3).expect("the new one is a member");
    assert_eq!(members.len(), 3);
    group.join(new).await.unwrap();
    let joined = group.member(new).unwrap().clone();
    let found = timeout(Duration::from_secs(30), joined.get("key".into())).await.unwrap().unwrap();
    assert_eq!(found.unwrap().value, "value");
    assert_eq!(joined.members(true).await.unwrap(), leads.members(true).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_leader_and_another_go_at_once() {
    let (group, learner) = three_and_a_learner().await;
    let leads = leader(&group).await;
    let other = (1..=3).find(|id| *id != leads.id()).unwrap();
    let changes = vec![MemberChange::Promote(learner), MemberChange::Remove(leads.id()), MemberChange::Remove(other)];
    let members = change(&leads, changes).await;
    assert_eq!(members.len(), 2);
    see_end(&leads).await;
    see_end(group.member(other).unwrap()).await;
    let stays = group.member(learner).unwrap();
    stays.put("key".into(), "by those who stay".into()).await.unwrap();
    assert_eq!(ids(&stays.members(true).await.unwrap()), ids(&members));
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_completed_is_refused_and_changes_nothing() {
    let (mut group, learner) = three_and_a_learner().await;
    let leads = leader(&group).await;
    let before = leads.members(true).await.unwrap();
    let own = leads.id();
    let all = || (1..=3).map(MemberChange::Remove).collect::<Vec<_>>();
    let cases = [
        ("no changes", vec![], "no changes of the members"),
        ("nobody stays", all(), "nobody would be left to vote"),
        ("a member twice", vec![MemberChange::Promote(learner), MemberChange::Remove(learner)], "twice at once"),
        ("one is unknown", vec![MemberChange::Promote(learner), MemberChange::Remove(77)], "member not found"),
        ("two learners", vec![addition(1, true), MemberChange::Remove(own)], "too many learner members"),
        ("no address", vec![MemberChange::Add { peer_urls: vec![], learner: false }], "URLs are invalid"),
        (
            "most are not started",
            vec![addition(1, false), addition(2, false), addition(3, false)],
            "not enough started",
        ),
    ];
    for (what, changes, wanted) in cases {
        let refused = leads.change_members(changes).await.expect_err(what).to_string();
        assert!(refused.contains(wanted), "{what}: {refused}");
    }
    // Those who would be left are down.
    let others: Vec<_> = (1..=3).filter(|id| *id != own).collect();
    group.stop(learner);
    sleep(Duration::from_secs(30)).await;
    let changes = vec![MemberChange::Remove(others[0]), MemberChange::Remove(others[1]), addition(1, false)];
    let refused = leads.change_members(changes).await;
    assert!(matches!(refused, Err(ClusterError::NotEnoughStarted | ClusterError::Unhealthy)), "{refused:?}");
    assert_eq!(leads.members(true).await.unwrap(), before);
    leads.put("key".into(), "as before".into()).await.unwrap();
}

/// Members on what their logs hold, in the midst of a change of three voters.
struct Midst {
    network: LocalNetwork,
    logs: Vec<MemoryLog>,
}

impl Midst {
    /// Of so many members, some of which are leaving.
    fn new(members: MemberId, leaving: &[MemberId]) -> Self {
        let mut membership = Membership::numbered(&(1..=members).collect::<Vec<_>>());
        membership.outgoing = BTreeSet::from([1, 2, 3]);
        membership.leaving = leaving.iter().copied().collect();
        let logs = (0..members).map(|_| MemoryLog::bootstrap(membership.clone())).collect();
        Self { network: LocalNetwork::new(1), logs }
    }

    async fn start(&self, id: MemberId) -> RaftStore {
        let log = self.logs[id as usize - 1].clone();
        let packets = self.network.connect(id);
        let transport = Arc::new(self.network.clone());
        let start = Start { id, log: Box::new(log.clone()), states: Arc::new(log), transport, packets };
        RaftStore::start(start, RaftOptions::default()).await.unwrap()
    }
}

/// Raft's library leaves a joint configuration only as a leader that applies an entry: whoever starts in one, and is elected in one, must
/// come out of it too. Neither the old voters nor the new ones decide alone until then.
#[tokio::test(start_paused = true)]
async fn members_that_start_in_a_joint_configuration_need_both_majorities_and_leave_it() {
    for (silent, other, third) in [(1, 4, 2), (2, 4, 1), (1, 3, 2), (2, 3, 4)] {
        let midst = Midst::new(4, &[3]);
        // Most of the new voters are too few of the old, or the other way round.
        let (one, two) = (midst.start(silent).await, midst.start(other).await);
        sleep(Duration::from_secs(20)).await;
        assert_eq!((one.leader(), two.leader()), (None, None), "{silent} and {other} are no majority");
        let last = midst.start(third).await;
        let stores = [one, two, last];
        let stays = stores.iter().find(|store| store.id() != 3).unwrap();
        timeout(Duration::from_secs(60), stays.put("key".into(), "value".into())).await.unwrap().unwrap();
        let until = sleep(Duration::from_secs(60));
        tokio::pin!(until);
        while !ids(&stays.members(false).await.unwrap()).eq(&[1, 2, 4]) {
            tokio::select! {
                () = &mut until => panic!("the joint configuration is not left"),
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
        for store in stores.iter().filter(|store| store.id() == 3) {
            see_end(store).await;
        }
        // It is left for good.
        drop(stores);
        let (one, two) = (midst.start(1).await, midst.start(2).await);
        timeout(Duration::from_secs(60), one.put("key".into(), "again".into())).await.unwrap().unwrap();
        assert_eq!(ids(&two.members(true).await.unwrap()), [1, 2, 4]);
        let refused = two.member_remove(3).await;
        assert!(matches!(refused, Err(ClusterError::MemberNotFound)), "{refused:?}");
    }
}

/// All old voters leave. One of them knows already that it is over, and says so to the others: they must not go on its word, for those who
/// stay may not know yet, and need their votes to learn it.
#[tokio::test(start_paused = true)]
async fn who_leaves_goes_on_until_those_who_stay_know() {
    let mut midst = Midst::new(6, &[1, 2, 3]);
    let mut over = Membership::numbered(&[4, 5, 6]);
    over.removed = BTreeSet::from([1, 2, 3]);
    midst.logs[0] = MemoryLog::bootstrap(over);
    let (one, two, three) = (midst.start(1).await, midst.start(2).await, midst.start(3).await);
    see_end(&one).await;
    for store in [&two, &three] {
        assert!(timeout(Duration::from_secs(60), store.stopped()).await.is_err(), "it has gone too early");
    }
    let four = midst.start(4).await;
    let _five = midst.start(5).await;
    timeout(Duration::from_secs(60), four.put("key".into(), "value".into())).await.unwrap().unwrap();
    see_end(&two).await;
    see_end(&three).await;
    assert_eq!(ids(&four.members(true).await.unwrap()), [4, 5, 6]);
}
