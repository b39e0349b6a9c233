//! Roles and bindings compiled into an index by subject.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

use crate::{LabelSelector, Object, server::UserInfo};

/// What one binding gives to one subject.
#[derive(Debug)]
pub(super) struct Grant {
    /// Why, as Kubernetes words it: `RBAC: allowed by ...`.
    pub reason: String,
    /// The role's rules, or why there are none.
    pub rules: Result<Arc<Vec<PolicyRule>>, String>,
}

/// Grants by user name and by group.
#[derive(Debug, Default)]
pub(super) struct Grants {
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

impl Grants {
    /// The grants that apply to a user.
    pub fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Arc<Grant>> {
        let by_user = self.users.get(&user.name).into_iter().flatten();
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
        by_user.chain(by_group)
    }

    fn add(&mut self, binding: &str, role: &RoleRef, subjects: &[Subject], namespace: &str, rules: &RoleRules) {
        for subject in subjects {
            let (Subject { kind, name, .. }, own) = (subject, subject.namespace.as_deref().unwrap_or_default());
            let (by, key, subject) = match kind.as_str() {
                "User" => (&mut self.users, name.clone(), format!("User {name:?}")),
                "Group" => (&mut self.groups, name.clone(), format!("Group {name:?}")),
                "ServiceAccount" => {
                    let own = if own.is_empty() { namespace } else { own };
                    // A cluster role binding that leaves the namespace out names no service account.
                    if own.is_empty() {
                        continue;
                    }
                    let key = format!("system:serviceaccount:{own}:{name}");
                    (&mut self.users, key, format!("ServiceAccount {:?}", format!("{name}/{own}")))
                }
                _ => continue,
            };
            let reason = format!("RBAC: allowed by {binding} of {} {:?} to {subject}", role.kind, role.name);
            by.entry(key).or_default().push(Arc::new(Grant { reason, rules: rules.clone() }));
        }
    }
}

/// A role's rules, or why there are none.
pub(super) type RoleRules = Result<Arc<Vec<PolicyRule>>, String>;

/// Every cluster role by name, aggregation done.
pub(super) type ClusterRoles = HashMap<String, RoleRules>;

/// Resolves the rules of all cluster roles. The rules of a role with an `aggregationRule` are those of the roles that
/// its selectors find, and theirs in turn: reading them here means that a new role counts at once, whether or not the
/// controller that copies the rules runs.
pub(super) fn cluster_roles(objects: &[Arc<Object>]) -> ClusterRoles {
    let mut typed = HashMap::new();
    let mut resolved = ClusterRoles::new();
    for object in objects {
        let name = &object.meta().name;
        match object.typed::<ClusterRole>() {
            Ok(role) => _ = typed.insert(name.as_str(), (object, role)),
            Err(error) => _ = resolved.insert(name.clone(), Err(error.to_string())),
        }
    }
    for (name, (_, role)) in &typed {
        let mut rules = Vec::new();
        collect(role, objects, &typed, &mut HashSet::from([*name]), &mut rules);
        resolved.insert((*name).to_owned(), Ok(Arc::new(rules)));
    }
    resolved
}

type Typed<'a> = HashMap<&'a str, (&'a Arc<Object>, Arc<ClusterRole>)>;

fn collect<'a>(
    role: &ClusterRole,
    objects: &'a [Arc<Object>],
    typed: &Typed<'a>,
    seen: &mut HashSet<&'a str>,
    rules: &mut Vec<PolicyRule>,
) {
    for rule in role.rules.iter().flatten() {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    let selectors = role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    // A selector that can't be read finds nothing, as in the aggregation controller.
    for selector in selectors.filter_map(|selector| LabelSelector::from_spec(selector).ok()) {
        for object in objects.iter().filter(|object| selector.matches(&object.meta().labels)) {
            let name = object.meta().name.as_str();
            if let Some((_, found)) = typed.get(name)
                && seen.insert(name)
            {
                collect(found, objects, typed, seen, rules);
            }
        }
    }
}

fn missing(kind: &str, name: &str) -> String {
    format!("{}.rbac.authorization.k8s.io {name:?} not found", kind.to_ascii_lowercase())
}

/// Compiles the cluster role bindings.
pub(super) fn cluster_grants(bindings: &[Arc<Object>], roles: &ClusterRoles) -> Grants {
    let mut grants = Grants::default();
    for binding in bindings.iter().filter_map(|object| object.typed::<ClusterRoleBinding>().ok()) {
        let name = binding.metadata.name.as_deref().unwrap_or_default();
        let role = &binding.role_ref;
        let rules = roles.get(&role.name).cloned().unwrap_or_else(|| Err(missing("ClusterRole", &role.name)));
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        grants.add(&format!("ClusterRoleBinding {name:?}"), role, subjects, "", &rules);
    }
    grants
}

/// Compiles the role bindings of one namespace.
pub(super) fn namespace_grants(bindings: &[Arc<Object>], roles: &[Arc<Object>], cluster: &ClusterRoles) -> Grants {
    let own: HashMap<&str, RoleRules> = roles
        .iter()
        .map(|object| {
            let rules = object.typed::<Role>().map(|role| Arc::new(role.rules.clone().unwrap_or_default()));
            (object.meta().name.as_str(), rules.map_err(|error| error.to_string()))
        })
        .collect();
    let mut grants = Grants::default();
    for binding in bindings.iter().filter_map(|object| object.typed::<RoleBinding>().ok()) {
        let name = binding.metadata.name.as_deref().unwrap_or_default();
        let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
        let role = &binding.role_ref;
        let found = match role.kind.as_str() {
            "ClusterRole" => cluster.get(&role.name),
            "Role" => own.get(role.name.as_str()),
            _ => None,
        };
        let rules = found.cloned().unwrap_or_else(|| Err(missing(&role.kind, &role.name)));
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        let label = format!("RoleBinding {:?}", format!("{name}/{namespace}"));
        grants.add(&label, role, subjects, namespace, &rules);
    }
    grants
}
