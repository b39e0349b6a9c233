//! The control plane's core: store, certificates, API server with its HTTPS listener, bootstrap objects.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rk_api::server::{
    KubeletClient, Security, Server, ServiceAccountIssuer, UserInfo, bootstrap, kinds,
    pki::{self, Pki, Wanted},
    serve, tls_config,
};
use rk_store::{DurableOptions, DurableStore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Addresses, ClusterError};
use crate::options::Options;

/// Name of the cluster in kubeconfigs.
const NAME: &str = "mini-cluster";
/// Who issues service-account tokens.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Opens the durable store of a data folder; the folder is this process's alone from then on.
pub(super) async fn open_store(data_dir: &Path) -> Result<Arc<DurableStore>, ClusterError> {
    Ok(Arc::new(DurableStore::open(data_dir.join("store"), DurableOptions::default()).await?))
}

/// The running core.
pub(super) struct ControlPlane {
    pub(super) server: Server,
    pub(super) pki: Pki,
    pub(super) url: String,
    pub(super) kubeconfig: PathBuf,
    store: Arc<DurableStore>,
    listener: JoinHandle<std::io::Result<()>>,
    shutdown: CancellationToken,
}

impl ControlPlane {
    /// Builds the API server over the store and listens.
    pub(super) async fn start(
        options: &Options,
        data_dir: &Path,
        store: Arc<DurableStore>,
        addresses: &Addresses,
    ) -> Result<Self, ClusterError> {
        let socket = tokio::net::TcpListener::bind((options.api_address, options.api_port)).await;
        let socket = socket.map_err(|e| {
            ClusterError::part(
                "API server",
                &format!("can't listen on {}:{}: {e}", options.api_address, options.api_port),
            )
        })?;
        let address = socket.local_addr().map_err(|e| ClusterError::part("API server", &e))?;
        let url = format!("https://{address}");

        let pki = Pki::open(&data_dir.join("pki"))?;
        let names = [options.api_address.to_string(), addresses.kubernetes_service().to_string()];
        let serving = pki.identity("apiserver", &Wanted::api_server(names))?;
        let admin = pki.identity("admin", &Wanted::admin())?;
        let config = pki::kubeconfig(NAME, &url, pki.ca(), "admin", &admin);
        let kubeconfig = data_dir.join("kubeconfig");
        for path in [Some(&kubeconfig), options.write_kubeconfig.as_ref()].into_iter().flatten() {
            pki::write_private(path, config.as_bytes())?;
        }

        let server = Self::build(Arc::clone(&store), &pki, addresses, &url).await?;
        let api_server = bootstrap::ApiServer {
            addresses: vec![IpAddr::V4(options.api_address)],
            port: address.port(),
            cluster_ip: IpAddr::V4(addresses.kubernetes_service()),
        };
        let config = bootstrap::Config {
            api_server: Some(api_server),
            root_ca: Some(pki.ca().to_owned()),
            service_cidr: Some(addresses.services.to_string()),
        };
        let loopback = server.client(UserInfo::loopback());
        bootstrap::ensure(&*loopback, &config).await.map_err(|e| ClusterError::part("bootstrap", &e))?;

        let tls = tls_config(&serving.certificate, &serving.key, Some(pki.ca()));
        let tls = tls.map_err(|e| ClusterError::part("API server", &e))?;
        let shutdown = CancellationToken::new();
        let listener = tokio::spawn(serve(socket, server.service(), Some(tls), shutdown.clone()));
        Ok(Self { server, pki, url, kubeconfig, store, listener, shutdown })
    }

    async fn build(
        store: Arc<DurableStore>,
        pki: &Pki,
        addresses: &Addresses,
        url: &str,
    ) -> Result<Server, ClusterError> {
        let services = kinds::service::Ranges {
            cluster_ips: (IpAddr::V4(addresses.services.base), addresses.services.prefix),
            ..kinds::service::Ranges::default()
        };
        let caller = pki.identity("apiserver-kubelet-client", &Wanted::api_server_kubelet_client())?;
        let kubelets = KubeletClient::new(&caller.certificate, &caller.key, pki.ca())
            .map_err(|error| ClusterError::part("certificate for kubelets", &error))?;
        let builder =
            Server::builder(store).strategy("", "Service", kinds::service::strategy(services)).kubelets(kubelets);
        let service_accounts = ServiceAccountIssuer {
            url: ISSUER.to_owned(),
            jwks_uri: format!("{url}/openid/v1/jwks"),
            key: pki.service_account_key().to_owned(),
            audiences: Vec::new(),
        };
        let security = Security { service_accounts: Some(service_accounts), anonymous: true, ..Security::default() };
        Ok(security.build(builder).await?)
    }

    /// Ends the listener, then closes the store.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        match self.listener.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the API server's listener failed"),
            Err(error) => tracing::error!(%error, "the API server's listener ended badly"),
        }
        drop(self.server);
        self.store.close().await;
    }
}
