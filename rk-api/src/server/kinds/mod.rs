//! What each built-in kind has beyond its schema: defaults, rules, columns, selectable fields.
//!
//! [`strategy`], [`columns`] and [`selectable_fields`] are looked up once, when the registry's rows are made. A kind's file holds its
//! rules as a [`rules::Rules`] table of plain functions over JSON trees, which work in place: no object is decoded into a type on its
//! way in. What is wrong is said through [`field::Errors`] in Kubernetes' words.

mod apps;
mod cells;
mod config;
pub mod field;
mod meta;
mod names;
mod namespace;
mod node;
mod pod;
mod rules;
mod selector;
pub mod service;
mod storage;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

pub use meta::validate_meta;
pub use value::Peek;

use self::rules::Rules;
use super::{Column, Strategy};

/// The rules of a kind; those that have none beyond their schema get a strategy that does nothing.
///
/// Services get cluster IPs and node ports of the default ranges; see [`service::strategy`] for others.
pub fn strategy(group: &str, kind: &str) -> Arc<dyn Strategy> {
    let rules = match (group, kind) {
        ("", "Service") => return service::strategy(service::Ranges::default()),
        ("", "Pod") => pod::RULES,
        ("", "Namespace") => namespace::RULES,
        ("", "Node") => node::RULES,
        ("", "ConfigMap") => config::CONFIG_MAP,
        ("", "Secret") => config::SECRET,
        ("", "ServiceAccount") => config::SERVICE_ACCOUNT,
        ("", "PersistentVolumeClaim") => storage::CLAIM,
        ("apps", "Deployment") => apps::DEPLOYMENT,
        ("apps", "ReplicaSet") => apps::REPLICA_SET,
        ("", "PersistentVolume" | "ReplicationController" | "ResourceQuota")
        | ("apps", _)
        | ("batch", _)
        | ("autoscaling", _)
        | ("policy", "PodDisruptionBudget")
        | ("networking.k8s.io", "Ingress") => Rules::STATUS,
        _ => Rules::NONE,
    };
    Arc::new(rules)
}

/// The columns kubectl shows of a kind; `Name` and `Created At` where Kubernetes has no others.
pub fn columns(group: &str, kind: &str) -> Arc<[Column]> {
    let columns = match (group, kind) {
        ("", "Pod") => pod::columns(),
        ("", "Service") => service::columns(),
        ("", "Namespace") => namespace::columns(),
        ("", "Node") => node::columns(),
        ("", "ConfigMap") => config::config_map_columns(),
        ("", "Secret") => config::secret_columns(),
        ("", "ServiceAccount") => config::service_account_columns(),
        ("apps", "Deployment") => apps::deployment_columns(),
        ("apps", "ReplicaSet") => apps::replica_set_columns(),
        _ => vec![cells::NAME, cells::CREATED_AT],
    };
    columns.into()
}

/// The fields besides `metadata.name` and `metadata.namespace` that a field selector may name.
pub fn selectable_fields(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("", "Pod") => pod::SELECTABLE,
        ("", "Namespace") => &["status.phase"],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("apps", "ReplicaSet") => &["status.replicas"],
        _ => &[],
    }
}
