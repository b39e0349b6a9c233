//! Roles, ClusterRoles and their bindings.

use serde_json::Value;

use super::{
    cells::{AGE, NAME, column, wide},
    field::{Errors, Path},
    names,
    rules::Rules,
    selector,
    value::{Peek, at_mut, each_mut, fill, is_empty},
};
use crate::server::Column;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of Roles.
pub const ROLE: Rules = Rules { validate: |role, errors| policy_rules(role, true, errors), ..Rules::NONE };

/// The rules of ClusterRoles.
pub const CLUSTER_ROLE: Rules = Rules { validate: validate_cluster_role, ..Rules::NONE };

/// The rules of RoleBindings and ClusterRoleBindings.
pub const BINDING: Rules =
    Rules { default: default_binding, validate: validate_binding, validate_change, ..Rules::NONE };

/// The columns of RoleBindings and ClusterRoleBindings.
pub fn binding_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Role", "string", |binding| {
            format!("{}/{}", binding.text("roleRef.kind"), binding.text("roleRef.name")).into()
        }),
        AGE,
        wide("Users", "string", |binding| subjects(binding, "User")),
        wide("Groups", "string", |binding| subjects(binding, "Group")),
        wide("ServiceAccounts", "string", |binding| subjects(binding, "ServiceAccount")),
    ]
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let list = binding.list("subjects").iter().filter(|subject| subject.text("kind") == kind);
    let names = list.map(|subject| match (kind, subject.text("namespace")) {
        ("ServiceAccount", namespace) if !namespace.is_empty() => format!("{namespace}/{}", subject.text("name")),
        _ => subject.text("name").to_owned(),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

fn policy_rules(role: &Value, namespaced: bool, errors: &mut Errors) {
    let list = Path::Root.child("rules");
    for (i, rule) in role.list("rules").iter().enumerate() {
        let path = list.index(i);
        if rule.list("verbs").is_empty() {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        if !rule.list("nonResourceURLs").is_empty() {
            let urls = path.child("nonResourceURLs");
            if namespaced {
                errors.invalid(&urls, rule.at("nonResourceURLs"), "namespaced rules cannot apply to non-resource URLs");
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !is_empty(rule.at(field))) {
                errors.invalid(
                    &urls,
                    rule.at("nonResourceURLs"),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if rule.list("apiGroups").is_empty() {
            errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if rule.list("resources").is_empty() {
            errors.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn validate_cluster_role(role: &Value, errors: &mut Errors) {
    policy_rules(role, false, errors);
    if !role.has("aggregationRule") {
        return;
    }
    let path = Path::Root.child("aggregationRule");
    let list = path.child("clusterRoleSelectors");
    let selectors = role.list("aggregationRule.clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(&list, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, spec) in selectors.iter().enumerate() {
        selector::validate(spec, &list.index(i), errors);
    }
}

fn default_binding(binding: &mut Value) {
    if let Some(role) = at_mut(binding, "roleRef") {
        fill(role, "apiGroup", GROUP);
    }
    each_mut(binding, "subjects", |subject| {
        if matches!(subject.text("kind"), "User" | "Group") {
            fill(subject, "apiGroup", GROUP);
        }
    });
}

fn validate_binding(binding: &Value, errors: &mut Errors) {
    let (role, path) = (binding.at("roleRef"), Path::Root.child("roleRef"));
    if role.text("apiGroup") != GROUP {
        errors.not_supported(&path.child("apiGroup"), role.text("apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] =
        if binding.text("kind") == "ClusterRoleBinding" { &["ClusterRole"] } else { &["ClusterRole", "Role"] };
    if !kinds.contains(&role.text("kind")) {
        errors.not_supported(&path.child("kind"), role.text("kind"), kinds);
    }
    let name = role.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), name, names::path_segment(name));
    }
    let list = Path::Root.child("subjects");
    for (i, one) in binding.list("subjects").iter().enumerate() {
        subject(one, binding.text("kind") == "ClusterRoleBinding", &list.index(i), errors);
    }
}

fn subject(subject: &Value, of_cluster: bool, path: &Path<'_>, errors: &mut Errors) {
    let (name, group, namespace) = (subject.text("name"), subject.text("apiGroup"), subject.text("namespace"));
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_all(&path.child("name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if of_cluster && namespace.is_empty() {
                errors.required(&path.child("namespace"), "");
            } else if !namespace.is_empty() {
                errors.invalid_all(&path.child("namespace"), namespace, names::dns_label(namespace));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]),
    }
}

fn validate_change(new: &Value, old: &Value, _: &str, errors: &mut Errors) {
    if new.at("roleRef") != old.at("roleRef") {
        errors.invalid(&Path::Root.child("roleRef"), new.at("roleRef"), "cannot change roleRef");
    }
}
