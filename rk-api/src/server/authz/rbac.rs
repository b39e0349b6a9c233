//! The RBAC authorizer.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use parking_lot::Mutex;

use super::{
    ResolvedRules, RuleResolver, SUPERUSERS,
    compiled::{self, ClusterRoles, Grants},
    everything, rule_allows,
};
use crate::{
    Error, LabelSelector, Object,
    server::{Attributes, Authorizer, Decision, Reader, UserInfo},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Role-based access control: Role, ClusterRole and their bindings, read through the server's own cache.
///
/// Roles and bindings are compiled into an index by subject; each decision compares the objects that the index was made
/// of with those in the cache, by pointer, and compiles anew only what changed.
pub struct Rbac {
    reader: Arc<dyn Reader>,
    cluster: Mutex<Arc<Cluster>>,
    namespaces: Mutex<HashMap<String, Arc<Namespace>>>,
}

/// The compiled cluster roles and their bindings, with the objects they come from.
#[derive(Default)]
struct Cluster {
    roles_from: Vec<Arc<Object>>,
    bindings_from: Vec<Arc<Object>>,
    roles: Arc<ClusterRoles>,
    grants: Arc<Grants>,
}

/// The compiled bindings of one namespace, with what they come from.
struct Namespace {
    roles_from: Vec<Arc<Object>>,
    bindings_from: Vec<Arc<Object>>,
    cluster_roles: Arc<ClusterRoles>,
    grants: Arc<Grants>,
}

/// Whether two lists hold the same versions of the same objects.
fn same(a: &[Arc<Object>], b: &[Arc<Object>]) -> bool {
    let equal = |(a, b): (&Arc<Object>, &Arc<Object>)| {
        let (left, right) = (a.meta(), b.meta());
        Arc::ptr_eq(a, b)
            || !left.resource_version.is_empty()
                && left.uid == right.uid
                && left.resource_version == right.resource_version
    };
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

impl Rbac {
    /// Decides by the roles and bindings that `reader` shows.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader, cluster: Mutex::default(), namespaces: Mutex::default() }
    }

    async fn read(&self, plural: &str, namespace: &str) -> Result<Vec<Arc<Object>>, Error> {
        self.reader.list(GROUP, plural, namespace, &LabelSelector::everything()).await
    }

    async fn cluster(&self) -> Result<Arc<Cluster>, Error> {
        let roles_from = self.read("clusterroles", "").await?;
        let bindings_from = self.read("clusterrolebindings", "").await?;
        let mut cluster = self.cluster.lock();
        let same_roles = same(&cluster.roles_from, &roles_from);
        if !same_roles || !same(&cluster.bindings_from, &bindings_from) {
            let roles = if same_roles { cluster.roles.clone() } else { Arc::new(compiled::cluster_roles(&roles_from)) };
            let grants = Arc::new(compiled::cluster_grants(&bindings_from, &roles));
            *cluster = Arc::new(Cluster { roles_from, bindings_from, roles, grants });
        }
        Ok(Arc::clone(&cluster))
    }

    async fn namespace(&self, namespace: &str, cluster: &Cluster) -> Result<Option<Arc<Grants>>, Error> {
        let bindings_from = self.read("rolebindings", namespace).await?;
        if bindings_from.is_empty() {
            self.namespaces.lock().remove(namespace);
            return Ok(None);
        }
        let roles_from = self.read("roles", namespace).await?;
        let mut namespaces = self.namespaces.lock();
        if let Some(known) = namespaces.get(namespace)
            && Arc::ptr_eq(&known.cluster_roles, &cluster.roles)
            && same(&known.roles_from, &roles_from)
            && same(&known.bindings_from, &bindings_from)
        {
            return Ok(Some(Arc::clone(&known.grants)));
        }
        let grants = Arc::new(compiled::namespace_grants(&bindings_from, &roles_from, &cluster.roles));
        let cluster_roles = Arc::clone(&cluster.roles);
        let compiled = Namespace { roles_from, bindings_from, cluster_roles, grants: Arc::clone(&grants) };
        namespaces.insert(namespace.to_owned(), Arc::new(compiled));
        Ok(Some(grants))
    }

    /// The grants to look at for a request in a namespace (empty: none), the cluster's first.
    async fn grants(&self, namespace: &str) -> Result<Vec<Arc<Grants>>, Error> {
        let cluster = self.cluster().await?;
        let mut grants = vec![Arc::clone(&cluster.grants)];
        if !namespace.is_empty() {
            grants.extend(self.namespace(namespace, &cluster).await?);
        }
        Ok(grants)
    }

    /// The rules of the role that a binding in `namespace` refers to; `None` if there is no such role.
    ///
    /// # Errors
    /// The roles could not be read.
    pub async fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Option<Arc<Vec<PolicyRule>>>, Error> {
        if role.kind == "ClusterRole" {
            let cluster = self.cluster().await?;
            return Ok(cluster.roles.get(&role.name).and_then(|rules| rules.clone().ok()));
        }
        let Some(object) = self.reader.get(GROUP, "roles", namespace, &role.name).await? else { return Ok(None) };
        let role = object.typed::<k8s_openapi::api::rbac::v1::Role>()?;
        Ok(Some(Arc::new(role.rules.clone().unwrap_or_default())))
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let all = match self.grants(&attributes.namespace).await {
            Ok(all) => all,
            Err(error) => return Decision::NoOpinion(format!("RBAC: {error}")),
        };
        let mut errors = Vec::new();
        for grant in all.iter().flat_map(|grants| grants.of(&attributes.user)) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule_allows(rule, attributes)) => {
                    return Decision::Allow(grant.reason.clone());
                }
                Ok(_) => {}
                Err(error) if errors.contains(error) => {}
                Err(error) => errors.push(error.clone()),
            }
        }
        match errors.as_slice() {
            [] => Decision::NoOpinion(String::new()),
            [one] => Decision::NoOpinion(format!("RBAC: {one}")),
            several => Decision::NoOpinion(format!("RBAC: [{}]", several.join(", "))),
        }
    }
}

#[async_trait]
impl RuleResolver for Rbac {
    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules {
        let mut resolved = ResolvedRules::default();
        if user.in_group(SUPERUSERS) {
            resolved.rules = everything();
        }
        match self.grants(namespace).await {
            Ok(all) => {
                for grant in all.iter().flat_map(|grants| grants.of(user)) {
                    match &grant.rules {
                        Ok(rules) => {
                            for rule in rules.iter() {
                                if !resolved.rules.contains(rule) {
                                    resolved.rules.push(rule.clone());
                                }
                            }
                        }
                        Err(error) => resolved.errors.push(error.clone()),
                    }
                }
            }
            Err(error) => resolved.errors.push(error.to_string()),
        }
        resolved
    }
}

#[cfg(test)]
mod tests;
