//! Which requests are noted, and how much of them: `audit.k8s.io/v1`'s `Policy`.

use serde::Deserialize;

use crate::server::{Attributes, UserInfo};

/// A policy that can't be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("audit policy: {0}")]
pub struct AuditPolicyError(String);

/// How much of a request is noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when.
    Metadata,
    /// The request's body too.
    Request,
    /// The answer's body too.
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// What is audited.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditPolicy {
    api_version: String,
    kind: String,
    rules: Vec<Rule>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

/// Requests and their level; what is empty is about all.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// The stages of a request.
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

/// What is noted of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) level: Level,
    pub(super) omit_stages: Vec<String>,
    pub(super) omit_managed_fields: bool,
}

impl AuditPolicy {
    /// Reads a `Policy` of `audit.k8s.io/v1`, in YAML or JSON.
    ///
    /// # Errors
    /// It is no such policy, has no rules, or names a stage that there is not.
    pub fn parse(text: &str) -> Result<Self, AuditPolicyError> {
        let fail = |why: String| Err(AuditPolicyError(why));
        let policy: Self = match serde_saphyr::from_str(text) {
            Ok(policy) => policy,
            Err(error) => return fail(error.to_string()),
        };
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return fail(format!("{}, Kind={} is no Policy", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return fail("it has no rules".to_owned());
        }
        let stages = policy.omit_stages.iter().chain(policy.rules.iter().flat_map(|rule| &rule.omit_stages));
        for stage in stages {
            if !STAGES.contains(&stage.as_str()) {
                return fail(format!("there is no stage {stage:?}"));
            }
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            if !rule.paths.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
                return fail(format!("rule {at} is about resources and about nonResourceURLs"));
            }
        }
        Ok(policy)
    }

    /// By the first rule that applies; nothing if none does.
    pub(super) fn choose(&self, asked: &Attributes) -> Option<Chosen> {
        let rule = self.rules.iter().find(|rule| rule.applies(asked))?;
        if rule.level == Level::None {
            return None;
        }
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(rule.omit_stages.iter().cloned());
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Some(Chosen { level: rule.level, omit_stages, omit_managed_fields })
    }
}

fn in_or_empty(list: &[String], word: &str) -> bool {
    list.is_empty() || list.iter().any(|known| known == word)
}

impl Rule {
    fn is_about(&self, user: &UserInfo) -> bool {
        in_or_empty(&self.users, &user.name)
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.in_group(group)))
    }

    fn applies(&self, asked: &Attributes) -> bool {
        if !self.is_about(&asked.user) || !in_or_empty(&self.verbs, &asked.verb) {
            return false;
        }
        if !self.resources.is_empty() || !self.namespaces.is_empty() {
            return !asked.resource.is_empty()
                && in_or_empty(&self.namespaces, &asked.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.hold(asked)));
        }
        if !self.paths.is_empty() {
            let fits = |pattern: &String| {
                *pattern == asked.path || pattern.strip_suffix('*').is_some_and(|prefix| asked.path.starts_with(prefix))
            };
            return asked.resource.is_empty() && self.paths.iter().any(fits);
        }
        true
    }
}

impl Resources {
    fn hold(&self, asked: &Attributes) -> bool {
        if self.group != asked.group || !in_or_empty(&self.resource_names, &asked.name) {
            return false;
        }
        let fits = |wanted: &String| match wanted.split_once('/') {
            None if wanted == "*" => true,
            None => asked.subresource.is_empty() && *wanted == asked.resource,
            Some(("*", sub)) => !asked.subresource.is_empty() && sub == asked.subresource,
            Some((resource, "*")) => resource == asked.resource,
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        };
        self.resources.is_empty() || self.resources.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_first_rule_that_applies_counts() {
        let policy = AuditPolicy::parse(
            r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints]}]}
- {level: None, userGroups: ["system:authenticated"], nonResourceURLs: ["/api*", "/version"]}
- {level: Request, resources: [{resources: [configmaps]}], namespaces: [kube-system], omitManagedFields: false}
- {level: Metadata, resources: [{resources: [secrets, "pods/*"]}], omitStages: [ResponseStarted]}
- {level: RequestResponse, resources: [{resources: [pods], resourceNames: [a]}]}
"#,
        )
        .unwrap();
        let asked = |user: &str, verb: &'static str, what: &'static str, namespace: &str, name: &str| {
            let user = Arc::new(UserInfo::new(user, ["system:authenticated"]));
            if what.starts_with('/') {
                return Attributes { user, verb: verb.into(), path: what.into(), ..Attributes::default() };
            }
            let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
            Attributes {
                user,
                verb: verb.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..Attributes::default()
            }
        };
        for (asked, level) in [
            (asked("system:kube-proxy", "watch", "endpoints", "", ""), None),
            (asked("jane", "get", "/api/v1", "", ""), None),
            (asked("jane", "get", "/metrics", "", ""), None),
            (asked("jane", "get", "configmaps", "kube-system", "x"), Some(Level::Request)),
            (asked("jane", "get", "configmaps", "dev", "x"), None),
            (asked("jane", "get", "secrets", "dev", "x"), Some(Level::Metadata)),
            (asked("jane", "create", "pods/exec", "dev", "a"), Some(Level::Metadata)),
            (asked("jane", "get", "pods", "dev", "a"), Some(Level::Metadata)),
            (asked("jane", "get", "services", "dev", "a"), None),
        ] {
            assert_eq!(policy.choose(&asked).map(|chosen| chosen.level), level, "{asked:?}");
        }
        let secret = policy.choose(&asked("jane", "get", "secrets", "dev", "x")).unwrap();
        assert_eq!(secret.omit_stages, ["RequestReceived", "ResponseStarted"]);
        assert!(secret.omit_managed_fields);
        for (text, word) in [
            ("kind: Policy", "is no Policy"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy}", "no rules"),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: All}]}", ""),
            ("{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [X], rules: [{level: None}]}", "no stage"),
        ] {
            assert!(AuditPolicy::parse(text).unwrap_err().to_string().contains(word), "{text}");
        }
    }
}
