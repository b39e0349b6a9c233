//! The load balancer in front of the API servers: one address for clients, whichever servers live.
//!
//! It passes connections through, TLS and all, to the servers of its own process while these know a leader, and else to others of the
//! group. So a client stays with its kubeconfig when a server dies: its connections break, and the next ones go elsewhere.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rk_raft::RaftStore;
use rk_store::Cluster as _;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long a server may take to accept a connection before the next one is tried.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a member may know no leader before its server's connections are cut: longer than an election takes.
const LEADERLESS: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted (most often: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes held per direction of a connection.
const BUFFER: usize = 16 << 10;

/// The servers behind the load balancer.
pub(super) struct Front {
    /// Servers of this process, each with its member of the group.
    own: Vec<(SocketAddr, Arc<RaftStore>)>,
    turn: AtomicUsize,
}

impl Front {
    /// In front of these servers of this process, and of all others of their group.
    pub(super) fn new(own: Vec<(SocketAddr, Arc<RaftStore>)>) -> Arc<Self> {
        Arc::new(Self { own, turn: AtomicUsize::new(0) })
    }

    /// Passes connections on until `shutdown`, which breaks them too.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, _)) => {
                    let (front, shutdown) = (Arc::clone(&self), shutdown.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shutdown.cancelled() => {}
                            () = front.pass(client) => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn pass(&self, mut client: TcpStream) {
        for (address, member) in self.candidates().await {
            let mut server = match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(server)) => server,
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "an API server does not answer");
                    continue;
                }
                Err(_) => {
                    tracing::debug!(%address, "an API server does not answer in time");
                    continue;
                }
            };
            for stream in [&client, &server] {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
            }
            let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER);
            let result: io::Result<_> = match member {
                None => copied.await,
                Some(member) => tokio::select! {
                    result = copied => result,
                    () = leaderless(&member) => {
                        tracing::info!(%address, "the server's member of the group has lost the others: its clients go elsewhere");
                        return;
                    }
                },
            };
            if let Err(error) = result {
                tracing::debug!(%address, %error, "connection broke");
            }
            return;
        }
        tracing::warn!("no API server answers");
    }

    /// The servers to try in turn; those of this process with their members.
    async fn candidates(&self) -> Vec<(SocketAddr, Option<Arc<RaftStore>>)> {
        let (mut leading, mut lost) = (Vec::new(), Vec::new());
        for (address, member) in &self.own {
            if member.leader().is_some() {
                leading.push((*address, Some(Arc::clone(member))));
            } else {
                lost.push((*address, None));
            }
        }
        if !leading.is_empty() {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % leading.len();
            leading.rotate_left(first);
        }
        let mut others = Vec::new();
        if let Some((_, member)) = self.own.first() {
            let members = member.members(false).await.unwrap_or_default();
            let addresses = members.iter().flat_map(|member| &member.client_urls).filter_map(|url| address_of(url));
            others.extend(addresses.filter(|address| self.own.iter().all(|(own, _)| own != address)));
        }
        leading.into_iter().chain(others.into_iter().map(|address| (address, None))).chain(lost).collect()
    }
}

/// The address in a server's URL.
fn address_of(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("https://")?.parse().ok()
}

/// Returns once a member has known no leader for too long.
async fn leaderless(member: &RaftStore) {
    let mut leader = rk_store::Cluster::leader(member);
    loop {
        // A member that stops says so by its end.
        if leader.wait_for(Option::is_none).await.is_err() {
            return;
        }
        if !matches!(timeout(LEADERLESS, leader.wait_for(Option::is_some)).await, Ok(Ok(_))) {
            return;
        }
    }
}
