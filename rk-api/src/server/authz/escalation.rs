//! Nobody grants what they do not hold: the check on writes of roles and bindings
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>).

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::rbac::v1::{PolicyRule, RoleRef},
    apimachinery::pkg::apis::meta::v1::Status,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Rbac, RuleResolver, SUPERUSERS, covers, describe_rule, everything, rules::compact};
use crate::{
    Resource,
    server::{AdmissionRequest, Admit, Attributes, Authorizer, Decision, Operation, Reader},
    status,
};

/// Refuses to write a role with rules, or a binding to a role with rules, that the writer does not hold, unless they may
/// `escalate` the role or `bind` it.
pub struct EscalationCheck {
    authorizer: Arc<dyn Authorizer>,
    rbac: Arc<Rbac>,
}

impl EscalationCheck {
    /// Asks `authorizer` for the verbs `escalate` and `bind`, and `rbac` for what the writer holds.
    pub fn new(authorizer: Arc<dyn Authorizer>, rbac: Arc<Rbac>) -> Self {
        Self { authorizer, rbac }
    }

    async fn may(&self, request: &AdmissionRequest, verb: &'static str, plural: &str, name: &str) -> bool {
        let attributes = Attributes {
            verb: verb.into(),
            resource: plural.to_owned().into(),
            subresource: String::new(),
            name: name.to_owned(),
            ..request.attributes.clone()
        };
        matches!(self.authorizer.authorize(&attributes).await, Decision::Allow(_))
    }

    /// What the caller asks for and does not hold, as the refusal says it.
    async fn refusal(&self, request: &AdmissionRequest, asked: &[PolicyRule]) -> Option<String> {
        let user = &request.attributes.user;
        let held = self.rbac.rules_for(user, &request.attributes.namespace).await;
        let missing = covers(&held.rules, asked);
        if missing.is_empty() {
            return None;
        }
        let missing: BTreeSet<String> = compact(missing).iter().map(describe_rule).collect();
        let missing: Vec<_> = missing.into_iter().collect();
        let groups: Vec<_> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        let mut message = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            missing.join("\n")
        );
        if !held.errors.is_empty() {
            message.push_str(&format!("; resolution errors: [{}]", held.errors.join(" ")));
        }
        Some(message)
    }

    async fn check_role(&self, request: &AdmissionRequest, new: &Value, old: Option<&Value>) -> Result<(), Status> {
        let name = name_of(request, new);
        if self.may(request, "escalate", &request.resource.plural, &name).await {
            return Ok(());
        }
        let aggregates = |role: Option<&Value>| role.is_some_and(|role| !role["aggregationRule"].is_null());
        if request.resource.kind == "ClusterRole"
            && (aggregates(Some(new)) || aggregates(old))
            && self.refusal(request, &everything()).await.is_some()
        {
            let why = "must have cluster-admin privileges to use an aggregationRule";
            return Err(status::forbidden(&request.resource, &name, why));
        }
        let rules: Vec<PolicyRule> = parse(&new["rules"]).map_err(|error| status::bad_request(error.to_string()))?;
        match self.refusal(request, &rules).await {
            Some(why) => Err(status::forbidden(&request.resource, &name, &why)),
            None => Ok(()),
        }
    }

    async fn check_binding(&self, request: &AdmissionRequest, new: &Value) -> Result<(), Status> {
        let name = name_of(request, new);
        let role: RoleRef =
            serde_json::from_value(new["roleRef"].clone()).map_err(|error| status::bad_request(error.to_string()))?;
        let plural = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        if self.may(request, "bind", plural, &role.name).await {
            return Ok(());
        }
        let rules = self.rbac.role_rules(&role, &request.attributes.namespace).await.map_err(status::internal)?;
        let Some(rules) = rules else {
            let namespaced = plural == "roles";
            let resource = Resource::new("rbac.authorization.k8s.io", "v1", &role.kind, plural, namespaced);
            return Err(status::not_found(&resource, &role.name));
        };
        match self.refusal(request, &rules).await {
            Some(why) => Err(status::forbidden(&request.resource, &name, &why)),
            None => Ok(()),
        }
    }
}

fn parse(rules: &Value) -> Result<Vec<PolicyRule>, serde_json::Error> {
    Ok(Option::<Vec<PolicyRule>>::deserialize(rules)?.unwrap_or_default())
}

fn name_of(request: &AdmissionRequest, object: &Value) -> String {
    let own = object["metadata"]["name"].as_str().unwrap_or_default();
    if own.is_empty() { request.attributes.name.clone() } else { own.to_owned() }
}

/// Whether a change touches nothing but what the garbage collector writes to let an object go.
fn only_collects(new: &Value, old: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                meta.remove(field);
            }
        }
        object
    };
    strip(new) == strip(old)
}

#[async_trait]
impl Admit for EscalationCheck {
    fn name(&self) -> &str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && subresource.is_empty()
            && resource.group == "rbac.authorization.k8s.io"
            && matches!(&*resource.plural, "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings")
    }

    async fn validate(&self, request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(new) = &request.object else { return Ok(()) };
        if request.attributes.user.in_group(SUPERUSERS) {
            return Ok(());
        }
        let old = request.old_value()?;
        if old.as_ref().is_some_and(|old| only_collects(new, old)) {
            return Ok(());
        }
        if request.resource.plural.ends_with("bindings") {
            self.check_binding(request, new).await
        } else {
            self.check_role(request, new, old.as_deref()).await
        }
    }
}
