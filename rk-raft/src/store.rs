//! A member as a [`Store`].

use std::sync::{Arc, Weak, atomic::Ordering::Relaxed};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{
    Alarm, Command, Error, HashKv, Lease, LeaseId, Outcome, Quota, RangeRequest, RangeResponse, Replica, Revision,
    SnapshotStream, Store, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream, is_read_only,
    planted::{Bug, is_planted},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use crate::{
    Checkpoints, MemberId, Packet, RaftLog, RaftOptions, Transport,
    log::{Point, Syncs},
    node::{Node, Parts, Proposal, Queues, Request},
    proposals::Reply,
    shared::Shared,
};

/// Requests that wait for the member's task.
const QUEUE: usize = 4096;

/// One member of a group, and through it the group, as a [`Store`] and a [`rk_store::Cluster`].
///
/// Reads are linearizable and writes durable as far as the members' logs are; both need a majority. Watches are served by the
/// member alone and go on without one. A request that gets no answer in time fails with [`Error::NoLeader`] if it was sent to nobody, or
/// else with [`Error::Timeout`]: then a write may yet take effect.
pub struct RaftStore {
    pub(crate) id: MemberId,
    pub(crate) replica: Arc<Replica>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) proposals: mpsc::Sender<Proposal>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: RaftOptions,
    pub(crate) random: Mutex<StdRng>,
    pub(crate) syncs: Syncs,
    /// It ends with the member.
    pub(crate) transport: Weak<dyn Transport>,
    task: AbortHandle,
    stopped: watch::Receiver<Option<Error>>,
}

/// What a member starts on.
pub struct Start {
    /// The member's id.
    pub id: MemberId,
    /// Its log.
    pub log: Box<dyn RaftLog>,
    /// Its states. The newest one says who belongs to the group; a member without one waits until the group's leader,
    /// which was told of it, sends one.
    pub states: Arc<dyn Checkpoints>,
    /// How it reaches other members.
    pub transport: Arc<dyn Transport>,
    /// What they send it.
    pub packets: mpsc::Receiver<Packet>,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RaftStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStore").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.stop();
    }
}

fn stopped() -> Error {
    Error::Unavailable("the member has stopped".into())
}

impl RaftStore {
    /// Starts a member.
    ///
    /// # Errors
    /// Those of the log and the states, mostly [`Error::Corrupt`]; [`Error::Unavailable`] if the options make no sense.
    pub async fn start(start: Start, options: RaftOptions) -> Result<Self, Error> {
        let Start { id, mut log, states, transport, packets } = start;
        let (point, machine) = match states.load().await? {
            Some(newest) => newest,
            None => (Point::default(), states.empty().await?),
        };
        let recovered = log.load().await?;
        let (syncs, transport_) = (log.syncs(), Arc::downgrade(&transport));
        let replica = Replica::with_clock(machine, options.watch_buffer, options.clock.clone());
        let shared = Arc::new(Shared::new(point.membership.clone(), point.index, options.clock.clone()));
        // Another sequence than that of the election timeouts, and another one in each life.
        let seed = !options.seed.wrapping_add(id) ^ recovered.life.rotate_left(32);
        let (replica_, shared_, options_) = (replica.clone(), shared.clone(), options.clone());
        let parts = Parts {
            id,
            point,
            recovered,
            log,
            states,
            transport,
            options: options_,
            replica: replica_,
            shared: shared_,
        };
        let (node, events) = Node::new(parts)?;
        let (requests, requested) = mpsc::channel(QUEUE);
        let (proposals, proposed) = mpsc::channel(QUEUE);
        let queues = Queues { requests: requested, proposals: proposed, packets };
        let for_the_end = (replica.clone(), shared.clone());
        let (end, stopped) = watch::channel(None);
        let task = tokio::spawn(async move {
            let error = node.run(queues, events).await;
            tracing::warn!(member = id, %error, "the member has stopped");
            for_the_end.1.stop();
            for_the_end.0.close("the member has stopped");
            end.send_replace(Some(error));
        });
        Ok(Self {
            id,
            replica,
            requests,
            proposals,
            shared,
            options,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            syncs,
            transport: transport_,
            task: task.abort_handle(),
            stopped,
        })
    }

    /// This member's id.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The member that this one takes for the leader now.
    pub fn leader(&self) -> Option<MemberId> {
        *self.shared.leader.borrow()
    }

    /// Stops the member at once, wherever it is, as a crash would. Later requests fail.
    pub fn stop(&self) {
        self.shared.stop();
        self.task.abort();
        self.replica.close("the member has stopped");
    }

    /// Waits until the member has stopped: by [`RaftStore::stop`], which gives `None`, or by itself, with the reason: its log
    /// failed, or it was removed from the group.
    pub async fn stopped(&self) -> Option<Error> {
        let mut stopped = self.stopped.clone();
        let reason = stopped.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone())
    }

    /// Why the member does not work any more. It is about to say so, if it has not yet.
    async fn gone(&self) -> Error {
        self.stopped().await.unwrap_or_else(stopped)
    }

    pub(crate) async fn ask<T, E: From<Error>>(&self, request: impl FnOnce(Reply<T, E>) -> Request) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(request(reply)).await.is_ok()
            && let Ok(result) = answer.await
        {
            return result;
        }
        Err(self.gone().await.into())
    }

    pub(crate) async fn propose<T, E: From<Error>>(
        &self,
        proposal: impl FnOnce(Reply<T, E>) -> Proposal,
    ) -> Result<T, E> {
        if let Some(reason) = self.shared.no_space() {
            return Err(Error::NoSpace(reason).into());
        }
        let (reply, answer) = oneshot::channel();
        if self.proposals.send(proposal(reply)).await.is_ok()
            && let Ok(result) = answer.await
        {
            return result;
        }
        Err(self.gone().await.into())
    }

    async fn command(&self, command: Command) -> Result<Outcome, Error> {
        let quota = Quota { bytes: self.options.quota_bytes, member: self.id };
        let propose = |command| self.propose(|reply| Proposal::Command(command, reply));
        let _pending = self.shared.pending();
        let answer = quota.propose(&self.replica, command, propose).await;
        if matches!(answer, Err(Error::Timeout | Error::NoLeader | Error::TooManyRequests | Error::Unavailable(_))) {
            self.shared.proposals_failed.fetch_add(1, Relaxed);
        }
        answer
    }

    /// Returns once this member has applied all that was acknowledged before the call.
    pub(crate) async fn barrier(&self) -> Result<(), Error> {
        if self.shared.is_up_to_date() || is_planted(Bug::StaleReads) {
            return Ok(());
        }
        self.ask(Request::Barrier).await
    }

    fn choose_lease_id(&self) -> LeaseId {
        self.random.lock().random_range(1..=LeaseId::MAX)
    }
}

#[async_trait]
impl Store for RaftStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        if !request.serializable {
            self.barrier().await?;
        }
        self.replica.range(&request)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.barrier().await?;
        Ok(self.replica.machine().revision())
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        self.options.limits.check(&txn)?;
        if is_read_only(&txn) {
            self.barrier().await?;
            return self.replica.read_txn(&txn);
        }
        match self.command(Command::Txn(txn)).await? {
            Outcome::Txn(response) => Ok(response),
            _ => Err(Error::Invalid("a txn had no answer".into())),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error> {
        // The next revision is the one behind all that anyone was told of.
        if request.start_revision == 0 {
            self.barrier().await?;
        }
        self.replica.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.command(Command::Compact(revision)).await?;
        self.replica.sweep_all().await
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error> {
        let id = if id == 0 { self.choose_lease_id() } else { id };
        self.command(Command::LeaseGrant { id, ttl }).await?;
        Ok(Lease::granted(id, ttl))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.command(Command::LeaseRevoke { id }).await.map(drop)
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        let ttl = self.ask(|reply| Request::Lease { id, renew: true, reply }).await?;
        Ok(Lease { id, granted_ttl: ttl, ttl, keys: Vec::new() })
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<Lease, Error> {
        let ttl = self.ask(|reply| Request::Lease { id, renew: false, reply }).await?;
        self.barrier().await?;
        Ok(Lease { ttl, ..self.replica.lease_time_to_live(id, keys)? })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.barrier().await?;
        Ok(self.replica.leases())
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Error> {
        self.replica.hash_kv(revision).await
    }

    async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        Ok(self.replica.snapshot_stream())
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        self.barrier().await?;
        Ok(self.replica.alarms())
    }

    async fn activate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.command(Command::Alarm { alarm, active: true }).await.map(drop)
    }

    async fn deactivate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.command(Command::Alarm { alarm, active: false }).await.map(drop)
    }

    async fn defragment(&self) -> Result<(), Error> {
        self.replica.defragment()?;
        self.ask(Request::Defragment).await
    }

    /// The numbers of this member, which may be behind those of others.
    async fn status(&self) -> Result<StoreStatus, Error> {
        let mut status = self.replica.status();
        status.disk_size += self.shared.log_size();
        Ok(status)
    }
}
