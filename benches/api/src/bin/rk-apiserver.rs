//! An API server of rk's over a durable store, with TLS and RBAC and nothing else: what kube-apiserver and etcd are together.
//! It makes its certificates and a kubeconfig in its folder, and tells on standard output when it serves.

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use rk_api::server::{
    ControlPlane, Security, Server, ServiceAccountIssuer, UserInfo, authn, bootstrap,
    kinds::service::{ClusterIpRange, Ranges, strategy},
    pki::{Pki, Wanted, kubeconfig, write_private},
    plugins, serve, tls_config,
};
use rk_store::{AutoCompaction, DurableOptions, DurableStore, auto_compact};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// History that can be read and watched: kube-apiserver's `--etcd-compaction-interval`.
const HISTORY: Duration = Duration::from_secs(5 * 60);
/// The user that measures. It has its rights from a binding, so that each request is a question to RBAC.
const USER: &str = "bench";

/// An API server over a durable store, with TLS and RBAC.
#[derive(Debug, Parser)]
struct Options {
    /// Where state, certificates and the kubeconfig are.
    #[arg(long)]
    dir: PathBuf,
    /// The port on 127.0.0.1; 0 for any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The networks of cluster IPs, as kube-apiserver's flag of this name: one, or one of each family. [default: 10.96.0.0/12, with no ServiceCIDR
    /// that says so]
    #[arg(long, value_name = "CIDR[,CIDR]")]
    service_cluster_ip_range: Option<ClusterIpRange>,
    /// Admission plugins that see every write and do nothing.
    #[arg(long, default_value_t = 0)]
    no_op_plugins: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("rk-apiserver: {error}");
    ExitCode::FAILURE
}

async fn run(options: Options) -> Result<(), AnyError> {
    let store = Arc::new(DurableStore::open(options.dir.join("store"), DurableOptions::default()).await?);
    let pki = Pki::open(&options.dir.join("pki"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    let url = format!("https://{}", listener.local_addr()?);
    let security = Security {
        service_accounts: Some(ServiceAccountIssuer {
            url: "https://kubernetes.default.svc.cluster.local".to_owned(),
            jwks_uri: format!("{url}/openid/v1/jwks"),
            key: pki.service_account_key().to_owned(),
            audiences: Vec::new(),
            other_keys: Vec::new(),
            other_urls: Vec::new(),
        }),
        anonymous: authn::Anonymous::Allowed,
        ..Security::default()
    };
    let mut builder = ControlPlane::builder().store(store.clone()).security(security);
    for number in 0..options.no_op_plugins {
        builder = builder.admission(plugins::from_fn(&format!("NoOp{number}"), |_, _, _| true, |_| Ok(())));
    }
    if let Some(cluster_ips) = options.service_cluster_ip_range.clone() {
        builder = builder.strategy("", "Service", strategy(Ranges { cluster_ips, ..Ranges::default() }));
    }
    let config = bootstrap::Config { service_cidr: options.service_cluster_ip_range, ..bootstrap::Config::default() };
    let server = builder.bootstrap(config).build().await?;
    may_everything(&server).await?;

    let serving = pki.identity("apiserver", &Wanted::api_server([Ipv4Addr::LOCALHOST.to_string()]))?;
    let tls = tls_config(&serving.certificate, &serving.key, Some(pki.ca()))?;
    let client = pki.identity(USER, &Wanted::client(USER, ""))?;
    let path = options.dir.join("kubeconfig");
    write_private(&path, kubeconfig("rk", &url, pki.ca(), USER, &client).as_bytes())?;
    println!("ready {}", path.display());

    let shutdown = CancellationToken::new();
    let compaction = async { auto_compact(&*store, AutoCompaction::Periodic(HISTORY), || true).await };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = serve(listener, server.service(), Some(tls), shutdown.clone()) => served?,
        () = compaction => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    store.close().await;
    Ok(())
}

/// Binds the user that measures to the role that allows everything.
async fn may_everything(server: &Server) -> Result<(), AnyError> {
    use rk_api::{
        Api,
        k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject},
    };
    let group = "rbac.authorization.k8s.io".to_owned();
    let mut binding = ClusterRoleBinding {
        role_ref: RoleRef { api_group: Some(group.clone()), kind: "ClusterRole".into(), name: "cluster-admin".into() },
        subjects: Some(vec![Subject {
            api_group: Some(group),
            kind: "User".into(),
            name: USER.into(),
            namespace: None,
        }]),
        ..ClusterRoleBinding::default()
    };
    binding.metadata.name = Some(USER.to_owned());
    match Api::all(server.client(UserInfo::loopback())).create(&binding).await {
        Err(error) if !error.is_already_exists() => Err(error.into()),
        _ => Ok(()),
    }
}
