//! Roles and bindings compiled into an index by subject, kept current change by change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use indexmap::IndexMap;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::{rbac::GROUP, rule_allows};
use crate::{
    Error, LabelSelector, Object,
    server::{Attributes, Follower, Reader, UserInfo},
};

/// Roles with more rules than this are looked up by resource.
const SHORT: usize = 4;

/// A role's rules, and which of them may be about a resource.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) list: Arc<Vec<PolicyRule>>,
    /// By `pods`, `pods/log`: the rules that name it. Empty for a short list.
    named: HashMap<Box<str>, Vec<usize>>,
    /// The rules with a `*` among their resources.
    wild: Vec<usize>,
    /// The rules of paths.
    paths: Vec<usize>,
}

impl Rules {
    fn new(list: Vec<PolicyRule>) -> Self {
        let mut rules = Self::default();
        if list.len() > SHORT {
            for (at, rule) in list.iter().enumerate() {
                let resources = rule.resources.iter().flatten();
                if resources.clone().any(|resource| resource.starts_with('*')) {
                    rules.wild.push(at);
                } else {
                    resources.for_each(|resource| rules.named.entry(resource.as_str().into()).or_default().push(at));
                }
                if rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
                    rules.paths.push(at);
                }
            }
        }
        rules.list = Arc::new(list);
        rules
    }

    /// Whether a rule allows a request; `resource` is the request's, with its subresource.
    fn allow(&self, asked: &Attributes, resource: &str) -> bool {
        if self.list.len() <= SHORT {
            return self.list.iter().any(|rule| rule_allows(rule, asked));
        }
        let allows = |at: &usize| rule_allows(&self.list[*at], asked);
        if resource.is_empty() {
            return self.paths.iter().any(allows);
        }
        self.named.get(resource).is_some_and(|rules| rules.iter().any(allows)) || self.wild.iter().any(allows)
    }
}

/// A role's rules, or why there are none.
type RoleRules = Result<Arc<Rules>, String>;

/// A cluster role as it is stored, and what it comes to with the rules of those that it collects.
struct Clustered {
    labels: BTreeMap<String, String>,
    own: Result<Arc<ClusterRole>, String>,
    selectors: Vec<LabelSelector>,
    rules: RoleRules,
}

/// What a subject was given, by the role (and whether that is a cluster role): the reasons, one for each binding.
type Given = IndexMap<(bool, Box<str>), Vec<Arc<Reason>>>;

/// A binding, as Kubernetes words that it allows something.
struct Reason {
    binding: Key,
    text: String,
}

/// Namespace (empty for what belongs to the cluster) and name.
type Key = (String, String);

/// What bindings of one namespace, or of the cluster, give to users and groups.
#[derive(Default)]
struct Grants {
    users: HashMap<String, Given>,
    groups: HashMap<String, Given>,
}

impl Grants {
    /// What applies to a user.
    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = (&'a (bool, Box<str>), &'a Arc<Reason>)> {
        let by_user = self.users.get(&user.name).into_iter();
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group));
        by_user.chain(by_group).flatten().filter_map(|(role, reasons)| Some((role, reasons.first()?)))
    }
}

/// Whom a binding names: a group or a user, and the name.
type Holder = (bool, String);

/// Roles and bindings as they are, up to the changes seen.
pub(super) struct Compiled {
    followers: [Follower; 4],
    cluster_roles: HashMap<String, Clustered>,
    /// By namespace and name.
    roles: HashMap<String, HashMap<String, RoleRules>>,
    /// Who holds each binding, for its removal.
    bindings: HashMap<Key, Vec<Holder>>,
    /// By namespace; those of the cluster under the empty one.
    grants: HashMap<String, Grants>,
}

impl Default for Compiled {
    fn default() -> Self {
        let follow = |plural| Follower::new(GROUP, plural);
        Self {
            followers: ["clusterroles", "roles", "clusterrolebindings", "rolebindings"].map(follow),
            cluster_roles: HashMap::new(),
            roles: HashMap::new(),
            bindings: HashMap::new(),
            grants: HashMap::new(),
        }
    }
}

impl Compiled {
    /// Whether nothing changed since.
    pub(super) fn is_current(&self, reader: &dyn Reader) -> Result<bool, Error> {
        for follower in &self.followers {
            if !follower.is_current(reader)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes over what changed.
    pub(super) fn follow(&mut self, reader: &dyn Reader) -> Result<(), Error> {
        let news = self.followers[0].news(reader)?;
        let mut touched = BTreeSet::new();
        if news.all {
            touched.extend(self.cluster_roles.drain().map(|(name, _)| name));
        }
        // What roles collect may be decided by the labels that a role had, too.
        let mut labels: Vec<BTreeMap<String, String>> = Vec::new();
        for (object, deleted) in &news.objects {
            labels.push(object.meta().labels.clone());
            labels.extend(self.change_cluster_role(object, *deleted));
            touched.insert(object.meta().name.clone());
        }
        self.collect(touched, labels);

        let news = self.followers[1].news(reader)?;
        if news.all {
            self.roles.clear();
        }
        for (object, deleted) in &news.objects {
            self.change_role(object, *deleted);
        }
        for at in [2, 3] {
            let news = self.followers[at].news(reader)?;
            if news.all {
                let of_cluster = at == 2;
                self.bindings.retain(|(namespace, _), _| namespace.is_empty() != of_cluster);
                self.grants.retain(|namespace, _| namespace.is_empty() != of_cluster);
            }
            for (object, deleted) in &news.objects {
                self.change_binding(object, *deleted);
            }
        }
        Ok(())
    }

    /// Takes a cluster role over; the labels that it had before.
    fn change_cluster_role(&mut self, object: &Object, deleted: bool) -> Option<BTreeMap<String, String>> {
        let name = object.meta().name.clone();
        let before = self.cluster_roles.remove(&name).map(|role| role.labels);
        if !deleted {
            let own = object.typed::<ClusterRole>().map_err(|error| error.to_string());
            let aggregation = own.as_ref().ok().and_then(|role| role.aggregation_rule.as_ref());
            let selectors = aggregation.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
            // A selector that can't be read finds nothing, as in the aggregation controller.
            let selectors = selectors.filter_map(|selector| LabelSelector::from_spec(selector).ok()).collect();
            let labels = object.meta().labels.clone();
            self.cluster_roles.insert(name, Clustered { labels, own, selectors, rules: Ok(Arc::default()) });
        }
        before
    }

    /// Resolves the rules of roles that changed and of those that collect them: the rules of a role with an
    /// `aggregationRule` are those of the roles that its selectors find, and theirs in turn. Reading them here means that a
    /// new role counts at once, whether or not the controller that copies the rules runs.
    fn collect(&mut self, mut touched: BTreeSet<String>, mut labels: Vec<BTreeMap<String, String>>) {
        if touched.is_empty() {
            return;
        }
        loop {
            let reached = self.cluster_roles.iter().filter(|(name, role)| {
                !touched.contains(*name) && role.selectors.iter().any(|s| labels.iter().any(|l| s.matches(l)))
            });
            let reached: Vec<_> = reached.map(|(name, role)| (name.clone(), role.labels.clone())).collect();
            if reached.is_empty() {
                break;
            }
            labels = reached.iter().map(|(_, labels)| labels.clone()).collect();
            touched.extend(reached.into_iter().map(|(name, _)| name));
        }
        for name in touched {
            let Some(role) = self.cluster_roles.get(&name) else { continue };
            let rules = role.own.clone().map(|_| {
                let mut rules = Vec::new();
                self.add_rules(&name, &mut HashSet::new(), &mut rules);
                Arc::new(Rules::new(rules))
            });
            if let Some(role) = self.cluster_roles.get_mut(&name) {
                role.rules = rules;
            }
        }
    }

    fn add_rules<'a>(&'a self, name: &'a str, seen: &mut HashSet<&'a str>, rules: &mut Vec<PolicyRule>) {
        if !seen.insert(name) {
            return;
        }
        let Some(role) = self.cluster_roles.get(name) else { return };
        for rule in role.own.iter().flat_map(|role| role.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        for selector in &role.selectors {
            for (other, _) in self.cluster_roles.iter().filter(|(_, other)| selector.matches(&other.labels)) {
                self.add_rules(other, seen, rules);
            }
        }
    }

    fn change_role(&mut self, object: &Object, deleted: bool) {
        let meta = object.meta();
        let roles = self.roles.entry(meta.namespace.clone()).or_default();
        if deleted {
            roles.remove(&meta.name);
        } else {
            let rules = object.typed::<Role>().map(|role| role.rules.clone().unwrap_or_default());
            let rules = rules.map(|rules| Arc::new(Rules::new(rules))).map_err(|error| error.to_string());
            roles.insert(meta.name.clone(), rules);
        }
        if roles.is_empty() {
            self.roles.remove(&meta.namespace);
        }
    }

    fn change_binding(&mut self, object: &Object, deleted: bool) {
        let (namespace, name) = (object.meta().namespace.clone(), object.meta().name.clone());
        let key = (namespace.clone(), name.clone());
        if let Some(holders) = self.bindings.remove(&key) {
            self.unbind(&key, &holders);
        }
        if deleted {
            return;
        }
        // A binding that can't be read gives nothing.
        let (role, subjects, binding) = if namespace.is_empty() {
            let Ok(binding) = object.typed::<ClusterRoleBinding>() else { return };
            (binding.role_ref.clone(), binding.subjects.clone(), format!("ClusterRoleBinding {name:?}"))
        } else {
            let Ok(binding) = object.typed::<RoleBinding>() else { return };
            let label = format!("RoleBinding {:?}", format!("{name}/{namespace}"));
            (binding.role_ref.clone(), binding.subjects.clone(), label)
        };
        let grants = self.grants.entry(namespace.clone()).or_default();
        let mut holders = Vec::new();
        for (holder, subject) in subjects.iter().flatten().filter_map(|subject| holder(subject, &namespace)) {
            let text = format!("RBAC: allowed by {binding} of {} {:?} to {subject}", role.kind, role.name);
            let reason = Arc::new(Reason { binding: key.clone(), text });
            let (is_group, who) = holder.clone();
            let given = if is_group { &mut grants.groups } else { &mut grants.users }.entry(who).or_default();
            given.entry((role.kind == "ClusterRole", role.name.as_str().into())).or_default().push(reason);
            holders.push(holder);
        }
        self.bindings.insert(key, holders);
    }

    fn unbind(&mut self, key: &Key, holders: &[Holder]) {
        let Some(grants) = self.grants.get_mut(&key.0) else { return };
        for (is_group, who) in holders {
            let by = if *is_group { &mut grants.groups } else { &mut grants.users };
            if let Some(given) = by.get_mut(who) {
                given.retain(|_, reasons| {
                    reasons.retain(|reason| reason.binding != *key);
                    !reasons.is_empty()
                });
                if given.is_empty() {
                    by.remove(who);
                }
            }
        }
        if grants.users.is_empty() && grants.groups.is_empty() {
            self.grants.remove(&key.0);
        }
    }

    /// What bindings give to a user in a namespace (empty: in the cluster): why, and the rules or why there are none; those of the
    /// cluster first.
    pub(super) fn of<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a str, Result<&'a Rules, String>)> {
        let places = [Some(""), Some(namespace).filter(|namespace| !namespace.is_empty())];
        places.into_iter().flatten().flat_map(move |place| {
            let own = self.roles.get(place);
            let given = self.grants.get(place).into_iter().flat_map(|grants| grants.of(user));
            given.map(move |((of_cluster, role), reason)| {
                let found = match of_cluster {
                    true => self.cluster_roles.get(&**role).map(|role| &role.rules),
                    false => own.and_then(|roles| roles.get(&**role)),
                };
                let rules = match found {
                    Some(Ok(rules)) => Ok(&**rules),
                    Some(Err(error)) => Err(error.clone()),
                    None => {
                        let kind = if *of_cluster { "clusterrole" } else { "role" };
                        Err(format!("{kind}.{GROUP} {role:?} not found"))
                    }
                };
                (reason.text.as_str(), rules)
            })
        })
    }

    /// Why the user may do this; or what could not be looked up.
    pub(super) fn allow<'a>(&'a self, asked: &'a Attributes) -> Result<&'a str, Vec<String>> {
        let joined;
        let resource = if asked.subresource.is_empty() {
            &*asked.resource
        } else {
            joined = format!("{}/{}", asked.resource, asked.subresource);
            &joined
        };
        let mut errors = Vec::new();
        for (reason, rules) in self.of(&asked.user, &asked.namespace) {
            match rules {
                Ok(rules) if rules.allow(asked, resource) => return Ok(reason),
                Ok(_) => {}
                Err(error) if errors.contains(&error) => {}
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    /// The rules of a cluster role, with those that it collects.
    pub(super) fn cluster_role(&self, role: &RoleRef) -> Option<Arc<Vec<PolicyRule>>> {
        let rules = self.cluster_roles.get(&role.name)?.rules.as_ref().ok()?;
        Some(Arc::clone(&rules.list))
    }
}

/// Whom a subject names, and how it is worded; `None` if that is nobody.
fn holder(subject: &Subject, namespace: &str) -> Option<(Holder, String)> {
    let name = &subject.name;
    match subject.kind.as_str() {
        "User" => Some(((false, name.clone()), format!("User {name:?}"))),
        "Group" => Some(((true, name.clone()), format!("Group {name:?}"))),
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace);
            // A cluster role binding that leaves the namespace out names no service account.
            if own.is_empty() {
                return None;
            }
            let user = format!("system:serviceaccount:{own}:{name}");
            Some(((false, user), format!("ServiceAccount {:?}", format!("{name}/{own}"))))
        }
        _ => None,
    }
}
