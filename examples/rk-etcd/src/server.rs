//! A member: its store, and who serves it.

use std::sync::Arc;

use rk_store::{
    DurableOptions, DurableStore, Member,
    etcd::{EtcdServer, ServerOptions, Standalone},
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::flags::{Flags, Url};

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The data directory.
    #[error("the store in {dir}: {source}")]
    Store {
        /// Its path.
        dir: String,
        /// What is wrong.
        source: rk_store::Error,
    },
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

/// Serves until the process is told to end.
pub(crate) async fn run(flags: Flags) -> Result<(), Error> {
    let dir = flags.data_dir();
    let opened = DurableStore::open(&dir, DurableOptions::default()).await;
    let store = Arc::new(opened.map_err(|source| Error::Store { dir: dir.display().to_string(), source })?);
    let member = Member {
        id: 1,
        name: flags.name.clone(),
        peer_urls: strings(&flags.initial_advertise_peer_urls),
        client_urls: strings(&flags.advertise_client_urls),
        is_learner: false,
    };
    let cluster = Arc::new(Standalone::new(1, member, store.clone()));
    let server = EtcdServer::new(store.clone(), cluster, ServerOptions::default());
    let mut listeners = JoinSet::new();
    for url in &flags.listen_client_urls {
        let failed = |source| Error::Listen { url: url.to_string(), source };
        let listener = TcpListener::bind(&url.authority).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "serving clients");
        let server = server.clone();
        listeners.spawn(async move { server.serve(listener, None).await });
    }
    told_to_end().await;
    listeners.shutdown().await;
    store.close().await;
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
