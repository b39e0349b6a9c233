//! A member as a [`Store`].

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_store::{
    Alarm, Command, Error, HashKv, Lease, LeaseId, Machine, MemoryEngine, Outcome, RangeRequest, RangeResponse,
    Replica, Revision, SnapshotStream, Store, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream, is_read_only,
    validate,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use crate::{
    MemberId, Packet, RaftLog, RaftOptions, Transport,
    node::{Node, Request},
    snapshot,
    waiting::Reply,
};

/// Requests that wait for the member's task.
const QUEUE: usize = 1024;

/// One member of a group, and through it the group, as a [`Store`].
///
/// Reads are linearizable and writes durable as far as the members' logs are; both need a majority. Watches are served by the
/// member alone and go on without one. A request that gets no answer in time fails with [`Error::Unavailable`]; a write
/// that fails so may yet take effect.
#[derive(Debug)]
pub struct RaftStore {
    id: MemberId,
    replica: Arc<Replica>,
    requests: mpsc::Sender<Request>,
    leader: watch::Receiver<Option<MemberId>>,
    task: AbortHandle,
    lease_ids: Mutex<StdRng>,
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.stop();
    }
}

impl RaftStore {
    /// Starts a member on its log, which also says who belongs to the group.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log can't be read, or its snapshot or the options make no sense.
    pub fn start(
        id: MemberId,
        log: impl RaftLog,
        transport: Arc<dyn Transport>,
        packets: mpsc::Receiver<Packet>,
        options: RaftOptions,
    ) -> Result<Self, Error> {
        let machine = match log.newest_snapshot() {
            Some(newest) => snapshot::decode(newest.get_data().to_vec().into())?,
            None => Machine::new(Arc::new(MemoryEngine::new()))?,
        };
        let replica = Replica::new(machine, options.watch_buffer);
        let (requests, queue) = mpsc::channel(QUEUE);
        let (leader_changes, leader) = watch::channel(None);
        // Another sequence than that of the election timeouts.
        let lease_ids = Mutex::new(StdRng::seed_from_u64(!options.seed.wrapping_add(id)));
        let node = Node::new(id, log, replica.clone(), transport, options, leader_changes)?;
        let for_the_end = replica.clone();
        let task = tokio::spawn(async move {
            let error = node.run(queue, packets).await;
            tracing::warn!(member = id, %error, "the member has stopped");
            for_the_end.close("the member has stopped");
        });
        Ok(Self { id, replica, requests, leader, task: task.abort_handle(), lease_ids })
    }

    /// This member's number.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The member that this one takes for the leader now.
    pub fn leader(&self) -> Option<MemberId> {
        *self.leader.borrow()
    }

    /// Stops the member at once, wherever it is, as a crash would. Later requests fail.
    pub fn stop(&self) {
        self.task.abort();
        self.replica.close("the member has stopped");
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let stopped = || Error::Unavailable("the member has stopped".into());
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        self.ask(|reply| Request::Propose(command, reply)).await
    }

    /// Returns once this member has applied all that was acknowledged before the call.
    async fn barrier(&self) -> Result<(), Error> {
        self.ask(Request::Barrier).await
    }

    fn choose_lease_id(&self) -> LeaseId {
        self.lease_ids.lock().random_range(1..=LeaseId::MAX)
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

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        if is_read_only(&txn) {
            self.barrier().await?;
            return self.replica.read_txn(&txn);
        }
        validate(&txn)?;
        match self.propose(Command::Txn(txn)).await? {
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
        self.propose(Command::Compact(revision)).await?;
        self.replica.sweep_all().await
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<Lease, Error> {
        let id = if id == 0 { self.choose_lease_id() } else { id };
        self.propose(Command::LeaseGrant { id, ttl }).await?;
        Ok(Lease::granted(id, ttl))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        self.propose(Command::LeaseRevoke { id }).await.map(drop)
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
        self.propose(Command::Alarm { alarm, active: true }).await.map(drop)
    }

    async fn deactivate_alarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.propose(Command::Alarm { alarm, active: false }).await.map(drop)
    }

    async fn defragment(&self) -> Result<(), Error> {
        self.replica.defragment()
    }

    /// The numbers of this member, which may be behind those of others.
    async fn status(&self) -> Result<StoreStatus, Error> {
        Ok(self.replica.status())
    }
}
