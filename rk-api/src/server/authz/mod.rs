//! Authorization: whether a known caller may do what they ask.
//!
//! The server asks one [`Authorizer`], most often a [`Union`] of [`SuperUsers`], [`NodeAuthorizer`] and [`Rbac`].
//! [`Rbac`] follows roles and bindings through the server's [`Reader`](super::Reader) and keeps an index of them by
//! subject. Others are [`Abac`] and (feature `serve`) `AuthorizationWebhook`. [`forbidden`] words the 403 that a refusal becomes; [`EscalationCheck`] keeps callers from granting what they
//! do not hold.

mod abac;
mod compiled;
mod escalation;
mod node;
mod rbac;
mod rules;
#[cfg(feature = "serve")]
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{api::rbac::v1::PolicyRule, apimachinery::pkg::apis::meta::v1::Status};

use super::{Attributes, Authorizer, Decision, UserInfo};
use crate::{StatusExt, status};

pub use abac::{Abac, AbacError};
pub use escalation::EscalationCheck;
pub(crate) use node::taken_from;
pub use node::{NodeAuthorizer, node_name};
pub use rbac::Rbac;
pub use rules::{covers, describe_rule, rule_allows};
#[cfg(feature = "serve")]
pub use webhook::{AuthorizationWebhook, WebhookOptions};

/// The group whose members may do everything, before any role exists.
pub const SUPERUSERS: &str = "system:masters";

/// The rules that apply to a caller in a namespace.
#[derive(Debug, Clone, Default)]
pub struct ResolvedRules {
    /// The rules, in no particular order.
    pub rules: Vec<PolicyRule>,
    /// What could not be resolved, such as a binding to a role that is not there.
    pub errors: Vec<String>,
    /// Whether there may be more that nobody can list.
    pub incomplete: bool,
}

/// Lists the rules that apply to a caller: what `SelfSubjectRulesReview` and the escalation check need.
#[async_trait]
pub trait RuleResolver: Send + Sync + 'static {
    /// Every rule that applies to the user in the namespace (empty: cluster-wide rules only).
    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules;
}

fn everything() -> Vec<PolicyRule> {
    let all = || Some(vec!["*".to_owned()]);
    vec![
        PolicyRule { verbs: vec!["*".into()], api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: vec!["*".into()], non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

/// Allows everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _attributes: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }
}

#[async_trait]
impl RuleResolver for AlwaysAllow {
    async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> ResolvedRules {
        ResolvedRules { rules: everything(), ..ResolvedRules::default() }
    }
}

/// Allows members of [`SUPERUSERS`] everything and has no opinion on others.
#[derive(Debug, Clone, Copy, Default)]
pub struct SuperUsers;

#[async_trait]
impl Authorizer for SuperUsers {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        decide_superuser(attributes)
    }

    fn authorize_at_once(&self, attributes: &Attributes) -> Option<Decision> {
        Some(decide_superuser(attributes))
    }
}

fn decide_superuser(attributes: &Attributes) -> Decision {
    if attributes.user.in_group(SUPERUSERS) {
        Decision::Allow(String::new())
    } else {
        Decision::NoOpinion(String::new())
    }
}

#[async_trait]
impl RuleResolver for SuperUsers {
    async fn rules_for(&self, user: &UserInfo, _namespace: &str) -> ResolvedRules {
        let rules = if user.in_group(SUPERUSERS) { everything() } else { Vec::new() };
        ResolvedRules { rules, ..ResolvedRules::default() }
    }
}

/// The rules of several resolvers together.
#[derive(Clone, Default)]
pub struct Resolvers(Vec<Arc<dyn RuleResolver>>);

impl Resolvers {
    /// Asks all of these.
    pub fn new(resolvers: Vec<Arc<dyn RuleResolver>>) -> Self {
        Self(resolvers)
    }
}

#[async_trait]
impl RuleResolver for Resolvers {
    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules {
        let mut all = ResolvedRules::default();
        for resolver in &self.0 {
            let ResolvedRules { rules, errors, incomplete } = resolver.rules_for(user, namespace).await;
            all.rules.extend(rules);
            all.errors.extend(errors);
            all.incomplete |= incomplete;
        }
        all
    }
}

/// Several authorizers, asked in order until one allows or denies.
#[derive(Clone, Default)]
pub struct Union(Vec<Arc<dyn Authorizer>>);

impl Union {
    /// Asks these, in this order.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(authorizers)
    }
}

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        decide(&self.0, attributes).await
    }

    fn authorize_at_once(&self, attributes: &Attributes) -> Option<Decision> {
        decide_at_once(&self.0, attributes)
    }
}

/// What authorizers said that did not decide.
#[derive(Default)]
struct Undecided {
    reasons: Vec<String>,
    failed: bool,
}

impl Undecided {
    /// The decision, if this one is.
    fn hear(&mut self, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::NoOpinion(reason) if reason.is_empty() => {}
            Decision::NoOpinion(reason) => self.reasons.push(reason),
            Decision::Failed(reason) => {
                self.failed = true;
                self.reasons.push(reason);
            }
            decided => return Some(decided),
        }
        None
    }

    fn end(self) -> Decision {
        let reasons = self.reasons.join("\n");
        if self.failed { Decision::Failed(reasons) } else { Decision::NoOpinion(reasons) }
    }
}

/// What several authorizers say together.
pub(crate) async fn decide(authorizers: &[Arc<dyn Authorizer>], attributes: &Attributes) -> Decision {
    let mut undecided = Undecided::default();
    for authorizer in authorizers {
        let decision = match authorizer.authorize_at_once(attributes) {
            Some(decision) => decision,
            None => authorizer.authorize(attributes).await,
        };
        if let Some(decided) = undecided.hear(decision) {
            return decided;
        }
    }
    undecided.end()
}

/// The same, if it takes no wait.
fn decide_at_once(authorizers: &[Arc<dyn Authorizer>], attributes: &Attributes) -> Option<Decision> {
    let mut undecided = Undecided::default();
    for authorizer in authorizers {
        if let Some(decided) = undecided.hear(authorizer.authorize_at_once(attributes)?) {
            return Some(decided);
        }
    }
    Some(undecided.end())
}

/// The 403 for a refused request, in Kubernetes' words
/// (apiserver's `endpoints/handlers/responsewriters/errors.go`); `reason` is the authorizer's, often empty.
pub fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let Attributes { user, verb, group, resource, subresource, namespace, name, path, .. } = attributes;
    let user = &user.name;
    let mut why = if resource.is_empty() {
        format!("User {user:?} cannot {verb} path {path:?}")
    } else {
        let slash = if subresource.is_empty() { "" } else { "/" };
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let target = format!("{resource}{slash}{subresource}");
        format!("User {user:?} cannot {verb} resource {target:?} in API group {group:?} {place}")
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    let dot = if group.is_empty() { "" } else { "." };
    let message = match (resource.is_empty(), name.is_empty()) {
        (true, _) => format!("forbidden: {why}"),
        (false, true) => format!("{resource}{dot}{group} is forbidden: {why}"),
        (false, false) => format!("{resource}{dot}{group} {name:?} is forbidden: {why}"),
    };
    status::failure(403, "Forbidden", message).about(group, resource, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_kubernetes_words_them() {
        let attributes = Attributes {
            user: Arc::new(UserInfo::new("x", [])),
            verb: "list".into(),
            resource: "pods".into(),
            namespace: "default".into(),
            ..Attributes::default()
        };
        let message = |attributes: &Attributes, reason: &str| forbidden(attributes, reason).message.unwrap();
        assert_eq!(
            message(&attributes, ""),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        let named = Attributes {
            verb: "update".into(),
            group: "apps".into(),
            resource: "deployments".into(),
            subresource: "scale".into(),
            name: "web".into(),
            ..attributes.clone()
        };
        assert_eq!(
            message(&named, "because"),
            "deployments.apps \"web\" is forbidden: User \"x\" cannot update resource \"deployments/scale\" \
             in API group \"apps\" in the namespace \"default\": because"
        );
        let cluster = Attributes { namespace: String::new(), resource: "nodes".into(), ..attributes.clone() };
        assert!(message(&cluster, "").ends_with(r#"in API group "" at the cluster scope"#));
        let path = Attributes { resource: "".into(), verb: "get".into(), path: "/metrics".into(), ..attributes };
        assert_eq!(message(&path, ""), r#"forbidden: User "x" cannot get path "/metrics""#);
        let status = forbidden(&named, "");
        assert_eq!((status.code, status.reason.as_deref()), (Some(403), Some("Forbidden")));
        let details = status.details.unwrap();
        assert_eq!((details.group.as_deref(), details.kind.as_deref()), (Some("apps"), Some("deployments")));
    }

    #[tokio::test]
    async fn the_first_opinion_of_a_union_wins() {
        struct Says(Decision);
        #[async_trait]
        impl Authorizer for Says {
            async fn authorize(&self, _: &Attributes) -> Decision {
                self.0.clone()
            }
        }
        let no = || Arc::new(Says(Decision::NoOpinion("first".into()))) as Arc<dyn Authorizer>;
        let deny = || Arc::new(Says(Decision::Deny("no".into()))) as Arc<dyn Authorizer>;
        let attributes = Attributes::default();
        let ask = |list| async { Union::new(list).authorize(&attributes).await };
        assert_eq!(ask(vec![no(), deny(), Arc::new(AlwaysAllow)]).await, Decision::Deny("no".into()));
        assert_eq!(ask(vec![no(), Arc::new(AlwaysAllow), deny()]).await, Decision::Allow(String::new()));
        assert_eq!(ask(vec![no(), no()]).await, Decision::NoOpinion("first\nfirst".into()));
        let failed = || Arc::new(Says(Decision::Failed("down".into()))) as Arc<dyn Authorizer>;
        assert_eq!(ask(vec![failed(), no()]).await, Decision::Failed("down\nfirst".into()));
        assert_eq!(ask(vec![failed(), Arc::new(AlwaysAllow)]).await, Decision::Allow(String::new()));
        assert_eq!(ask(vec![failed(), deny()]).await, Decision::Deny("no".into()));
        let master = Attributes { user: Arc::new(UserInfo::loopback()), ..Attributes::default() };
        assert_eq!(SuperUsers.authorize(&master).await, Decision::Allow(String::new()));
        assert_eq!(SuperUsers.authorize(&attributes).await, Decision::NoOpinion(String::new()));
    }
}
