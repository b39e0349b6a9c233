//! Attribute-based access control: policies in a file
//! (<https://kubernetes.io/docs/reference/access-authn-authz/abac/>).

use std::path::Path;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

use super::{ResolvedRules, RuleResolver};
use crate::server::{Attributes, Authorizer, Decision, UserInfo};

/// A policy file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AbacError {
    /// The file can't be read.
    #[error("can't read the policy file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is no policy.
    #[error("policy file {path}, line {line}: {message}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// A line of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    spec: Spec,
}

/// Who may do what; `*` is everybody or everything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Spec {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

impl Spec {
    fn is_about(&self, user: &UserInfo) -> bool {
        let fits = |wanted: &str, has: &dyn Fn(&str) -> bool| wanted.is_empty() || wanted == "*" || has(wanted);
        (!self.user.is_empty() || !self.group.is_empty())
            && fits(&self.user, &|name| user.name == name)
            && fits(&self.group, &|group| user.in_group(group))
    }

    fn allows(&self, asked: &Attributes) -> bool {
        let fits = |wanted: &str, is: &str| wanted == "*" || wanted == is;
        if !self.is_about(&asked.user) || self.readonly && !matches!(&*asked.verb, "get" | "list" | "watch") {
            return false;
        }
        if asked.resource.is_empty() {
            let path = &self.non_resource_path;
            return fits(path, &asked.path)
                || path.strip_suffix('*').is_some_and(|prefix| asked.path.starts_with(prefix));
        }
        fits(&self.namespace, &asked.namespace)
            && fits(&self.resource, &asked.resource)
            && fits(&self.api_group, &asked.group)
    }
}

/// Allows what a line of the file allows; has no opinion on the rest.
#[derive(Debug, Clone, Default)]
pub struct Abac(Vec<Spec>);

impl Abac {
    /// Reads a policy file: a `Policy` of `abac.authorization.kubernetes.io/v1beta1` as JSON on each line.
    ///
    /// # Errors
    /// The file can't be read, or a line is no policy.
    pub fn from_file(path: &Path) -> Result<Self, AbacError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| AbacError::Read { path: name.clone(), source })?;
        Self::parse(&text).map_err(|(line, message)| AbacError::Line { path: name, line, message })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut all = Vec::new();
        for (at, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let policy: Policy = serde_json::from_str(line).map_err(|error| (at + 1, error.to_string()))?;
            if policy.api_version != "abac.authorization.kubernetes.io/v1beta1" || policy.kind != "Policy" {
                let what = format!("{}, Kind={} is no Policy", policy.api_version, policy.kind);
                return Err((at + 1, what));
            }
            all.push(policy.spec);
        }
        Ok(Self(all))
    }
}

#[async_trait]
impl Authorizer for Abac {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if self.0.iter().any(|spec| spec.allows(attributes)) {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion("No policy matched.".to_owned())
    }
}

#[async_trait]
impl RuleResolver for Abac {
    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> ResolvedRules {
        let one = |text: &String| Some(vec![text.clone()]);
        let mut rules = Vec::new();
        for spec in self.0.iter().filter(|spec| spec.is_about(user)) {
            let verbs = if spec.readonly { vec!["get", "list", "watch"] } else { vec!["*"] };
            let verbs: Vec<String> = verbs.into_iter().map(str::to_owned).collect();
            if !spec.resource.is_empty() && (spec.namespace == "*" || spec.namespace == namespace) {
                let (api_groups, resources) = (one(&spec.api_group), one(&spec.resource));
                rules.push(PolicyRule { verbs: verbs.clone(), api_groups, resources, ..PolicyRule::default() });
            }
            if !spec.non_resource_path.is_empty() {
                rules.push(PolicyRule {
                    verbs,
                    non_resource_urls: one(&spec.non_resource_path),
                    ..PolicyRule::default()
                });
            }
        }
        ResolvedRules { rules, ..ResolvedRules::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn lines_allow_what_the_documentation_says() {
        let line = |spec: &str| {
            format!(r#"{{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{spec}}}"#)
        };
        let text = [
            "# from the documentation".to_owned(),
            line(r#"{"user":"alice","namespace":"*","resource":"*","apiGroup":"*"}"#),
            line(r#"{"user":"bob","namespace":"dev","resource":"pods","readonly":true}"#),
            line(r#"{"group":"staff","readonly":true,"nonResourcePath":"/logs/*"}"#),
            line(r#"{"resource":"*","namespace":"*","apiGroup":"*"}"#),
        ];
        let abac = Abac::parse(&text.join("\n")).unwrap();
        let asked = |user: &str,
                     verb: &'static str,
                     group: &'static str,
                     resource: &'static str,
                     namespace: &str,
                     path: &str| Attributes {
            user: Arc::new(UserInfo::new(user, ["staff"])),
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            path: path.into(),
            ..Attributes::default()
        };
        for (asked, allowed) in [
            (asked("alice", "delete", "apps", "deployments", "x", ""), true),
            (asked("alice", "get", "", "", "", "/metrics"), false),
            (asked("bob", "list", "", "pods", "dev", ""), true),
            (asked("bob", "create", "", "pods", "dev", ""), false),
            (asked("bob", "list", "", "pods", "prod", ""), false),
            (asked("bob", "list", "apps", "pods", "dev", ""), false),
            (asked("eve", "get", "", "", "", "/logs/a"), true),
            (asked("eve", "post", "", "", "", "/logs/a"), false),
            (asked("eve", "get", "", "pods", "dev", ""), false),
        ] {
            assert_eq!(abac.authorize(&asked).await == Decision::Allow(String::new()), allowed, "{asked:?}");
        }
        let rules = abac.rules_for(&UserInfo::new("bob", ["staff"]), "dev").await.rules;
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].verbs, ["get", "list", "watch"]);
        assert_eq!(Abac::parse("{}").unwrap_err().0, 1);
        assert_eq!(Abac::parse("\n{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}").unwrap_err().0, 2);
    }
}
