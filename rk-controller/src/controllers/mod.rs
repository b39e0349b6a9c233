//! Kubernetes' controllers, one module each.

pub mod account_token;
pub mod bootstrap_token;
#[cfg(feature = "certificates")]
pub mod certificates;
pub mod cluster_role;
pub mod cron_job;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod namespace;
pub mod node;
pub mod protection;
pub mod replicaset;
pub mod resource_quota;
pub mod service_account;
pub mod service_cidr;
pub(crate) use deployment::template_hash;
pub mod daemon_set;
pub mod stateful_set;

/// How long a resource may take to be listed before those who look at all of them start without it.
const SYNC_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
