//! Who owns whom, as the informers show it.

use std::collections::{HashMap, HashSet, VecDeque};

use rk_api::{Change, Key, Meta, OwnerRef, Resource};

use super::{FOREGROUND, ORPHAN, Work};

/// One object.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) resource: Resource,
    pub(super) key: Key,
    pub(super) owners: Vec<OwnerRef>,
    pub(super) deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl Node {
    fn new(resource: &Resource, meta: &Meta) -> Self {
        let has = |finalizer: &str| meta.finalizers.iter().any(|have| have == finalizer);
        Self {
            resource: resource.clone(),
            key: (meta.namespace.clone(), meta.name.clone()),
            owners: meta.owner_references.clone(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }

    /// Whether it waits for its dependents to go.
    pub(super) fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    /// Whether its going waits for a dependent to be deleted.
    pub(super) fn blocks(&self, owner_uid: &str) -> bool {
        self.owners.iter().any(|owner| owner.uid == owner_uid && owner.block_owner_deletion == Some(true))
    }
}

/// The graph, by uid.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    /// The last uids that went. None comes back.
    gone: VecDeque<String>,
}

/// How many uids that went are remembered, as in Kubernetes' `absentOwnerCache`.
const GONE: usize = 500;

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Whether the object of this uid was seen to go.
    pub(super) fn is_gone(&self, uid: &str) -> bool {
        self.gone.iter().any(|gone| gone == uid)
    }

    /// The objects that name `uid` as an owner.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = (&String, &Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get_key_value(uid))
    }

    /// Takes in a change and answers what is to be looked at because of it.
    pub(super) fn observe(&mut self, resource: &Resource, change: &Change) -> Vec<Work> {
        let meta = change.object().meta();
        match change {
            Change::Deleted(_) => self.remove(&meta.uid),
            Change::Updated { old, .. } if old.meta().uid != meta.uid => {
                let mut work = self.remove(&old.meta().uid);
                work.extend(self.put(resource, meta));
                work
            }
            Change::Added(_) | Change::Updated { .. } => self.put(resource, meta),
        }
    }

    fn put(&mut self, resource: &Resource, meta: &Meta) -> Vec<Work> {
        let uid = &meta.uid;
        let new = Node::new(resource, meta);
        let old = self.nodes.insert(uid.clone(), new.clone());
        let old_owners = old.as_ref().map(|old| old.owners.clone()).unwrap_or_default();
        let mut work = Vec::new();
        if old_owners != new.owners {
            for owner in &old_owners {
                self.unlink(&owner.uid, uid);
            }
            for owner in &new.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            }
            // An owner that is not there, or is going after its dependents, decides the object's fate.
            let undecided = |owner: &OwnerRef| self.nodes.get(&owner.uid).is_none_or(Node::waits_for_dependents);
            if new.owners.iter().any(undecided) {
                work.push(Work::Collect(uid.clone()));
            }
            // An owner may be waiting for the object, and need not any more.
            let waiting = old_owners.iter().filter(|owner| {
                self.nodes.get(&owner.uid).is_some_and(|node| node.waits_for_dependents() && !new.blocks(&owner.uid))
            });
            work.extend(waiting.map(|owner| Work::Collect(owner.uid.clone())));
        }
        if new.deleting && new.orphan {
            work.push(Work::Orphan(uid.clone()));
        } else if new.waits_for_dependents() && !old.is_some_and(|old| old.waits_for_dependents()) {
            work.extend(self.dependents(uid).map(|(dependent, _)| Work::Collect(dependent.clone())));
            work.push(Work::Collect(uid.clone()));
        }
        work
    }

    fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.gone.push_back(uid.to_owned());
        if self.gone.len() > GONE {
            self.gone.pop_front();
        }
        let mut work: Vec<Work> = self.dependents(uid).map(|(uid, _)| Work::Collect(uid.clone())).collect();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(Node::waits_for_dependents) {
                work.push(Work::Collect(owner.uid.clone()));
            }
        }
        work
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ConfigMap;
    use rk_api::Object;
    use serde_json::{Value, json};

    use super::*;

    fn object(uid: &str, owners: &[&str], more: Value) -> Arc<Object> {
        let owners: Vec<_> = owners.iter().map(|uid| json!({"uid": uid, "blockOwnerDeletion": true})).collect();
        let mut meta = json!({"name": uid, "namespace": "n", "uid": uid, "ownerReferences": owners});
        for (field, value) in more.as_object().into_iter().flatten() {
            meta[field] = value.clone();
        }
        Arc::new(Object::from_value(&json!({"metadata": meta})).unwrap())
    }

    fn collect(uids: &[&str]) -> Vec<Work> {
        uids.iter().map(|uid| Work::Collect((*uid).to_owned())).collect()
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes_or_never_was() {
        let (mut graph, maps) = (Graph::default(), Resource::of::<ConfigMap>());
        let added = |object: Arc<Object>| Change::Added(object);
        assert!(graph.observe(&maps, &added(object("owner", &[], json!({})))).is_empty());
        assert!(graph.observe(&maps, &added(object("child", &["owner"], json!({})))).is_empty());
        assert_eq!(graph.observe(&maps, &added(object("waif", &["nobody"], json!({})))), collect(&["waif"]));
        let gone = Change::Deleted(object("owner", &[], json!({})));
        assert_eq!(graph.observe(&maps, &gone), collect(&["child"]));
    }

    #[test]
    fn an_owner_in_the_foreground_is_looked_at_when_its_dependents_go() {
        let (mut graph, maps) = (Graph::default(), Resource::of::<ConfigMap>());
        graph.observe(&maps, &Change::Added(object("owner", &[], json!({}))));
        graph.observe(&maps, &Change::Added(object("child", &["owner"], json!({}))));
        let waiting = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        let change = Change::Updated { old: object("owner", &[], json!({})), new: object("owner", &[], waiting) };
        assert_eq!(graph.observe(&maps, &change), collect(&["child", "owner"]));
        assert!(graph.observe(&maps, &change).is_empty(), "once is enough");
        let gone = Change::Deleted(object("child", &["owner"], json!({})));
        assert_eq!(graph.observe(&maps, &gone), collect(&["owner"]));
        assert!(graph.dependents("owner").next().is_none());
    }
}
