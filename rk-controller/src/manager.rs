//! All controllers of a cluster in one process, with shared informers.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use rk_api::{Client, Informers, Resource};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "certificates")]
use crate::controllers::certificates;
use crate::{
    controllers::{
        account_token, bootstrap_token, cluster_role, cron_job, daemon_set, deployment, disruption, endpoints, garbage,
        job, namespace, node,
        node::{NodeCidrs, NodeLifecycleConfig},
        protection, replicaset, resource_quota, service_account, service_cidr, stateful_set,
    },
    resources,
};

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// Which controllers run, as `kube-controller-manager --controllers`: `*` for all, a name of [`controllers`], or
    /// `-name` for all but that.
    pub controllers: Vec<String>,
    /// The resources, beside custom ones, that namespace deletion, the garbage collector and quotas look at.
    pub resources: Vec<Resource>,
    /// The certificate, in PEM, of the authority that signed the API server's; without it none is published, and Secrets with tokens have none.
    pub root_ca: Option<String>,
    /// How long a node may be silent before it is taken for dead.
    pub node_lifecycle: NodeLifecycleConfig,
    /// The pods' range and how nodes share it; without it nodes get no `podCIDR`.
    pub node_cidrs: Option<NodeCidrs>,
    /// How many ended pods stay; 0 for any number.
    pub terminated_pods: usize,
    /// Who signs the certificates that the built-in signers are asked for; without it nothing is signed.
    #[cfg(feature = "certificates")]
    pub authority: Option<crate::controllers::certificates::Authority>,
}

impl Default for ManagerConfig {
    /// All controllers, Kubernetes' own resources, and kube-controller-manager's default times.
    fn default() -> Self {
        Self {
            controllers: vec!["*".to_owned()],
            resources: resources::builtin(),
            root_ca: None,
            node_lifecycle: NodeLifecycleConfig::default(),
            node_cidrs: None,
            terminated_pods: 12_500,
            #[cfg(feature = "certificates")]
            authority: None,
        }
    }
}

impl ManagerConfig {
    /// Whether a controller of this name is to run.
    pub fn runs(&self, name: &str) -> bool {
        let named = |prefix: &str| self.controllers.iter().any(|listed| listed.strip_prefix(prefix) == Some(name));
        !named("-") && (named("") || self.controllers.iter().any(|listed| listed == "*"))
    }
}

type Run = fn(Informers, ManagerConfig, CancellationToken) -> BoxFuture<'static, ()>;

/// A controller: its name, as kube-controller-manager has it, and how it is run.
const TABLE: &[(&str, Run)] = &[
    #[cfg(feature = "certificates")]
    ("certificatesigningrequest-approving-controller", |i, _, s| {
        async move { certificates::approve::run(&i, s).await }.boxed()
    }),
    #[cfg(feature = "certificates")]
    ("certificatesigningrequest-cleaner-controller", |i, _, s| {
        async move { certificates::clean::run(&i, s).await }.boxed()
    }),
    #[cfg(feature = "certificates")]
    ("certificatesigningrequest-signing-controller", |i, c, s| {
        async move {
            if let Some(authority) = c.authority {
                certificates::sign::run(&i, authority, s).await;
            }
        }
        .boxed()
    }),
    ("clusterrole-aggregation-controller", |i, _, s| async move { cluster_role::run(&i, s).await }.boxed()),
    ("cronjob-controller", |i, _, s| async move { cron_job::run(&i, s).await }.boxed()),
    ("daemonset-controller", |i, _, s| async move { daemon_set::run(&i, s).await }.boxed()),
    ("deployment-controller", |i, _, s| async move { deployment::run(&i, s).await }.boxed()),
    ("disruption-controller", |i, _, s| async move { disruption::run(&i, s).await }.boxed()),
    ("endpoints-controller", |i, _, s| async move { endpoints::run_endpoints(&i, s).await }.boxed()),
    ("endpointslice-controller", |i, _, s| async move { endpoints::run_slices(&i, s).await }.boxed()),
    ("garbage-collector-controller", |i, c, s| async move { garbage::run(&i, c.resources, s).await }.boxed()),
    ("job-controller", |i, _, s| async move { job::run(&i, s).await }.boxed()),
    ("namespace-controller", |i, c, s| async move { namespace::run(&i, c.resources, s).await }.boxed()),
    ("node-ipam-controller", |i, c, s| {
        async move {
            if let Some(cidrs) = c.node_cidrs {
                node::run_ipam(&i, cidrs, s).await;
            }
        }
        .boxed()
    }),
    ("node-lifecycle-controller", |i, c, s| async move { node::run_lifecycle(&i, c.node_lifecycle, s).await }.boxed()),
    ("persistentvolume-protection-controller", |i, _, s| async move { protection::run_volumes(&i, s).await }.boxed()),
    ("persistentvolumeclaim-protection-controller", |i, _, s| {
        async move { protection::run_claims(&i, s).await }.boxed()
    }),
    ("pod-garbage-collector-controller", |i, c, s| {
        async move { node::run_pod_gc(&i, c.terminated_pods, s).await }.boxed()
    }),
    ("replicaset-controller", |i, _, s| async move { replicaset::run_replica_sets(&i, s).await }.boxed()),
    ("replicationcontroller-controller", |i, _, s| {
        async move { replicaset::run_replication_controllers(&i, s).await }.boxed()
    }),
    ("resourcequota-controller", |i, c, s| async move { resource_quota::run(&i, c.resources, s).await }.boxed()),
    ("root-ca-certificate-publisher-controller", |i, c, s| {
        async move {
            if let Some(certificate) = c.root_ca {
                service_account::run_root_ca(&i, certificate, s).await;
            }
        }
        .boxed()
    }),
    ("serviceaccount-controller", |i, _, s| async move { service_account::run(&i, s).await }.boxed()),
    ("serviceaccount-token-controller", |i, c, s| async move { account_token::run(&i, c.root_ca, s).await }.boxed()),
    ("service-cidr-controller", |i, _, s| async move { service_cidr::run(&i, s).await }.boxed()),
    ("statefulset-controller", |i, _, s| async move { stateful_set::run(&i, s).await }.boxed()),
    ("token-cleaner-controller", |i, _, s| async move { bootstrap_token::run(&i, s).await }.boxed()),
    ("taint-eviction-controller", |i, _, s| async move { node::run_taint_eviction(&i, s).await }.boxed()),
    ("ttl-after-finished-controller", |i, _, s| async move { job::run_ttl(&i, s).await }.boxed()),
    ("volumeattributesclass-protection-controller", |i, _, s| {
        async move { protection::run_classes(&i, s).await }.boxed()
    }),
];

/// The names of all controllers.
pub fn controllers() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The controllers of a cluster.
pub struct ControllerManager {
    client: Arc<dyn Client>,
    config: ManagerConfig,
}

impl ControllerManager {
    /// Controllers that will work through this client.
    pub fn new(client: Arc<dyn Client>, config: ManagerConfig) -> Self {
        Self { client, config }
    }

    /// Runs all that the configuration names until `shutdown`, and finishes what they have begun. A panic in one of them goes on here.
    pub async fn run(self, shutdown: CancellationToken) {
        let informers = Informers::new(self.client);
        let mut running = JoinSet::new();
        for (name, run) in TABLE.iter().filter(|(name, _)| self.config.runs(name)) {
            tracing::debug!(name, "starting controller");
            running.spawn(run(informers.clone(), self.config.clone(), shutdown.clone()));
        }
        running.join_all().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name() {
        let config = |list: &[&str]| ManagerConfig {
            controllers: list.iter().map(|name| (*name).to_owned()).collect(),
            ..ManagerConfig::default()
        };
        assert!(config(&["*"]).runs("deployment-controller"));
        assert!(!config(&["*", "-deployment-controller"]).runs("deployment-controller"));
        assert!(config(&["deployment-controller"]).runs("deployment-controller"));
        assert!(!config(&["deployment-controller"]).runs("namespace-controller"));
    }
}
