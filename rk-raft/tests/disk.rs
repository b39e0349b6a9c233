//! Members on disk: what they have acknowledged is there after a restart, and new members get the whole state.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use rk_raft::{
    Identity, LocalNetwork, MemberDir, MemberDirOptions, MemberId, Membership, RaftOptions, RaftStore, Start,
};
use rk_store::{Cluster, ClusterError, Error, KeyRange, RangeRequest, SnapshotStream, Store, testing};
use tempfile::TempDir;

/// Members that run in this process, each in a folder of its own.
struct Group {
    home: TempDir,
    network: LocalNetwork,
    options: RaftOptions,
    members: BTreeMap<MemberId, Arc<RaftStore>>,
}

impl Group {
    async fn new(size: usize) -> Self {
        Self::from_backup(size, None).await
    }

    /// A new group whose members all begin with what a backup holds.
    async fn from_backup(size: usize, backup: Option<SnapshotStream>) -> Self {
        let backup: Option<Vec<_>> = match backup {
            Some(backup) => Some(backup.try_collect().await.unwrap()),
            None => None,
        };
        let mut options = RaftOptions::default();
        options.tick = Duration::from_millis(10);
        (options.snapshot_entries, options.catch_up_entries) = (100, 50);
        let home = tempfile::tempdir().unwrap();
        let mut group = Self { home, network: LocalNetwork::new(1), options, members: BTreeMap::new() };
        let members: Vec<_> =
            (0..size).map(|i| (format!("m{i}"), vec![format!("http://127.0.0.1:{}", 7000 + i)])).collect();
        let membership = Membership::bootstrap(&members, "test").unwrap();
        for id in membership.members.keys().copied() {
            let dir = group.dir(id).await;
            let copy = backup.clone().map(|pieces| futures::stream::iter(pieces.into_iter().map(Ok)).boxed());
            dir.bootstrap(id, membership.clone(), copy).await.unwrap();
            group.start(id, dir).await;
        }
        group
    }

    async fn dir(&self, id: MemberId) -> MemberDir {
        // A member that was stopped gives its folder up when its last write is done.
        for _ in 0..200 {
            match MemberDir::open(self.home.path().join(id.to_string()), MemberDirOptions::default()).await {
                Err(Error::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                opened => return opened.unwrap(),
            }
        }
        panic!("the folder of {id} stays in use");
    }

    async fn start(&mut self, id: MemberId, dir: MemberDir) {
        let packets = self.network.connect(id);
        let transport = Arc::new(self.network.clone());
        let start = Start { id, log: Box::new(dir.clone()), states: Arc::new(dir), transport, packets };
        self.members.insert(id, Arc::new(RaftStore::start(start, self.options.clone()).await.unwrap()));
    }

    fn stop(&mut self, id: MemberId) {
        self.members.remove(&id).unwrap().stop();
    }

    async fn restart(&mut self, id: MemberId) {
        let dir = self.dir(id).await;
        self.start(id, dir).await;
    }

    /// Stops all members and starts them on what they have on disk.
    async fn restart_all(&mut self) {
        let ids: Vec<_> = self.members.keys().copied().collect();
        ids.iter().for_each(|id| self.stop(*id));
        for id in ids {
            self.restart(id).await;
        }
    }

    fn any(&self) -> Arc<RaftStore> {
        self.members.values().next().unwrap().clone()
    }

    async fn leader(&self) -> Arc<RaftStore> {
        let mut leader = Cluster::leader(&*self.any());
        let id = leader.wait_for(Option::is_some).await.unwrap().unwrap();
        self.members.get(&id).cloned().unwrap_or_else(|| panic!("{id} does not run"))
    }
}

async fn fill(store: &RaftStore, from: usize, to: usize) {
    for i in from..to {
        store.put(format!("key-{}", i % 37).into(), format!("{i}").repeat(20).into()).await.unwrap();
    }
}

async fn all(store: &RaftStore) -> rk_store::RangeResponse {
    store.range(RangeRequest::new(KeyRange::all())).await.unwrap()
}

#[tokio::test]
async fn all_is_there_after_all_were_stopped() {
    let mut group = Group::new(3).await;
    let mut written = 0;
    for round in 0..3 {
        let leader = group.leader().await;
        leader.lease_grant(100 + round, 600).await.unwrap();
        fill(&leader, written, written + 150).await;
        written += 150;
        let before = all(&leader).await;
        drop(leader);
        group.restart_all().await;
        assert_eq!(all(&group.any()).await, before);
        assert_eq!(group.any().leases().await.unwrap().len() as i64, round + 1);
    }
}

#[tokio::test]
async fn a_group_is_durable() {
    let mut group = Group::new(3).await;
    let leader = group.leader().await;
    let reopen = async |old| {
        drop(old);
        group.restart_all().await;
        group.leader().await as Arc<dyn Store>
    };
    testing::store::g06_durability(leader, reopen).await;
}

#[tokio::test]
async fn a_group_begins_with_a_backup() {
    let group = Group::new(3).await;
    let mut restored = None;
    let restore = async |backup| {
        let restored = restored.insert(Group::from_backup(3, Some(backup)).await);
        // What it took from the backup is on disk.
        restored.restart_all().await;
        restored.leader().await as Arc<dyn Store>
    };
    testing::store::g19_snapshots_restore(group.leader().await, restore).await;
    // All of its members hold the same.
    let restored = restored.unwrap();
    let leader = restored.leader().await;
    let hash = leader.hash_kv(0).await.unwrap();
    for member in restored.members.values() {
        assert_eq!(all(member).await.kvs, all(&leader).await.kvs);
        assert_eq!(member.hash_kv(0).await.unwrap(), hash);
    }
}

#[tokio::test]
async fn a_group_of_one_grows_member_by_member_and_loses_its_first() {
    let mut group = Group::new(1).await;
    let first = group.any();
    first.publish("first", &["http://127.0.0.1:1".into()]).await.unwrap();
    fill(&first, 0, 300).await;
    for (i, learner) in [true, false].into_iter().enumerate() {
        let (member, members) =
            first.member_add(vec![format!("http://127.0.0.1:{}", 8000 + i)], learner).await.unwrap();
        assert_eq!(members.len(), i + 2);
        let dir = group.dir(member.id).await;
        dir.join(Identity { cluster_id: first.cluster_id(), member_id: member.id }).await.unwrap();
        group.start(member.id, dir).await;
        let joined = group.members[&member.id].clone();
        joined.publish(&format!("new-{i}"), &[]).await.unwrap();
        assert_eq!(all(&joined).await, all(&first).await);
        if learner {
            let refused = first.move_leader(member.id).await;
            assert!(matches!(refused, Err(ClusterError::BadTransferee)), "a learner never leads: {refused:?}");
            let promoted = first.member_promote(member.id).await.unwrap();
            assert!(promoted.iter().all(|member| !member.is_learner));
        }
        // It has its own copy, which it starts from.
        group.stop(member.id);
        group.restart(member.id).await;
        assert_eq!(all(&group.members[&member.id]).await, all(&first).await);
    }
    // The last one was just started again; only once it is heard of is the group sound enough for the change.
    let left = loop {
        match first.member_remove(first.id()).await {
            Err(ClusterError::Unhealthy) => tokio::time::sleep(Duration::from_millis(50)).await,
            left => break left.unwrap(),
        }
    };
    assert_eq!(left.len(), 2);
    let reason = tokio::time::timeout(Duration::from_secs(10), first.stopped()).await.unwrap().unwrap();
    assert!(reason.to_string().contains("removed"), "{reason}");
    let removed = first.id();
    drop(first);
    group.stop(removed);
    let leader = group.leader().await;
    fill(&leader, 300, 350).await;
    let refused = leader.member_remove(removed).await;
    assert!(matches!(refused, Err(ClusterError::MemberNotFound)), "{refused:?}");
}

#[tokio::test]
async fn one_that_is_left_goes_on_as_a_new_group() {
    let mut group = Group::new(3).await;
    let leader = group.leader().await;
    fill(&leader, 0, 130).await;
    let (id, old, before) = (leader.id(), leader.cluster_id(), all(&leader).await);
    drop(leader);
    let ids: Vec<_> = group.members.keys().copied().collect();
    ids.into_iter().for_each(|id| group.stop(id));
    let dir = group.dir(id).await;
    let refused = dir.bootstrap(7, Membership::numbered(&[7]), None).await.unwrap_err();
    assert!(refused.to_string().contains("holds the data of the member"), "{refused}");
    dir.force_new_cluster().await.unwrap();
    assert_ne!(dir.identity().unwrap().cluster_id, old);
    group.start(id, dir).await;
    let alone = group.any();
    // What was committed without this member's knowing may be gone; it knew of all but the last few.
    let after = all(&alone).await;
    assert!(after.revision + 5 > before.revision, "{} of {}", after.revision, before.revision);
    assert_eq!(alone.members(true).await.unwrap().len(), 1);
    fill(&alone, 0, 10).await;
    drop(alone);
    group.stop(id);
    group.restart(id).await;
    assert!(all(&group.any()).await.revision >= after.revision + 10);
}
