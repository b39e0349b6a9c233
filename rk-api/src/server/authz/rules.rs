//! What a policy rule allows, and whether rules cover one another: the meaning of `rbac.authorization.k8s.io/v1`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::server::Attributes;

fn has(list: Option<&Vec<String>>, wanted: &str) -> bool {
    list.is_some_and(|list| list.iter().any(|item| item == "*" || item == wanted))
}

/// Whether a path is one of these, each exact, `*`, or a prefix that ends in `*`.
fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

/// Whether a rule's resource (`*`, `pods`, `pods/log`, `*/scale`) names this resource, written with its subresource.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || subresource.is_empty() && pattern == resource,
        Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
        Some((res, sub)) => res == resource && sub == subresource && !subresource.is_empty(),
    }
}

/// Whether one rule allows one request.
pub fn rule_allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    if !rule.verbs.iter().any(|verb| verb == "*" || *verb == attributes.verb) {
        return false;
    }
    if attributes.resource.is_empty() {
        return rule.non_resource_urls.iter().flatten().any(|pattern| path_matches(pattern, &attributes.path));
    }
    has(rule.api_groups.as_ref(), &attributes.group)
        && (rule.resources.iter().flatten())
            .any(|pattern| resource_matches(pattern, &attributes.resource, &attributes.subresource))
        && rule.resource_names.as_ref().is_none_or(|names| names.is_empty() || names.contains(&attributes.name))
}

/// Which of `asked` is not covered by `held`, each broken down to one verb on one thing; empty if all is.
///
/// The rule of Kubernetes' `component-helpers/auth/rbac/validation`: each single permission must be covered by one
/// held rule.
pub fn covers(held: &[PolicyRule], asked: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut missing = asked.iter().flat_map(break_down).collect::<Vec<_>>();
    missing.retain(|single| !held.iter().any(|rule| rule_covers(rule, single)));
    missing
}

/// A rule as single permissions: one verb, one group, one resource, at most one name; or one verb on one path.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut singles = Vec::new();
    let one = |text: &String| Some(vec![text.clone()]);
    for verb in &rule.verbs {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let base = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                match rule.resource_names.as_deref() {
                    None | Some([]) => singles.push(base),
                    Some(names) => singles
                        .extend(names.iter().map(|name| PolicyRule { resource_names: one(name), ..base.clone() })),
                }
            }
        }
        for path in rule.non_resource_urls.iter().flatten() {
            singles.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: one(path),
                ..PolicyRule::default()
            });
        }
    }
    singles
}

/// Whether a held rule covers a single permission. A `*` is covered by a `*` only.
fn rule_covers(held: &PolicyRule, single: &PolicyRule) -> bool {
    let verb = single.verbs.first().map(String::as_str).unwrap_or_default();
    if !held.verbs.iter().any(|v| v == "*" || v == verb) {
        return false;
    }
    let first = |list: &Option<Vec<String>>| list.as_ref().and_then(|list| list.first()).cloned();
    if let Some(path) = first(&single.non_resource_urls) {
        return held.non_resource_urls.iter().flatten().any(|pattern| path_matches(pattern, &path));
    }
    let (Some(group), Some(resource)) = (first(&single.api_groups), first(&single.resources)) else { return false };
    let (plain, sub) = resource.split_once('/').unwrap_or((&resource, ""));
    has(held.api_groups.as_ref(), &group)
        && (held.resources.iter().flatten())
            .any(|pattern| *pattern == resource || resource_matches(pattern, plain, sub))
        && match (held.resource_names.as_deref(), first(&single.resource_names)) {
            (None | Some([]), _) => true,
            (Some(_), None) => false,
            (Some(names), Some(name)) => names.contains(&name),
        }
}

/// A rule on one line, as Kubernetes prints it in refusals: `{APIGroups:["apps"], Resources:["*"], Verbs:["get"]}`.
pub fn describe_rule(rule: &PolicyRule) -> String {
    let quoted = |list: &[String]| {
        let items: Vec<_> = list.iter().map(|item| format!("{item:?}")).collect();
        format!("[{}]", items.join(" "))
    };
    let parts: Vec<_> = [
        ("APIGroups", rule.api_groups.as_deref().unwrap_or_default()),
        ("Resources", rule.resources.as_deref().unwrap_or_default()),
        ("NonResourceURLs", rule.non_resource_urls.as_deref().unwrap_or_default()),
        ("ResourceNames", rule.resource_names.as_deref().unwrap_or_default()),
        ("Verbs", rule.verbs.as_slice()),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .map(|(name, list)| format!("{name}:{}", quoted(list)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

/// Joins single permissions that differ in their verbs only, as refusals list them.
pub(super) fn compact(singles: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut joined: Vec<PolicyRule> = Vec::new();
    for single in singles {
        let same = |rule: &&mut PolicyRule| {
            rule.api_groups == single.api_groups
                && rule.resources == single.resources
                && rule.resource_names == single.resource_names
                && rule.non_resource_urls == single.non_resource_urls
        };
        match joined.iter_mut().find(same) {
            Some(rule) => rule.verbs.extend(single.verbs),
            None => joined.push(single),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(groups: &str, resources: &str, names: &str, verbs: &str) -> PolicyRule {
        let list = |text: &str| text.split(' ').map(|s| s.replace("core", "")).collect::<Vec<_>>();
        PolicyRule {
            verbs: list(verbs),
            api_groups: Some(list(groups)),
            resources: Some(list(resources)),
            resource_names: (!names.is_empty()).then(|| list(names)),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let attributes = |verb: &'static str, group: &'static str, resource: &'static str, name: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            Attributes {
                verb: verb.into(),
                group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                name: name.into(),
                ..Attributes::default()
            }
        };
        for (rule, asked, allowed) in [
            (rule("core", "pods", "", "get"), ("get", "", "pods", "a"), true),
            (rule("core", "pods", "", "get"), ("list", "", "pods", ""), false),
            (rule("core", "pods", "", "*"), ("list", "", "pods", ""), true),
            (rule("apps", "pods", "", "get"), ("get", "", "pods", "a"), false),
            (rule("*", "pods", "", "get"), ("get", "", "pods", "a"), true),
            // A resource does not include its subresources, nor the other way round.
            (rule("core", "pods", "", "get"), ("get", "", "pods/log", "a"), false),
            (rule("core", "pods/log", "", "get"), ("get", "", "pods/log", "a"), true),
            (rule("core", "pods/log", "", "get"), ("get", "", "pods", "a"), false),
            (rule("core", "pods/*", "", "get"), ("get", "", "pods/log", "a"), false),
            (rule("*", "*/scale", "", "get"), ("get", "apps", "deployments/scale", "a"), true),
            (rule("*", "*/scale", "", "get"), ("get", "apps", "deployments", "a"), false),
            (rule("core", "*", "", "get"), ("get", "", "pods/log", "a"), true),
            (rule("core", "secrets", "a b", "get"), ("get", "", "secrets", "b"), true),
            (rule("core", "secrets", "a b", "get"), ("get", "", "secrets", "c"), false),
            // A create or list names nothing, so a rule with names never allows it.
            (rule("core", "secrets", "a", "list"), ("list", "", "secrets", ""), false),
        ] {
            let (verb, group, resource, name) = asked;
            assert_eq!(rule_allows(&rule, &attributes(verb, group, resource, name)), allowed, "{rule:?} {asked:?}");
        }
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        let rule = |path: &str| PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: Some(vec![path.into()]),
            ..PolicyRule::default()
        };
        for (pattern, path, allowed) in [
            ("/api", "/api", true),
            ("/api", "/api/v1", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api", false),
            ("*", "/anything", true),
            ("/healthz*", "/healthz/ping", true),
        ] {
            let attributes = Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
            assert_eq!(rule_allows(&rule(pattern), &attributes), allowed, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_not_covered_is_named() {
        let held = [rule("core apps", "pods deployments", "", "get list"), rule("core", "secrets", "a", "get")];
        assert!(covers(&held, &[rule("core", "pods", "", "get list")]).is_empty());
        assert!(covers(&held, &[rule("core", "secrets", "a", "get")]).is_empty());
        assert_eq!(covers(&held, &[rule("core", "secrets", "", "get")]).len(), 1);
        let missing = compact(covers(&held, &[rule("core", "pods", "", "get delete patch")]));
        assert_eq!(describe_rule(&missing[0]), r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "patch"]}"#);
        assert_eq!(covers(&held, &[rule("*", "pods", "", "get")]).len(), 1);
        assert!(covers(&[rule("*", "*/scale", "", "*")], &[rule("apps", "deployments/scale", "", "get")]).is_empty());
        assert!(covers(&[rule("*", "*/scale", "", "*")], &[rule("apps", "*/scale", "", "get")]).is_empty());
        assert_eq!(covers(&[rule("*", "pods", "", "*")], &[rule("*", "*", "", "*")]).len(), 1);
    }
}
