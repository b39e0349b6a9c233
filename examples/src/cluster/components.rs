//! The components that are not nodes, each with a client of its own identity: controllers, scheduler, proxy, ingress.
//!
//! Controllers and scheduler are there once per server, and Leases in `kube-system` elect the ones that work, as Kubernetes does it. Proxy and
//! ingress hold nothing and are there once per process.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::scheduling::v1alpha2::{PodGroup, Workload};
use rk_api::{
    Client, Resource,
    server::{Server, UserInfo, pki::Pki},
};
use rk_controller::{
    ControllerManager, ManagerConfig,
    controllers::certificates::Authority,
    leader::{LeaderElectionConfig, LeaderElector},
};
use rk_proxy::{
    LoadBalancerConfig, LoadBalancers, ProxyConfig, ServiceProxy,
    ingress::{IngressConfig, IngressController},
    userspace::{Userspace, UserspaceConfig},
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Addresses, ClusterError, nodes, scheduling, servers::Servers};
use crate::options::Options;

/// How long a node may be silent during the demo, which shows a node's death and would not wait a minute for it.
const DEMO_GRACE: Duration = Duration::from_secs(4);

/// How long they may take to end.
const PATIENCE: Duration = Duration::from_secs(4);

/// Components at work.
pub(super) struct Components {
    /// Where the ingress serves HTTP.
    pub(super) ingress: SocketAddr,
    running: Vec<(&'static str, JoinHandle<()>)>,
    shutdown: CancellationToken,
}

impl Components {
    /// Starts all of them. Where there may be more servers, Leases elect whose controllers and whose scheduler work. Other processes
    /// may serve the same addresses if they are `shared`.
    pub(super) async fn start(
        options: &Options,
        servers: &Servers,
        shared: bool,
        addresses: &Addresses,
    ) -> Result<Self, ClusterError> {
        let shutdown = CancellationToken::new();
        let mut running = Vec::new();
        let authority = Authority::new(servers.pki.ca(), servers.pki.ca_key());
        let authority = authority.map_err(|e| ClusterError::part("certificate authority", &e))?;
        let scheduling = scheduling::config(options.scheduler_config.as_deref(), options.has_pod_groups())?;
        for (name, server) in servers.iter() {
            let elect = servers.are_several().then_some(name);
            let controllers =
                controllers(options, server, elect, (&servers.pki, authority.clone()), addresses, shutdown.clone());
            running.push(("controllers", controllers));
            running.push(("scheduler", scheduling::start(server, &scheduling, elect, shutdown.clone())?));
        }

        let node_addresses = (0..nodes::count(options)).map(|i| IpAddr::V4(addresses.node(i)));
        let backend = Userspace::new(UserspaceConfig {
            node_addresses: node_addresses.chain([IpAddr::V4(Ipv4Addr::LOCALHOST)]).collect(),
            shared,
            ..UserspaceConfig::default()
        });
        let proxy = client(servers.of_node(0), "system:kube-proxy", "system:node-proxier");
        let proxy = ServiceProxy::new(proxy, Arc::new(backend), ProxyConfig::default());

        let listen = |tls| options.ports.iter().filter(move |port| port.tls == tls).map(|port| port.host);
        let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut http: Vec<_> = listen(false).map(on).collect();
        if http.is_empty() {
            http.push(on(0));
        }
        let config = IngressConfig {
            http,
            https: listen(true).map(on).collect(),
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            ..IngressConfig::default()
        };
        let ingress = client(servers.of_node(0), "system:ingress", "system:masters");
        let ingress = IngressController::new(ingress, config).await;
        let ingress = ingress.map_err(|e| ClusterError::part("ingress", &e))?;
        let ingress_address = ingress.http_addresses()[0];
        running.push(("proxy", tokio::spawn(proxy.run(shutdown.clone()))));
        running.push(("ingress", tokio::spawn(ingress.run(shutdown.clone()))));
        Ok(Self { ingress: ingress_address, running, shutdown })
    }

    /// Their names.
    pub(super) fn names(&self) -> String {
        let mut names: Vec<_> = self.running.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }

    /// Lets them finish what they have begun.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        let end = Instant::now() + PATIENCE;
        for (component, mut task) in self.running {
            match tokio::time::timeout_at(end, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(component, %error, "ended badly"),
                // In a group that has lost its majority nothing can be finished.
                Err(_) => {
                    tracing::warn!(component, "did not end in time");
                    task.abort();
                }
            }
        }
    }
}

pub(super) fn client(server: &Server, name: &str, group: &str) -> Arc<dyn Client> {
    server.client(UserInfo::new(name, [group, "system:authenticated"]))
}

/// The controllers of a server, and what gives addresses to Services of type LoadBalancer.
fn controllers(
    options: &Options,
    server: &Server,
    elect: Option<&str>,
    (pki, authority): (&Pki, Authority),
    addresses: &Addresses,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    let mut config =
        ManagerConfig { root_ca: Some(pki.ca().to_owned()), authority: Some(authority), ..ManagerConfig::default() };
    if options.demo {
        config.node_lifecycle.grace = DEMO_GRACE;
    }
    if options.has_pod_groups() {
        config.resources.extend([Resource::of::<PodGroup>(), Resource::of::<Workload>()]);
    }
    let own = client(server, "system:kube-controller-manager", "system:masters");
    let cloud = client(server, "system:cloud-controller-manager", "system:masters");
    let balancers = LoadBalancerConfig { addresses: vec![IpAddr::V4(addresses.load_balancer())] };
    let elector = Arc::clone(&own);
    let work = move |stop: CancellationToken| {
        let controllers = ControllerManager::new(Arc::clone(&own), config.clone());
        let balancers = LoadBalancers::new(Arc::clone(&cloud), balancers.clone());
        async move {
            tokio::join!(controllers.run(stop.clone()), balancers.run(stop));
        }
    };
    tokio::spawn(lead(elector, "kube-controller-manager", elect.map(str::to_owned), shutdown, work))
}

/// Does `work` until `shutdown`: at once, or, as one of several, whenever the Lease is this one's.
///
/// The identity is the server's name. Nobody else has it, for the server's data folder belongs to one process, and a server that was
/// killed and comes back need not wait for its own Lease to end.
pub(super) async fn lead<F: Future<Output = ()>>(
    client: Arc<dyn Client>,
    lease: &str,
    identity: Option<String>,
    shutdown: CancellationToken,
    mut work: impl FnMut(CancellationToken) -> F,
) {
    let Some(identity) = identity else { return work(shutdown).await };
    while !shutdown.is_cancelled() {
        let config = LeaderElectionConfig::new("kube-system", lease, &identity);
        let elector = LeaderElector::new(Arc::clone(&client), config).expect("the default times are sound");
        elector.run(shutdown.clone(), &mut work).await;
    }
}
