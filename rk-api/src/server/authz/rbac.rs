//! The RBAC authorizer.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{ResolvedRules, RuleResolver, SUPERUSERS, compiled::Compiled, everything};
use crate::{
    Error,
    server::{Attributes, Authorizer, Decision, Reader, UserInfo},
};

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// Role-based access control: Role, ClusterRole and their bindings, read through the server's own cache.
///
/// Roles and bindings are compiled into an index by subject. A change of one of them changes what it touches there and
/// nothing else, when somebody next asks.
pub struct Rbac {
    reader: Arc<dyn Reader>,
    compiled: RwLock<Compiled>,
}

impl Rbac {
    /// Decides by the roles and bindings that `reader` shows.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader, compiled: RwLock::default() }
    }

    /// Everything, changed up to now.
    fn compiled(&self) -> Result<RwLockReadGuard<'_, Compiled>, Error> {
        let compiled = self.compiled.read();
        if compiled.is_current(&*self.reader)? {
            return Ok(compiled);
        }
        drop(compiled);
        let mut compiled = self.compiled.write();
        compiled.follow(&*self.reader)?;
        Ok(RwLockWriteGuard::downgrade(compiled))
    }

    fn decide(&self, attributes: &Attributes) -> Decision {
        let compiled = match self.compiled() {
            Ok(compiled) => compiled,
            Err(error) => return Decision::Failed(format!("RBAC: {error}")),
        };
        match compiled.allow(attributes).map_err(|errors| errors.join(", ")) {
            Ok(reason) => Decision::Allow(reason.to_owned()),
            Err(errors) if errors.is_empty() => Decision::NoOpinion(errors),
            Err(errors) if errors.contains(", ") => Decision::NoOpinion(format!("RBAC: [{errors}]")),
            Err(error) => Decision::NoOpinion(format!("RBAC: {error}")),
        }
    }

    /// The rules of the role that a binding in `namespace` refers to; `None` if there is no such role.
    ///
    /// # Errors
    /// The roles could not be read.
    pub async fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Option<Arc<Vec<PolicyRule>>>, Error> {
        if role.kind == "ClusterRole" {
            return Ok(self.compiled()?.cluster_role(role));
        }
        let Some(object) = self.reader.get(GROUP, "roles", namespace, &role.name).await? else { return Ok(None) };
        let role = object.typed::<k8s_openapi::api::rbac::v1::Role>()?;
        Ok(Some(Arc::new(role.rules.clone().unwrap_or_default())))
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        self.decide(attributes)
    }

    fn authorize_at_once(&self, attributes: &Attributes) -> Option<Decision> {
        Some(self.decide(attributes))
    }
}

#[async_trait]
impl RuleResolver for Rbac {
    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules {
        let mut resolved = ResolvedRules::default();
        if user.in_group(SUPERUSERS) {
            resolved.rules = everything();
        }
        match self.compiled() {
            Ok(compiled) => {
                for (_, rules) in compiled.of(user, namespace) {
                    match rules {
                        Ok(rules) => {
                            for rule in rules.list.iter() {
                                if !resolved.rules.contains(rule) {
                                    resolved.rules.push(rule.clone());
                                }
                            }
                        }
                        Err(error) => resolved.errors.push(error),
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
