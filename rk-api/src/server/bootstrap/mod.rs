//! What every cluster has from its first second: namespaces, default roles and bindings, priority classes, and the
//! `kubernetes` service.
//!
//! [`ensure`] reads what is there, writes what is missing and repairs what was changed for the worse; on a cluster that
//! has everything it only reads. Roles and bindings are reconciled as Kubernetes does it: missing rules and
//! subjects are added, additional ones stay, and an object whose annotation
//! `rbac.authorization.kubernetes.io/autoupdate` is `false` is left alone.

mod controller_roles;
mod endpoints;
mod flow;
mod objects;
mod reconcile;
mod roles;
mod service_cidr;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::kinds::service::ClusterIpRange;
use crate::{Client, DeleteOptions, ListOptions, Object, Request, Resource, Verb, WriteOptions};

pub use endpoints::keep_endpoints;
pub use objects::SYSTEM_NAMESPACES;
pub use service_cidr::keep_service_cidr;

/// The rules of the ClusterRole `system:node`, by which the Node authorizer judges what it has no closer rule for.
pub(crate) fn node_rules() -> Vec<PolicyRule> {
    let rules =
        roles::CLUSTER_ROLES.iter().filter(|(name, ..)| *name == "system:node").flat_map(|(_, _, rules)| *rules);
    rules.filter_map(|rule| serde_json::from_value(objects::policy_rule(rule)).ok()).collect()
}

/// Kubernetes' FlowSchemas.
pub(crate) fn flow_schemas() -> Vec<Value> {
    flow::schemas().collect()
}

/// Kubernetes' priority levels.
pub(crate) fn priority_levels() -> Vec<Value> {
    flow::levels().collect()
}

/// What a cluster's own objects say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Where the API is; `None` makes no `kubernetes` service.
    pub api_server: Option<ApiServer>,
    /// The certificate authority in PEM that clients of the API trust: goes into `kube-root-ca.crt` of the system's
    /// namespaces and into `extension-apiserver-authentication`.
    pub root_ca: Option<String>,
    /// The service addresses, shown as the ServiceCIDR `kubernetes`, which [`keep_service_cidr`] keeps so. Services get theirs from the
    /// [`Ranges`](super::kinds::service::Ranges) of their strategy.
    pub service_cidr: Option<ClusterIpRange>,
    /// Whether Kubernetes' priority levels and FlowSchemas are wanted: for a server with
    /// [`FlowControl::Fair`](super::FlowControl::Fair).
    pub flow_control: bool,
    /// The authority in PEM of the front proxy's certificate, and the names that it may have: goes into
    /// `extension-apiserver-authentication`, by which servers behind this one believe it.
    pub front_proxy: Option<(String, Vec<String>)>,
}

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// The addresses of the API servers, all of one family. None where each server keeps its own among the endpoints with
    /// [`keep_endpoints`].
    pub addresses: Vec<IpAddr>,
    /// The port they listen on.
    pub port: u16,
    /// The port of the `kubernetes` Service: 443, unless whoever opens it may not.
    pub service_port: u16,
    /// The address of the `kubernetes` service, which has port 443.
    pub cluster_ip: IpAddr,
}

/// A bootstrap object could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("can't bootstrap {what}: {source}")]
pub struct Error {
    /// Which, such as `clusterroles.rbac.authorization.k8s.io "view"`.
    pub what: String,
    /// Why.
    pub source: crate::Error,
}

/// An object that shall be there.
struct Wanted {
    resource: Resource,
    value: Value,
}

impl Wanted {
    fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    fn fail(&self, source: crate::Error) -> Error {
        Error { what: format!("{} {:?}", self.resource.group_resource(), self.name()), source }
    }

    fn request(&self, verb: Verb) -> Request {
        Request {
            resource: self.resource.clone(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
            subresource: String::new(),
            verb,
        }
    }
}

/// Writes run at the same time, so that a durable store can commit them together.
const PARALLEL: usize = 64;
/// How often the whole is tried when another server writes the same objects at the same time.
const ATTEMPTS: usize = 5;

/// Sees that every bootstrap object is there. Run it with an identity that may do everything.
///
/// # Errors
/// The API refused a read or a write, or others kept changing the same objects.
pub async fn ensure(client: &dyn Client, config: &Config) -> Result<(), Error> {
    // Namespaces first: what lives in them needs them.
    ensure_namespaces(client).await?;
    against_others(client, || objects::others(config)).await
}

/// Sees that the namespaces are there that every cluster has, and nothing else. Run it with an identity that may do everything.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_namespaces(client: &dyn Client) -> Result<(), Error> {
    against_others(client, objects::namespaces).await
}

/// Sees that objects are there, whoever else writes them at the same time.
async fn against_others(client: &dyn Client, wanted: impl Fn() -> Vec<Wanted>) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        match ensure_all(client, wanted()).await {
            Err(error) if attempt < ATTEMPTS && (error.source.is_conflict() || error.source.is_already_exists()) => {
                tracing::debug!(%error, attempt, "bootstrap objects changed meanwhile, looking again");
                attempt += 1;
            }
            done => return done,
        }
    }
}

/// The objects of a collection by name.
type Known = BTreeMap<String, Arc<Object>>;

async fn list(
    client: &dyn Client,
    resource: Resource,
    namespace: String,
) -> Result<((Resource, String), Known), Error> {
    let failed = |source| Error { what: resource.group_resource(), source };
    let list = client.list(&resource, &namespace, ListOptions::default()).await.map_err(failed)?;
    let known = list.items.into_iter().map(|object| (object.meta().name.clone(), object)).collect();
    Ok(((resource, namespace), known))
}

async fn ensure_all(client: &dyn Client, wanted: Vec<Wanted>) -> Result<(), Error> {
    let collections: BTreeSet<(Resource, String)> =
        wanted.iter().map(|wanted| (wanted.resource.clone(), wanted.namespace().to_owned())).collect();
    let lists: Vec<_> =
        collections.into_iter().map(|(resource, namespace)| list(client, resource, namespace)).collect();
    let served = stream::iter(lists).buffer_unordered(PARALLEL).filter_map(|listed| async move {
        match listed {
            // A server need not serve all groups.
            Err(error) if error.source.is_not_found() => None,
            other => Some(other),
        }
    });
    let mut collections: BTreeMap<_, _> = served.try_collect().await?;
    let mut writes = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let known: Option<&mut Known> = collections.get_mut(&(wanted.resource.clone(), wanted.namespace().to_owned()));
        let Some(known) = known else { continue };
        let known = known.remove(wanted.name());
        writes.push(ensure_one(client, wanted, known));
    }
    stream::iter(writes).buffer_unordered(PARALLEL).try_collect().await
}

async fn ensure_one(client: &dyn Client, wanted: Wanted, known: Option<Arc<Object>>) -> Result<(), Error> {
    write(client, &wanted, known).await.map_err(|source| wanted.fail(source))
}

async fn write(client: &dyn Client, wanted: &Wanted, known: Option<Arc<Object>>) -> Result<(), crate::Error> {
    let create = || wanted.request(Verb::Create(wanted.value.clone(), WriteOptions::default()));
    let change = match known {
        None => reconcile::Change::Create,
        Some(known) => reconcile::change(&known.value()?, &wanted.value),
    };
    match change {
        reconcile::Change::None => {}
        reconcile::Change::Create => _ = client.request(create()).await?,
        reconcile::Change::Update(value) => {
            client.request(wanted.request(Verb::Update(value, WriteOptions::default()))).await?;
        }
        reconcile::Change::Replace => {
            client.request(wanted.request(Verb::Delete(DeleteOptions::default()))).await?;
            client.request(create()).await?;
        }
    }
    Ok(())
}
