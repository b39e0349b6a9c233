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
/// Roles and bindings are compiled into an index by subject, which holds until one of them changes.
pub struct Rbac {
    reader: Arc<dyn Reader>,
    cluster: Mutex<Arc<Cluster>>,
    namespaces: Mutex<Namespaces>,
}

/// The compiled cluster roles and their bindings.
#[derive(Default)]
struct Cluster {
    /// The versions of the roles and of the bindings.
    made_of: [u64; 2],
    roles: Arc<ClusterRoles>,
    grants: Arc<Grants>,
}

/// The compiled bindings of those namespaces that have some and were asked for.
#[derive(Default)]
struct Namespaces {
    /// The versions of cluster roles, roles and bindings.
    made_of: [u64; 3],
    grants: HashMap<String, Arc<Grants>>,
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
        let version = |plural| self.reader.version(GROUP, plural);
        // Taken before the objects: what changes meanwhile makes it old.
        let made_of = [version("clusterroles")?, version("clusterrolebindings")?];
        let known = Arc::clone(&self.cluster.lock());
        if known.made_of == made_of {
            return Ok(known);
        }
        let roles = if known.made_of[0] == made_of[0] {
            Arc::clone(&known.roles)
        } else {
            Arc::new(compiled::cluster_roles(&self.read("clusterroles", "").await?))
        };
        let grants = Arc::new(compiled::cluster_grants(&self.read("clusterrolebindings", "").await?, &roles));
        let cluster = Arc::new(Cluster { made_of, roles, grants });
        *self.cluster.lock() = Arc::clone(&cluster);
        Ok(cluster)
    }

    async fn namespace(&self, namespace: &str, cluster: &Cluster) -> Result<Option<Arc<Grants>>, Error> {
        let version = |plural| self.reader.version(GROUP, plural);
        let made_of = [cluster.made_of[0], version("roles")?, version("rolebindings")?];
        {
            let mut known = self.namespaces.lock();
            if known.made_of != made_of {
                *known = Namespaces { made_of, ..Namespaces::default() };
            }
            if let Some(grants) = known.grants.get(namespace) {
                return Ok(Some(Arc::clone(grants)));
            }
        }
        let bindings = self.read("rolebindings", namespace).await?;
        if bindings.is_empty() {
            return Ok(None);
        }
        let roles = self.read("roles", namespace).await?;
        let grants = Arc::new(compiled::namespace_grants(&bindings, &roles, &cluster.roles));
        let mut known = self.namespaces.lock();
        if known.made_of == made_of {
            known.grants.insert(namespace.to_owned(), Arc::clone(&grants));
        }
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
