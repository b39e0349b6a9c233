//! A member as a [`Cluster`].

use std::sync::atomic::Ordering::Relaxed;

use async_trait::async_trait;
use rand::RngExt;
use rk_store::{Cluster, ClusterError, Counts, Error, Member, MemberId, MemberStatus};
use tokio::{sync::watch, time::timeout};

use crate::{
    RaftStore,
    membership::{Change, check_urls, member_id},
    node::{Proposal, Request, is_removed},
};

/// One of the changes that [`RaftStore::change_members`] makes together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberChange {
    /// A new member that others reach at these URLs.
    Add {
        /// Its peer URLs.
        peer_urls: Vec<String>,
        /// Whether it is to be a learner.
        learner: bool,
    },
    /// A learner becomes a voter.
    Promote(MemberId),
    /// A member, perhaps one that is dead, is removed.
    Remove(MemberId),
}

impl RaftStore {
    /// Changes several members at once, by joint consensus: all of it takes place or nothing. A dead member is replaced in one step, so
    /// that the group is never smaller for it: by a learner that has caught up,
    /// `[Promote(learner), Remove(dead)]`, or by a member that is yet to start, `[Add { .. }, Remove(dead)]`.
    ///
    /// Answers with the members once the change is complete and those removed are needed no more; until then they are
    /// members and must go on. No other change is made meanwhile.
    ///
    /// # Errors
    /// Those of [`Cluster::member_add`], [`Cluster::member_promote`] and [`Cluster::member_remove`]. [`ClusterError::NotEnoughStarted`] and
    /// [`ClusterError::Unhealthy`] too if less than a majority of the new voters have started, or are heard of, as then the
    /// change could not be completed. [`ClusterError::Store`] with [`Error::Invalid`] for no changes, for two of one member, or if nobody
    /// would be left to vote. [`ClusterError::TimedOut`]: the change may yet be completed, or not have been begun.
    pub async fn change_members(&self, changes: Vec<MemberChange>) -> Result<Vec<Member>, ClusterError> {
        let mut parts = Vec::with_capacity(changes.len());
        for change in changes {
            parts.push(match change {
                MemberChange::Add { peer_urls, learner } => Change::Add(self.new_member(peer_urls, learner)?),
                MemberChange::Promote(id) => Change::Promote(id),
                MemberChange::Remove(id) => Change::Remove(id),
            });
        }
        let change = match parts.len() {
            0 => return Err(ClusterError::Store(Error::Invalid("no changes of the members are given".into()))),
            1 => parts.remove(0),
            _ => Change::Several(parts),
        };
        self.removing(change).await
    }

    fn new_member(&self, peer_urls: Vec<String>, is_learner: bool) -> Result<Member, ClusterError> {
        check_urls(&peer_urls)?;
        let salt: u64 = self.random.lock().random();
        let id = member_id(&peer_urls, "", &salt.to_be_bytes());
        Ok(Member { id, peer_urls, is_learner, ..Member::default() })
    }

    /// Makes a change that removes this member, perhaps: the others may have made it before they could say so, and before it has come to
    /// this member.
    async fn removing(&self, change: Change) -> Result<Vec<Member>, ClusterError> {
        let this = change.parts().contains(&Change::Remove(self.id));
        match self.change(change.clone()).await {
            Err(ClusterError::Store(reason)) if this && is_removed(&reason) => {
                let mut left = self.shared.membership.read().clone();
                if !left.is_joint() && left.members.contains_key(&self.id) {
                    left.apply(&change).map_err(|_| ClusterError::TimedOut)?;
                }
                left.leave_joint();
                Ok(left.list())
            }
            result => result,
        }
    }

    async fn change(&self, change: Change) -> Result<Vec<Member>, ClusterError> {
        self.propose(|reply| Proposal::Change(change, reply)).await
    }

    /// Tells the group this member's name and where clients reach it: what a member does when it has started, and again when
    /// either has changed.
    pub async fn publish(&self, name: &str, client_urls: &[String]) -> Result<(), ClusterError> {
        self.change(Change::Publish(self.id, name.to_owned(), client_urls.to_vec())).await.map(drop)
    }
}

/// Time before a member that could not be told of is told of again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// Tells the group a member's name and client URLs, as soon as there is a group to tell, until it stops.
pub(crate) fn keep_published(
    store: &RaftStore,
    name: String,
    client_urls: Vec<String>,
) -> impl Future<Output = ()> + use<> {
    // The store itself ends with its last handle.
    let (id, proposals, shared) = (store.id, store.proposals.clone(), store.shared.clone());
    async move {
        let published = |member: &Member| member.name == name && member.client_urls == client_urls;
        while !shared.membership.read().members.get(&id).is_some_and(published) {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let change = Change::Publish(id, name.clone(), client_urls.clone());
            if proposals.send(Proposal::Change(change, reply)).await.is_err() {
                return;
            }
            if !matches!(answer.await, Ok(Ok(_))) {
                tracing::debug!(member = id, "the group does not know this member's name yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[async_trait]
impl Cluster for RaftStore {
    fn cluster_id(&self) -> u64 {
        self.shared.membership.read().cluster_id
    }

    fn member_id(&self) -> MemberId {
        self.id
    }

    fn term(&self) -> u64 {
        self.shared.term()
    }

    fn leader(&self) -> watch::Receiver<Option<MemberId>> {
        self.shared.leader.subscribe()
    }

    fn is_learner(&self) -> bool {
        self.shared.membership.read().members.get(&self.id).is_some_and(|member| member.is_learner)
    }

    fn counts(&self) -> Counts {
        let shared = &self.shared;
        let mut counts = Counts::default();
        counts.leader_changes = shared.leader_changes.load(Relaxed);
        counts.proposals_pending = shared.proposals_pending.load(Relaxed);
        counts.proposals_failed = shared.proposals_failed.load(Relaxed);
        counts.late_heartbeats = shared.late_heartbeats.load(Relaxed);
        counts.slow_applies = shared.slow_applies.load(Relaxed);
        counts.slow_reads = shared.slow_reads.load(Relaxed);
        counts.failed_reads = shared.failed_reads.load(Relaxed);
        (counts.log_syncs, counts.state_syncs) = (self.syncs.log.counts(), self.syncs.states.counts());
        counts.traffic = self.transport.upgrade().map(|transport| transport.traffic()).unwrap_or_default();
        counts
    }

    async fn member_status(&self) -> Result<MemberStatus, ClusterError> {
        let leader = RaftStore::leader(self);
        let mut errors = Vec::new();
        if leader.is_none() {
            errors.push(ClusterError::NoLeader.to_string());
        }
        errors.extend(self.shared.no_space());
        let status = self.replica.status();
        let is_learner = self.shared.membership.read().members.get(&self.id).is_some_and(|member| member.is_learner);
        Ok(MemberStatus {
            leader,
            term: self.shared.term(),
            index: self.shared.committed(),
            applied: self.shared.applied(),
            size: status.disk_size + self.shared.log_size(),
            size_in_use: status.size_in_use,
            is_learner,
            alarms: self.replica.alarms(),
            errors,
        })
    }

    async fn members(&self, linearizable: bool) -> Result<Vec<Member>, ClusterError> {
        if linearizable {
            self.barrier().await?;
        }
        Ok(self.shared.membership.read().list())
    }

    async fn member_add(&self, peer_urls: Vec<String>, learner: bool) -> Result<(Member, Vec<Member>), ClusterError> {
        let member = self.new_member(peer_urls, learner)?;
        let members = self.change(Change::Add(member.clone())).await?;
        Ok((member, members))
    }

    async fn member_remove(&self, id: MemberId) -> Result<Vec<Member>, ClusterError> {
        self.removing(Change::Remove(id)).await
    }

    async fn member_update(&self, id: MemberId, peer_urls: Vec<String>) -> Result<Vec<Member>, ClusterError> {
        check_urls(&peer_urls)?;
        self.change(Change::Update(id, peer_urls)).await
    }

    async fn member_promote(&self, id: MemberId) -> Result<Vec<Member>, ClusterError> {
        self.change(Change::Promote(id)).await
    }

    async fn move_leader(&self, to: MemberId) -> Result<(), ClusterError> {
        let mut leader = self.shared.leader.subscribe();
        let deadline = self.options.clock.now() + self.options.request_timeout;
        // A member that was told too early that it may lead ignores it, and raft gives up after an election timeout: so it
        // is told again.
        let patience = self.options.tick * (self.options.election_ticks as u32 + 1);
        while self.options.clock.now() < deadline {
            match self.ask(|reply| Request::Transfer { to, reply }).await {
                Err(ClusterError::NotLeader) if *leader.borrow() == Some(to) => return Ok(()),
                // On its way.
                Err(ClusterError::NotLeader) if leader.borrow().is_none() => {}
                result => result?,
            }
            let led = leader.wait_for(|leader| *leader == Some(to));
            if let Ok(led) = timeout(patience, led).await {
                return led
                    .map(drop)
                    .map_err(|_| ClusterError::Store(Error::Unavailable("the member has stopped".into())));
            }
        }
        Err(ClusterError::TimedOut)
    }
}
