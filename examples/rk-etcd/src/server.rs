//! A member: its store, and who serves it.

use std::{future::Future, path::Path, sync::Arc};

use rk_store::{
    DurableOptions, DurableStore, Member, Quota, auto_compact,
    etcd::{EtcdServer, ServerOptions, Standalone, server_tls},
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    flags::{ClientTls, Flags},
    url::Url,
};

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The flags.
    #[error("{0}")]
    Flags(String),
    /// The data directory.
    #[error("the store in {dir}: {source}")]
    Store {
        /// Its path.
        dir: String,
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

/// The TLS of clients, if there are certificates for it.
fn client_tls(flags: &ClientTls) -> Result<Option<Arc<rustls::ServerConfig>>, Error> {
    let ClientTls { cert_file, key_file, client_cert_auth, trusted_ca_file } = flags;
    let (Some(cert), Some(key)) = (cert_file, key_file) else { return Ok(None) };
    if *client_cert_auth && trusted_ca_file.is_none() {
        return Err(Error::Flags("--client-cert-auth needs --trusted-ca-file".into()));
    }
    let config = server_tls(cert, key, trusted_ca_file.as_deref().map(Path::new)).map_err(Error::Tls)?;
    Ok(Some(Arc::new(config)))
}

/// Serves until the process is told to end.
pub(crate) async fn run(flags: Flags) -> Result<(), Error> {
    flags.check_times().map_err(Error::Flags)?;
    let compaction = flags.auto_compaction().map_err(Error::Flags)?;
    if flags.members().map_err(Error::Flags)?.len() != 1 {
        return Err(Error::Flags("--initial-cluster: only clusters of one member are served".into()));
    }
    let tls = client_tls(&flags.client_tls)?;
    let dir = flags.data_dir();
    let mut options = DurableOptions::default();
    options.quota = Quota { bytes: flags.quota(), member: 1 };
    let opened = DurableStore::open(&dir, options).await;
    let store = Arc::new(opened.map_err(|source| Error::Store { dir: dir.display().to_string(), source })?);
    let member = Member {
        id: 1,
        name: flags.name.clone(),
        peer_urls: strings(&flags.initial_advertise_peer_urls),
        client_urls: strings(&flags.advertise_client_urls),
        is_learner: false,
    };
    let cluster = Arc::new(Standalone::new(1, member, store.clone()));
    let mut limits = ServerOptions::default();
    limits.max_request_bytes = flags.max_request_bytes;
    limits.max_txn_ops = flags.max_txn_ops;
    limits.quota_bytes = flags.quota();
    limits.snapshot_dir = dir.clone();
    let server = EtcdServer::new(store.clone(), cluster, limits);
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
        tasks.spawn(async move { auto_compact(&*store, policy, || true).await });
    }
    told_to_end().await;
    tasks.shutdown().await;
    store.close().await;
    Ok(())
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
            (true, None) => return Err(Error::Flags(format!("{url} needs --cert-file and --key-file"))),
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
