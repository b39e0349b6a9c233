//! Which requests a FlowSchema is about (`flowcontrol.apiserver.k8s.io/v1`).

use k8s_openapi::api::flowcontrol::v1::{NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject};

use crate::server::{Attributes, UserInfo};

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|known| known == "*" || known == word)
}

/// Whether one of the rules applies to a request.
pub(super) fn applies(rules: &[PolicyRulesWithSubjects], asked: &Attributes) -> bool {
    rules.iter().any(|rule| {
        rule.subjects.iter().any(|subject| names(subject, &asked.user))
            && if asked.resource.is_empty() {
                rule.non_resource_rules.iter().flatten().any(|rule| on_path(rule, asked))
            } else {
                rule.resource_rules.iter().flatten().any(|rule| on_resource(rule, asked))
            }
    })
}

fn names(subject: &Subject, user: &UserInfo) -> bool {
    let user_is = |name: &str| name == "*" || name == user.name;
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|of| user_is(&of.name)),
        "Group" => subject.group.as_ref().is_some_and(|of| of.name == "*" || user.in_group(&of.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|of| {
            let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
            account.is_some_and(|(namespace, name)| namespace == of.namespace && (of.name == "*" || of.name == name))
        }),
        _ => false,
    }
}

fn on_resource(rule: &ResourcePolicyRule, asked: &Attributes) -> bool {
    let resource = || format!("{}/{}", asked.resource, asked.subresource);
    has(&rule.verbs, &asked.verb)
        && has(&rule.api_groups, &asked.group)
        && if asked.subresource.is_empty() {
            has(&rule.resources, &asked.resource)
        } else {
            has(&rule.resources, &resource())
        }
        && if asked.namespace.is_empty() {
            rule.cluster_scope == Some(true)
        } else {
            has(rule.namespaces.as_deref().unwrap_or_default(), &asked.namespace)
        }
}

fn on_path(rule: &NonResourcePolicyRule, asked: &Attributes) -> bool {
    let fits = |pattern: &String| {
        pattern == "*"
            || *pattern == asked.path
            || pattern.strip_suffix('*').is_some_and(|prefix| asked.path.starts_with(prefix))
    };
    has(&rule.verbs, &asked.verb) && rule.non_resource_urls.iter().any(fits)
}
