//! A server: an API server over its store, with its HTTPS listener and the objects every cluster has.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rk_api::{
    Network,
    server::{
        Aggregation, FlowControl, KubeletClient, RuntimeConfig, Security, Server, ServiceAccountIssuer, Tls, UserInfo,
        bootstrap, kinds,
        pki::{Pki, Wanted},
        serve, tls_config,
    },
};
use rk_store::Store;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Addresses, ClusterError};

/// Who issues service-account tokens.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Requests that a server works on at once, as kube-apiserver by default.
const IN_FLIGHT: usize = 600;

/// How API servers show themselves.
pub(super) fn serving_tls(pki: &Pki, names: Vec<String>) -> Result<Tls, ClusterError> {
    let serving = pki.identity("apiserver", &Wanted::api_server(names))?;
    // With its authority behind it, for those who know that by its fingerprint only.
    let chain = format!("{}{}", serving.certificate, pki.ca());
    tls_config(&chain, &serving.key, Some(pki.ca())).map_err(|e| ClusterError::part("API server", &e))
}

/// A running server.
pub(super) struct ControlPlane {
    pub(super) server: Server,
    pub(super) address: SocketAddr,
    listener: JoinHandle<std::io::Result<()>>,
    endpoints: Option<JoinHandle<()>>,
    shutdown: CancellationToken,
}

impl ControlPlane {
    /// Builds the API server over a store and listens. One of several on the same store keeps itself among the endpoints of the
    /// `kubernetes` service.
    pub(super) async fn start(
        socket: TcpListener,
        tls: Tls,
        (store, versions): (Arc<dyn Store>, RuntimeConfig),
        (pki, proxies): (&Pki, &Pki),
        addresses: &Addresses,
        one_of_several: bool,
    ) -> Result<Self, ClusterError> {
        let address = socket.local_addr().map_err(|e| ClusterError::part("API server", &e))?;
        let server = Self::build(store, pki, proxies, addresses, address, versions).await?;
        let own = bootstrap::ApiServer {
            addresses: vec![address.ip()],
            port: address.port(),
            service_port: service_port(addresses.kubernetes_service()),
            cluster_ip: IpAddr::V4(addresses.kubernetes_service()),
        };
        let known = if one_of_several { Vec::new() } else { own.addresses.clone() };
        let cluster_ips = cluster_ips(addresses);
        let config = bootstrap::Config {
            api_server: Some(bootstrap::ApiServer { addresses: known, ..own.clone() }),
            root_ca: Some(pki.ca().to_owned()),
            service_cidr: Some(cluster_ips.clone()),
            flow_control: true,
            front_proxy: Some((proxies.ca().to_owned(), vec!["front-proxy-client".to_owned()])),
        };
        let loopback = server.client(UserInfo::loopback());
        bootstrap::ensure(&*loopback, &config).await.map_err(|e| ClusterError::part("bootstrap", &e))?;
        bootstrap::keep_service_cidr(&server, cluster_ips);

        let shutdown = CancellationToken::new();
        let listener = tokio::spawn(serve(socket, server.service(), Some(tls), shutdown.clone()));
        let endpoints = one_of_several.then(|| {
            let (server, shutdown) = (server.clone(), shutdown.clone());
            tokio::spawn(async move { bootstrap::keep_endpoints(&server, &own, shutdown).await })
        });
        Ok(Self { server, address, listener, endpoints, shutdown })
    }

    async fn build(
        store: Arc<dyn Store>,
        pki: &Pki,
        proxies: &Pki,
        addresses: &Addresses,
        address: SocketAddr,
        versions: RuntimeConfig,
    ) -> Result<Server, ClusterError> {
        let services =
            kinds::service::Ranges { cluster_ips: cluster_ips(addresses), ..kinds::service::Ranges::default() };
        let caller = pki.identity("apiserver-kubelet-client", &Wanted::api_server_kubelet_client())?;
        let kubelets = KubeletClient::new(&caller.certificate, &caller.key, pki.ca())
            .map_err(|error| ClusterError::part("certificate for kubelets", &error))?;
        let shown = proxies.identity("front-proxy-client", &Wanted::front_proxy())?;
        let builder = Server::builder(store)
            .runtime_config(versions)
            .strategy("", "Service", kinds::service::strategy(services))
            .kubelets(kubelets)
            // Of 127/8, unless they were asked to be elsewhere.
            .proxy_to([(IpAddr::V4(addresses.pods.base), addresses.pods.prefix)])
            .aggregation(Aggregation { identity: Some((shown.certificate, shown.key)) })
            .flow_control(FlowControl::Fair { total: IN_FLIGHT });
        let service_accounts = ServiceAccountIssuer {
            url: ISSUER.to_owned(),
            jwks_uri: format!("https://{address}/openid/v1/jwks"),
            key: pki.service_account_key().to_owned(),
            ..ServiceAccountIssuer::default()
        };
        let security = Security {
            service_accounts: Some(service_accounts),
            bootstrap_tokens: true,
            anonymous: true.into(),
            ..Security::default()
        };
        Ok(security.build(builder).await?)
    }

    /// Takes the server out of service.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        if let Some(endpoints) = self.endpoints
            && let Err(error) = endpoints.await
        {
            tracing::error!(%error, "what keeps the server's endpoint ended badly");
        }
        match self.listener.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the API server's listener failed"),
            Err(error) => tracing::error!(%error, "the API server's listener ended badly"),
        }
    }
}

/// Where Services get their addresses.
fn cluster_ips(addresses: &Addresses) -> kinds::service::ClusterIpRange {
    Network { address: IpAddr::V4(addresses.services.base), bits: addresses.services.prefix }.into()
}

/// The port of the `kubernetes` Service: Kubernetes' own, or else, for who may not open that one here, one that pods reach.
fn service_port(address: Ipv4Addr) -> u16 {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    match std::net::TcpListener::bind((address, 443)) {
        Err(error) if denied(&error) => 6443,
        _ => 443,
    }
}
