//! Where the cluster's state is: a durable store of its own, or the members of a raft group that this process has.

use std::{path::Path, sync::Arc, time::Duration};

use rk_api::server::pki::{Pki, Wanted};
use rk_raft::{Initial, MemberConfig, PeerListener, PeerTls, RaftStore};
use rk_store::{
    AutoCompaction, Cluster as _, ClusterError as MemberError, DurableOptions, DurableStore, KeyRange, RangeRequest,
    Store, auto_compact,
};
use tokio::task::JoinSet;

use super::{Addresses, ClusterError, form::Group};
use crate::display::Display;

/// The port of raft members, as etcd's.
const PEER_PORT: u16 = 2380;
/// Pause between looks at a group that has no majority yet.
const RETRY: Duration = Duration::from_millis(200);
/// Past states that can be read and watches resumed from: kube-apiserver's `--etcd-compaction-interval`.
const HISTORY: Duration = Duration::from_secs(5 * 60);
/// How long a leader that ends tries to hand its leadership over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// The stores of this process' servers.
pub(super) enum Stores {
    /// Of one server alone.
    Alone(Arc<DurableStore>),
    /// Of servers in a group, each through a member of its own.
    Group(Vec<Arc<RaftStore>>),
}

impl Stores {
    /// The durable store of a data folder; the folder is this process's alone from then on.
    pub(super) async fn alone(data_dir: &Path) -> Result<Self, ClusterError> {
        Ok(Self::Alone(Arc::new(DurableStore::open(data_dir.join("store"), DurableOptions::default()).await?)))
    }

    /// Opens this process' members and waits until the group answers.
    pub(super) async fn group(
        group: &Group,
        names: &[String],
        data_dir: &Path,
        addresses: &Addresses,
        display: &Display,
    ) -> Result<Self, ClusterError> {
        // An authority of its own: a certificate for users of the API must not open the store.
        let pki = Pki::open(&data_dir.join(super::servers::PEER_PKI))?;
        let named = |(i, name): (u16, &String)| (name.clone(), vec![url(addresses.node(i))]);
        let first: Vec<_> = (0..).zip(names).map(named).collect();
        let mut members = Vec::new();
        for (i, (name, urls)) in (0..).zip(&first) {
            let address = addresses.node(i);
            let listener = PeerListener::bind(&[(address, PEER_PORT).into()]).await?;
            let initial = match group.peers.as_slice() {
                [] => Initial::New { members: first.clone(), token: pki.ca().to_owned(), backup: None },
                peers => Initial::Join { peers: peers.to_vec() },
            };
            let dir = data_dir.join("raft").join(name);
            let mut config = MemberConfig::new(dir, name, urls.clone(), listener, initial);
            config.client_urls = vec![format!("https://{address}:{}", super::servers::SERVER_PORT)];
            let peer = pki.identity(name, &Wanted::peer(name, [address.to_string()]))?;
            config.tls = Some(PeerTls::new(peer.certificate.into(), peer.key.into(), pki.ca().into())?);
            // etcd's times.
            config.options.tick = Duration::from_millis(100);
            config.options.heartbeat_ticks = 1;
            config.options.seed = rand::random();
            members.push(Arc::new(RaftStore::open(config).await?));
        }
        wait_for_group(&members, display).await?;
        Ok(Self::Group(members))
    }

    /// One per server.
    pub(super) fn all(&self) -> Vec<Arc<dyn Store>> {
        match self {
            Self::Alone(store) => vec![Arc::clone(store) as Arc<dyn Store>],
            Self::Group(members) => members.iter().map(|member| Arc::clone(member) as Arc<dyn Store>).collect(),
        }
    }

    /// The members; none of a server alone.
    pub(super) fn members(&self) -> &[Arc<RaftStore>] {
        match self {
            Self::Alone(_) => &[],
            Self::Group(members) => members,
        }
    }

    /// Compacts them for as long as the result is there, as kube-apiserver does; of a group, whoever leads.
    pub(super) fn keep_compacted(&self) -> JoinSet<()> {
        let policy = AutoCompaction::Periodic(HISTORY);
        let mut tasks = JoinSet::new();
        match self {
            Self::Alone(store) => {
                let store = Arc::clone(store);
                tasks.spawn(async move { auto_compact(&*store, policy, || true).await });
            }
            Self::Group(members) => {
                for member in members.iter().cloned() {
                    tasks.spawn(async move {
                        auto_compact(&*member, policy, || member.leader() == Some(member.id())).await;
                    });
                }
            }
        }
        tasks
    }

    /// Ends them: nothing that was acknowledged is lost.
    pub(super) async fn close(self) {
        match self {
            Self::Alone(store) => store.close().await,
            Self::Group(members) => {
                if let [only] = members.as_slice() {
                    hand_over(only).await;
                }
                members.iter().for_each(|member| member.stop());
            }
        }
    }
}

/// The peer URL of a member at this address.
pub(super) fn url(address: std::net::Ipv4Addr) -> String {
    format!("https://{address}:{PEER_PORT}")
}

/// Waits until the members answer reads, and vote.
async fn wait_for_group(members: &[Arc<RaftStore>], display: &Display) -> Result<(), ClusterError> {
    let mut told = false;
    for member in members {
        let nothing = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key("/")) };
        while let Err(error) = member.range(nothing.clone()).await {
            match error {
                rk_store::Error::NoLeader | rk_store::Error::Timeout => {}
                error => return Err(error.into()),
            }
            if !std::mem::replace(&mut told, true) {
                display.line("waiting for a majority of the cluster's servers to run");
            }
        }
        while is_learner(member).await? {
            match member.member_promote(member.id()).await {
                Ok(_) => break,
                Err(error) => tracing::debug!(%error, "this member is not promoted yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
    Ok(())
}

async fn is_learner(member: &RaftStore) -> Result<bool, ClusterError> {
    let members = member.members(false).await.map_err(|error| match error {
        MemberError::Store(error) => error.into(),
        error => ClusterError::part("raft group", &error),
    })?;
    Ok(members.iter().any(|found| found.id == member.id() && found.is_learner))
}

/// Has another member lead, so that nobody waits for an election.
async fn hand_over(member: &RaftStore) {
    if member.leader() != Some(member.id()) {
        return;
    }
    let members = member.members(false).await.unwrap_or_default();
    let Some(next) = members.iter().find(|next| !next.is_learner && next.id != member.id()) else { return };
    match tokio::time::timeout(HAND_OVER, member.move_leader(next.id)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the leadership was not handed over"),
        Err(_) => tracing::warn!("the leadership was not handed over in time"),
    }
}
