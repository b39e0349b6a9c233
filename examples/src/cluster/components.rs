//! The components that are not nodes, each with a client of its own identity: controllers, scheduler, proxy, ingress.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rk_api::{Client, server::UserInfo};
use rk_controller::{ControllerManager, ManagerConfig};
use rk_proxy::{
    LoadBalancerConfig, LoadBalancers, ProxyConfig, ServiceProxy,
    ingress::{IngressConfig, IngressController},
    userspace::{Userspace, UserspaceConfig},
};
use rk_sched::{Scheduler, SchedulerConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Addresses, ClusterError, ControlPlane};
use crate::options::Options;

/// How long a node may be silent during the demo, which shows a node's death and would not wait a minute for it.
const DEMO_GRACE: Duration = Duration::from_secs(4);

/// Components at work.
pub(super) struct Components {
    /// Where the ingress serves HTTP.
    pub(super) ingress: SocketAddr,
    running: Vec<(&'static str, JoinHandle<()>)>,
    shutdown: CancellationToken,
}

impl Components {
    /// Starts all of them.
    pub(super) async fn start(
        options: &Options,
        control_plane: &ControlPlane,
        addresses: &Addresses,
    ) -> Result<Self, ClusterError> {
        let shutdown = CancellationToken::new();
        let client = |name: &str, group: &str| -> Arc<dyn Client> {
            control_plane.server.client(UserInfo::new(name, [group, "system:authenticated"]))
        };

        let mut config = ManagerConfig { root_ca: Some(control_plane.pki.ca().to_owned()), ..ManagerConfig::default() };
        if options.demo {
            config.node_lifecycle.grace = DEMO_GRACE;
        }
        let controllers = ControllerManager::new(client("system:kube-controller-manager", "system:masters"), config);

        let scheduler = Scheduler::new(client("system:kube-scheduler", ""), SchedulerConfig::default());
        let scheduler = scheduler.map_err(|e| ClusterError::part("scheduler", &e))?;

        let node_addresses = (0..=options.agents).map(|i| IpAddr::V4(addresses.node(i)));
        let backend = Userspace::new(UserspaceConfig {
            node_addresses: node_addresses.chain([IpAddr::V4(Ipv4Addr::LOCALHOST)]).collect(),
            ..UserspaceConfig::default()
        });
        let proxy = client("system:kube-proxy", "system:node-proxier");
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
        let ingress = IngressController::new(client("system:ingress", "system:masters"), config).await;
        let ingress = ingress.map_err(|e| ClusterError::part("ingress", &e))?;
        let ingress_address = ingress.http_addresses()[0];

        let config = LoadBalancerConfig { addresses: vec![IpAddr::V4(addresses.load_balancer())] };
        let load_balancers = LoadBalancers::new(client("system:cloud-controller-manager", "system:masters"), config);

        let running = vec![
            ("controllers", tokio::spawn(controllers.run(shutdown.clone()))),
            ("scheduler", tokio::spawn(scheduler.run(shutdown.clone()))),
            ("proxy", tokio::spawn(proxy.run(shutdown.clone()))),
            ("load balancers", tokio::spawn(load_balancers.run(shutdown.clone()))),
            ("ingress", tokio::spawn(ingress.run(shutdown.clone()))),
        ];
        Ok(Self { ingress: ingress_address, running, shutdown })
    }

    /// Their names.
    pub(super) fn names(&self) -> String {
        self.running.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// Lets them finish what they have begun.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        for (component, task) in self.running {
            if let Err(error) = task.await {
                tracing::error!(component, %error, "ended badly");
            }
        }
    }
}
