//! The cluster of a store that stands alone.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Cluster, ClusterError, Member, MemberId, MemberStatus, Store};

/// A cluster of one: its only member leads, and can't be removed.
pub struct Standalone {
    cluster_id: u64,
    member: Mutex<Member>,
    store: Arc<dyn Store>,
    leader: watch::Sender<Option<MemberId>>,
}

impl std::fmt::Debug for Standalone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standalone").field("cluster_id", &self.cluster_id).field("member", &self.member).finish()
    }
}

impl Standalone {
    /// The cluster of this store, whose only member is this one.
    pub fn new(cluster_id: u64, member: Member, store: Arc<dyn Store>) -> Self {
        let leader = watch::Sender::new(Some(member.id));
        Self { cluster_id, member: Mutex::new(member), store, leader }
    }

    fn known(&self, id: MemberId) -> Result<(), ClusterError> {
        if id == self.member_id() { Ok(()) } else { Err(ClusterError::MemberNotFound) }
    }
}

#[async_trait]
impl Cluster for Standalone {
    fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    fn member_id(&self) -> MemberId {
        self.member.lock().id
    }

    fn term(&self) -> u64 {
        1
    }

    fn leader(&self) -> watch::Receiver<Option<MemberId>> {
        self.leader.subscribe()
    }

    async fn member_status(&self) -> Result<MemberStatus, ClusterError> {
        let status = self.store.status().await?;
        Ok(MemberStatus {
            leader: Some(self.member_id()),
            term: self.term(),
            index: status.revision,
            applied: status.revision,
            size: status.disk_size,
            size_in_use: status.disk_size,
            is_learner: false,
            alarms: self.store.alarms().await?,
            errors: Vec::new(),
        })
    }

    async fn members(&self, _linearizable: bool) -> Result<Vec<Member>, ClusterError> {
        Ok(vec![self.member.lock().clone()])
    }

    async fn member_add(&self, _peer_urls: Vec<String>, _learner: bool) -> Result<(Member, Vec<Member>), ClusterError> {
        Err(ClusterError::NotSupported("a store that stands alone has no other members"))
    }

    async fn member_remove(&self, id: MemberId) -> Result<Vec<Member>, ClusterError> {
        self.known(id)?;
        Err(ClusterError::NotEnoughStarted)
    }

    async fn member_update(&self, id: MemberId, peer_urls: Vec<String>) -> Result<Vec<Member>, ClusterError> {
        self.known(id)?;
        let mut member = self.member.lock();
        member.peer_urls = peer_urls;
        Ok(vec![member.clone()])
    }

    async fn member_promote(&self, id: MemberId) -> Result<Vec<Member>, ClusterError> {
        self.known(id)?;
        Err(ClusterError::NotLearner)
    }

    async fn move_leader(&self, to: MemberId) -> Result<(), ClusterError> {
        if to == self.member_id() { Ok(()) } else { Err(ClusterError::BadTransferee) }
    }
}
