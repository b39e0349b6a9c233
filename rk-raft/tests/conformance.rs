//! The store's conformance suite on a group of three, through its leader and through a follower.

use std::{sync::Arc, time::Duration};

use rk_raft::{LocalGroup, RaftOptions, RaftStore};
use rk_store::{Store, testing};

/// A member of a new group of three; the group lives as long as the test.
async fn member(options: RaftOptions, leads: bool) -> Arc<RaftStore> {
    let group = LocalGroup::start(3, options).await.unwrap();
    let leader = group.leader().await;
    let member = group.members().find(|member| (member.id() == leader) == leads).unwrap().clone();
    std::mem::forget(group);
    member
}

async fn leader() -> Arc<dyn Store> {
    member(RaftOptions::default(), true).await
}

/// A follower in a group that makes snapshots all the time.
async fn follower() -> Arc<dyn Store> {
    let mut options = RaftOptions::default();
    options.snapshot_entries = 20;
    member(options, false).await
}

async fn alone() -> Arc<dyn Store> {
    let group = LocalGroup::start(1, RaftOptions::default()).await.unwrap();
    let store = group.member(1).unwrap().clone();
    std::mem::forget(group);
    store
}

rk_store::store_conformance!(through_the_leader, leader().await);
rk_store::store_conformance!(through_a_follower, follower().await);
rk_store::store_conformance!(a_group_of_one, alone().await);

#[test]
fn a_group_is_as_the_model() {
    testing::model::against_model(20, async || {
        let mut options = RaftOptions::default();
        // The clock is real here.
        options.tick = Duration::from_millis(2);
        options.snapshot_entries = 10;
        member(options, false).await as Arc<dyn Store>
    });
}
