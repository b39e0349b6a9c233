//! A service that decides (<https://kubernetes.io/docs/reference/access-authn-authz/webhook/>).

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};

use super::{ResolvedRules, RuleResolver};
use crate::server::{
    Attributes, Authorizer, Decision, Remote, UserInfo,
    remembered::{Remembered, question},
};
use crate::{FieldSelector, LabelSelector, Requirement};

/// Answers that are remembered at once.
const REMEMBERED: usize = 8192;
/// Longer questions are not remembered, as kube-apiserver has it.
const LONG: usize = 10_000;

/// How a service is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookOptions {
    /// How long a yes counts.
    pub remember_allowed: Duration,
    /// How long a no counts.
    pub remember_refused: Duration,
    /// How long the service may take.
    pub timeout: Duration,
    /// Whether a service that does not answer refuses, rather than letting others decide.
    pub deny_on_failure: bool,
}

impl Default for WebhookOptions {
    /// kube-apiserver's times; where a service does not answer, others decide.
    fn default() -> Self {
        Self {
            remember_allowed: Duration::from_secs(300),
            remember_refused: Duration::from_secs(30),
            timeout: Duration::from_secs(3),
            deny_on_failure: false,
        }
    }
}

/// Asks a service with a `SubjectAccessReview`, and remembers its answers for a while.
pub struct AuthorizationWebhook {
    remote: Remote,
    options: WebhookOptions,
    known: Remembered<Decision>,
}

impl AuthorizationWebhook {
    /// Asks `remote`.
    pub fn new(remote: Remote, options: WebhookOptions) -> Self {
        Self { remote, options, known: Remembered::new(REMEMBERED) }
    }

    fn remember(&self, decision: &Decision) -> Duration {
        match decision {
            Decision::Allow(_) => self.options.remember_allowed,
            _ => self.options.remember_refused,
        }
    }

    async fn ask(&self, spec: &Value) -> Result<Decision, String> {
        let question = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let asked = tokio::time::timeout(self.options.timeout, self.remote.json(Method::POST, Some(&question))).await;
        let answer = asked.map_err(|_| "it does not answer".to_owned())??;
        let status = &answer["status"];
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        match (status["allowed"] == true, status["denied"] == true) {
            (true, true) => Err("it both allows and denies".to_owned()),
            (true, false) => Ok(Decision::Allow(reason)),
            (false, true) => Ok(Decision::Deny(reason)),
            (false, false) => Ok(Decision::NoOpinion(reason)),
        }
    }
}

/// What is asked; empty fields are left out.
fn spec(asked: &Attributes) -> Value {
    let mut spec = json!({"user": asked.user.name});
    let mut set = |field: &str, value: Value| spec[field] = value;
    if !asked.user.uid.is_empty() {
        set("uid", asked.user.uid.as_str().into());
    }
    if !asked.user.groups.is_empty() {
        set("groups", json!(asked.user.groups));
    }
    if !asked.user.extra.is_empty() {
        set("extra", json!(asked.user.extra));
    }
    if asked.resource.is_empty() {
        set("nonResourceAttributes", json!({"path": asked.path, "verb": asked.verb}));
        return spec;
    }
    let mut resource = json!({"verb": asked.verb, "resource": asked.resource});
    for (field, text) in [
        ("namespace", &*asked.namespace),
        ("group", &*asked.group),
        ("version", &*asked.version),
        ("subresource", &*asked.subresource),
        ("name", &*asked.name),
    ] {
        if !text.is_empty() {
            resource[field] = text.into();
        }
    }
    if !asked.fields.is_empty() {
        resource["fieldSelector"] = json!({"requirements": field_requirements(&asked.fields)});
    }
    if !asked.labels.is_empty() {
        resource["labelSelector"] = json!({"requirements": label_requirements(&asked.labels)});
    }
    set("resourceAttributes", resource);
    spec
}

fn field_requirements(fields: &FieldSelector) -> Vec<Value> {
    let term = |(key, value, equal): &(String, String, bool)| json!({"key": key, "operator": if *equal { "In" } else { "NotIn" }, "values": [value]});
    fields.terms.iter().map(term).collect()
}

/// Those that an API can say; the others only make the request smaller, so it is safe to leave them out (KEP-4601).
fn label_requirements(labels: &LabelSelector) -> Vec<Value> {
    let requirement = |requirement: &Requirement| match requirement {
        Requirement::In(key, values) => Some(json!({"key": key, "operator": "In", "values": values})),
        Requirement::NotIn(key, values) => Some(json!({"key": key, "operator": "NotIn", "values": values})),
        Requirement::Exists(key) => Some(json!({"key": key, "operator": "Exists"})),
        Requirement::DoesNotExist(key) => Some(json!({"key": key, "operator": "DoesNotExist"})),
        Requirement::GreaterThan(..) | Requirement::LessThan(..) => None,
    };
    labels.requirements.iter().filter_map(requirement).collect()
}

#[async_trait]
impl Authorizer for AuthorizationWebhook {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let spec = spec(attributes);
        let text = spec.to_string();
        let question = question(&text);
        if let Some(decision) = self.known.get(&question) {
            return decision;
        }
        let decision = match self.ask(&spec).await {
            Ok(decision) => decision,
            Err(why) => {
                tracing::warn!(why, "the authorization webhook failed");
                let why = format!("authorization webhook: {why}");
                return if self.options.deny_on_failure { Decision::Deny(why) } else { Decision::Failed(why) };
            }
        };
        if text.len() < LONG {
            self.known.put(question, decision.clone(), self.remember(&decision));
        }
        decision
    }
}

#[async_trait]
impl RuleResolver for AuthorizationWebhook {
    async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> ResolvedRules {
        ResolvedRules {
            incomplete: true,
            errors: vec!["webhook authorizer does not support user rule resolution".to_owned()],
            ..ResolvedRules::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn questions_are_those_of_the_api() {
        let user = Arc::new(UserInfo::new("jane", ["dev"]));
        let asked = Attributes {
            user: Arc::clone(&user),
            verb: "list".into(),
            resource: "pods".into(),
            version: "v1".into(),
            namespace: "dev".into(),
            fields: "spec.nodeName=n1".parse().unwrap(),
            labels: "app in (a,b),!old".parse().unwrap(),
            ..Attributes::default()
        };
        assert_eq!(
            spec(&asked),
            json!({"user": "jane", "groups": ["dev"], "resourceAttributes": {
                "verb": "list", "resource": "pods", "version": "v1", "namespace": "dev",
                "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
                "labelSelector": {"requirements": [
                    {"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]},
            }})
        );
        let path = Attributes { user, verb: "get".into(), path: "/logs".into(), ..Attributes::default() };
        assert_eq!(spec(&path)["nonResourceAttributes"], json!({"path": "/logs", "verb": "get"}));
    }
}
