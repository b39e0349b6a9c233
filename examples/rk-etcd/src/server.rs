//! A member: its store, and who serves it.

use std::{
    future::Future,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rk_raft::{Initial, MemberConfig, PeerListener, RaftStore};
use rk_store::{
    Cluster, Limits, auto_compact,
    etcd::{EtcdServer, ServerOptions},
};
use tokio::{net::TcpListener, runtime::Handle, task::JoinSet};

use crate::{
    flags::{ClusterState, Flags},
    tls::{client_tls, peer_tls},
    url::Url,
};

/// How long a leader that ends tries to hand its leadership over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Why a server could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The flags.
    #[error("{0}")]
    Flags(String),
    /// The data directory, or the cluster.
    #[error("{dir}: {source}")]
    Member {
        /// The data directory.
        dir: String,
        /// What is wrong.
        source: rk_store::Error,
    },
    /// The data of another program.
    #[error(
        "{0} holds the data of an etcd: have that etcd save a snapshot (etcdctl snapshot save FILE), and make a directory of \
         this server's own from it (rk-etcd snapshot restore FILE --data-dir DIR)"
    )]
    ForeignData(PathBuf),
    /// A snapshot that can't be restored.
    #[error("restoring {file}: {source}")]
    Restore {
        /// The snapshot.
        file: PathBuf,
        /// What is wrong.
        source: rk_store::Error,
    },
    /// Certificates.
    #[error("TLS: {0}")]
    Tls(rk_store::Error),
    /// An address.
    #[error("listening on {url}: {source}")]
    Listen {
        /// The URL.
        url: String,
        /// What is wrong.
        source: std::io::Error,
    },
}

fn strings(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

/// The addresses of URLs to listen on.
async fn addresses(urls: &[Url]) -> Result<Vec<SocketAddr>, Error> {
    let mut all = Vec::new();
    for url in urls {
        let failed = |source| Error::Listen { url: url.to_string(), source };
        all.extend(tokio::net::lookup_host(&url.authority).await.map_err(failed)?);
    }
    // A name may stand for one address twice.
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The folder of a member below its data directory.
pub(crate) const MEMBER: &str = "rk";

/// Where this member's data are below the data directory, which must not be that of a real etcd.
fn member_dir(data: &Path) -> Result<PathBuf, Error> {
    let own = data.join(MEMBER);
    if !own.exists() && data.join("member").join("wal").exists() {
        return Err(Error::ForeignData(data.to_owned()));
    }
    Ok(own)
}

async fn config(flags: &Flags) -> Result<MemberConfig, Error> {
    flags.check_times().map_err(Error::Flags)?;
    flags.check_request_bytes().map_err(Error::Flags)?;
    let members = flags.members().map_err(Error::Flags)?;
    let own = strings(&flags.initial_advertise_peer_urls);
    let initial = match flags.initial_cluster_state {
        ClusterState::New => Initial::New { members, token: flags.initial_cluster_token.clone(), backup: None },
        ClusterState::Existing => {
            let others = members.into_iter().filter(|(name, _)| *name != flags.name);
            Initial::Join { peers: others.flat_map(|(_, urls)| urls).collect() }
        }
    };
    let failed = |source| Error::Member { dir: "peers".into(), source };
    let listener = PeerListener::bind(&addresses(&flags.listen_peer_urls).await?).await.map_err(failed)?;
    let dir = member_dir(&flags.data_dir())?;
    let mut config = MemberConfig::new(dir, &flags.name, own, listener, initial);
    config.client_urls = strings(&flags.advertise_client_urls);
    config.tls = peer_tls(flags)?;
    config.force_new_cluster = flags.force_new_cluster;
    let options = &mut config.options;
    options.tick = Duration::from_millis(flags.heartbeat_interval);
    options.heartbeat_ticks = 1;
    options.election_ticks = usize::try_from(flags.election_timeout / flags.heartbeat_interval).unwrap_or(usize::MAX);
    options.snapshot_entries = flags.snapshot_count;
    options.catch_up_entries = flags.snapshot_catchup_entries;
    options.quota_bytes = flags.quota();
    options.limits = Limits { txn_ops: flags.max_txn_ops, request_bytes: flags.max_request_bytes };
    // Members must not wait equally long before they stand for election.
    options.seed = RandomState::new().build_hasher().finish();
    Ok(config)
}

/// The runtime of every second connection, in a thread of its own: with many clients the core that is left has time for them.
fn second_runtime() -> Option<Handle> {
    static SECOND: OnceLock<Option<Handle>> = OnceLock::new();
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let run = move || runtime.block_on(std::future::pending::<()>());
        std::thread::Builder::new().name("connections".to_owned()).spawn(run)?;
        Ok::<_, std::io::Error>(handle)
    };
    let started = || start().inspect_err(|error| tracing::warn!(%error, "connections have one runtime")).ok();
    SECOND.get_or_init(started).clone()
}

/// Serves until the process is told to end, or the member can't go on.
pub(crate) async fn run(flags: Flags) -> Result<(), Error> {
    let compaction = flags.auto_compaction().map_err(Error::Flags)?;
    let tls = client_tls(&flags)?;
    let dir = flags.data_dir();
    let failed = |source| Error::Member { dir: dir.display().to_string(), source };
    let store = Arc::new(RaftStore::open(config(&flags).await?).await.map_err(failed)?);
    tracing::info!(
        member = format!("{:x}", store.member_id()),
        cluster = format!("{:x}", store.cluster_id()),
        "the member has started"
    );
    let mut options = ServerOptions::default();
    options.max_request_bytes = flags.max_request_bytes;
    options.max_txn_ops = flags.max_txn_ops;
    options.quota_bytes = flags.quota();
    options.snapshot_dir = dir.clone();
    options.max_concurrent_streams = flags.max_concurrent_streams;
    options.keepalive_interval = flags.grpc_keepalive_interval;
    options.keepalive_timeout = flags.grpc_keepalive_timeout;
    options.leader_patience = 3 * Duration::from_millis(flags.election_timeout);
    options.second_runtime = Some(second_runtime);
    let server = EtcdServer::new(store.clone(), store.clone(), options);
    let mut tasks = JoinSet::new();
    listen(&mut tasks, &flags.listen_client_urls, &tls, |listener, tls| {
        let server = server.clone();
        async move { server.serve(listener, tls).await }
    })
    .await?;
    listen(&mut tasks, &flags.listen_metrics_urls, &tls, |listener, tls| {
        let server = server.clone();
        async move { server.serve_web(listener, tls).await }
    })
    .await?;
    if let Some(policy) = compaction {
        let store = store.clone();
        tasks.spawn(async move { auto_compact(&*store, policy, || store.leader() == Some(store.id())).await });
    }
    let ended = tokio::select! {
        () = told_to_end() => Ok(()),
        Some(source) = store.stopped() => Err(failed(source)),
    };
    if ended.is_ok() {
        hand_over(&store).await;
    }
    tasks.shutdown().await;
    store.stop();
    ended
}

/// Has another member lead, so that nobody waits for an election.
async fn hand_over(store: &RaftStore) {
    if store.leader() != Some(store.id()) {
        return;
    }
    let members = store.members(false).await.unwrap_or_default();
    let Some(next) = members.iter().find(|member| !member.is_learner && member.id != store.id()) else { return };
    match tokio::time::timeout(HAND_OVER, store.move_leader(next.id)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the leadership was not handed over"),
        Err(_) => tracing::warn!("the leadership was not handed over in time"),
    }
}

/// Serves on these URLs.
async fn listen<F>(
    tasks: &mut JoinSet<()>,
    urls: &[Url],
    tls: &Option<Arc<rustls::ServerConfig>>,
    serve: impl Fn(TcpListener, Option<Arc<rustls::ServerConfig>>) -> F,
) -> Result<(), Error>
where
    F: Future<Output = ()> + Send + 'static,
{
    for url in urls {
        let tls = match (url.tls, tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.clone()),
            (true, None) => return Err(Error::Flags(format!("{url} needs --cert-file and --key-file, or --auto-tls"))),
        };
        let failed = |source| Error::Listen { url: url.to_string(), source };
        let listener = TcpListener::bind(&url.authority).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, tls = url.tls, "listening");
        tasks.spawn(serve(listener, tls));
    }
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(error) => {
            tracing::warn!(%error, "SIGTERM is not handled");
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::warn!(%error, "nor is SIGINT");
                std::future::pending::<()>().await;
            }
        }
    }
}
