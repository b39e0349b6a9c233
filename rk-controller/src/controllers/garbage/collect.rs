//! Deciding what becomes of one object.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rk_api::{
    Client, DeleteOptions, Error, EventRecorder, Key, Object, OwnerRef, Patch, Preconditions, Propagation, Request,
    Resource, Verb, WriteOptions,
};
use serde_json::{Value, json};

use super::{FOREGROUND, Graph, ORPHAN, Work, graph::Node};
use crate::workqueue::WorkQueue;

pub(super) struct Collector {
    pub(super) client: Arc<dyn Client>,
    pub(super) events: EventRecorder,
    pub(super) graph: Arc<Mutex<Graph>>,
    pub(super) known: Arc<RwLock<Vec<Resource>>>,
    pub(super) queue: WorkQueue<Work>,
}

/// What an owner means for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is there and stays: so does the object.
    Solid,
    /// It is gone.
    Dangling,
    /// It waits for its dependents to go.
    Waiting,
}

impl Collector {
    pub(super) async fn run(&self) {
        while let Some(item) = self.queue.next().await {
            let result = match &*item {
                Work::Collect(uid) => self.collect(uid).await,
                Work::Orphan(uid) => self.orphan(uid).await,
            };
            match result {
                Ok(()) => self.queue.forget(&item),
                Err(error) => {
                    let retry = self.queue.retry(item.clone());
                    if error.is_conflict() {
                        tracing::debug!(work = ?*item, %error, ?retry, "trying again");
                    } else {
                        tracing::warn!(work = ?*item, %error, ?retry, "garbage collection failed");
                    }
                }
            }
        }
    }

    async fn collect(&self, uid: &str) -> Result<(), Error> {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(()) };
        if node.waits_for_dependents() {
            return self.finish_foreground(uid, &node).await;
        }
        if node.deleting || node.owners.is_empty() {
            return Ok(());
        }
        let Some(object) = self.get(&node.resource, &node.key).await?.filter(|object| object.meta().uid == uid) else {
            return Ok(());
        };
        let owners = &object.meta().owner_references;
        let mut fates = Vec::with_capacity(owners.len());
        for owner in owners {
            fates.push(self.fate(&object, owner).await?);
        }
        if owners.is_empty() {
            return Ok(());
        }
        if fates.contains(&Fate::Solid) {
            if fates.iter().all(|fate| *fate == Fate::Solid) {
                return Ok(());
            }
            // Some owners are gone or going, but not all: the object stays for the others.
            let keep = owners.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Solid).map(|(owner, _)| &owner.uid);
            return self.keep_owners(&node, &object, &keep.collect::<Vec<_>>()).await;
        }
        let has_dependents = self.graph.lock().dependents(uid).next().is_some();
        let held = |finalizer: &str| object.meta().finalizers.iter().any(|have| have == finalizer);
        let propagation = if fates.contains(&Fate::Waiting) && has_dependents {
            self.break_cycle(uid, &node, &object).await?;
            Propagation::Foreground
        } else if held(ORPHAN) {
            Propagation::Orphan
        } else if held(FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        let preconditions =
            Preconditions { uid: Some(uid.to_owned()), resource_version: Some(object.meta().resource_version.clone()) };
        let options = DeleteOptions { propagation: Some(propagation), preconditions, ..DeleteOptions::default() };
        tracing::debug!(?object, ?propagation, "collecting");
        self.ask(&node.resource, &node.key, Verb::Delete(options)).await.map(drop).or_else(unless_gone)
    }

    /// What an owner means, by the server's own word where the graph does not know it.
    async fn fate(&self, object: &Object, owner: &OwnerRef) -> Result<Fate, Error> {
        // Its resource may have gone with it, and then the server says nothing about it.
        if self.graph.lock().is_gone(&owner.uid) {
            return Ok(Fate::Dangling);
        }
        let Some(resource) = self.resource_of(owner) else {
            return Err(Error::decode(
                "ownerReferences",
                &format!("no resource is known for {} {}", owner.api_version, owner.kind),
            ));
        };
        if resource.namespaced && object.meta().namespace.is_empty() {
            let message = format!("ownerRef {} {:?} is namespaced, but the object is not", owner.kind, owner.name);
            self.events.warning(&object.reference(), "OwnerRefInvalidNamespace", message);
            return Ok(Fate::Solid);
        }
        let namespace = if resource.namespaced { object.meta().namespace.clone() } else { String::new() };
        let key = (namespace, owner.name.clone());
        let waits = {
            let graph = self.graph.lock();
            let known = graph.get(&owner.uid).filter(|node| node.key == key && node.resource.kind == resource.kind);
            known.map(Node::waits_for_dependents)
        };
        let waits = match waits {
            Some(waits) => Some(waits),
            None => self.get(&resource, &key).await?.filter(|found| found.meta().uid == owner.uid).map(|found| {
                let meta = found.meta();
                meta.deletion_timestamp.is_some() && meta.finalizers.iter().any(|have| have == FOREGROUND)
            }),
        };
        Ok(match waits {
            None => Fate::Dangling,
            Some(true) => Fate::Waiting,
            Some(false) => Fate::Solid,
        })
    }

    fn resource_of(&self, owner: &OwnerRef) -> Option<Resource> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let known = self.known.read();
        known.iter().find(|resource| resource.kind == owner.kind && resource.group == group).cloned()
    }

    /// An owner in the foreground goes when nothing that blocks it is left.
    async fn finish_foreground(&self, uid: &str, node: &Node) -> Result<(), Error> {
        let blocking: Vec<(String, bool)> = {
            let graph = self.graph.lock();
            let blocking = graph.dependents(uid).filter(|(_, dependent)| dependent.blocks(uid));
            blocking.map(|(uid, dependent)| (uid.clone(), dependent.deleting)).collect()
        };
        if blocking.is_empty() {
            return self.remove_finalizer(uid, node, FOREGROUND).await;
        }
        for (dependent, _) in blocking.into_iter().filter(|(_, deleting)| !deleting) {
            self.queue.add(Work::Collect(dependent));
        }
        Ok(())
    }

    /// Owners in a ring that all wait for their dependents would wait for ever: one of them stops blocking.
    async fn break_cycle(&self, uid: &str, node: &Node, object: &Object) -> Result<(), Error> {
        let cycle = self.graph.lock().dependents(uid).any(|(_, dependent)| dependent.waits_for_dependents());
        if !cycle {
            return Ok(());
        }
        let mut owners = owner_values(object)?;
        for owner in &mut owners {
            owner["blockOwnerDeletion"] = Value::Bool(false);
        }
        self.patch_owners(node, object, owners).await
    }

    async fn orphan(&self, uid: &str) -> Result<(), Error> {
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid).cloned() else { return Ok(()) };
            (node, graph.dependents(uid).map(|(_, dependent)| dependent.clone()).collect::<Vec<_>>())
        };
        for dependent in dependents {
            let Some(object) = self.get(&dependent.resource, &dependent.key).await? else { continue };
            let owners = &object.meta().owner_references;
            if owners.iter().any(|owner| owner.uid == uid) {
                let keep: Vec<_> = owners.iter().map(|owner| &owner.uid).filter(|owner| *owner != uid).collect();
                self.keep_owners(&dependent, &object, &keep).await?;
            }
        }
        self.remove_finalizer(uid, &node, ORPHAN).await
    }

    async fn keep_owners(&self, node: &Node, object: &Object, keep: &[&String]) -> Result<(), Error> {
        let mut owners = owner_values(object)?;
        owners.retain(|owner| keep.iter().any(|uid| owner["uid"] == uid.as_str()));
        self.patch_owners(node, object, owners).await
    }

    async fn patch_owners(&self, node: &Node, object: &Object, owners: Vec<Value>) -> Result<(), Error> {
        let meta = object.meta();
        let owners = (!owners.is_empty()).then_some(owners);
        let patch = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners,
        }});
        self.patch(node, patch).await
    }

    async fn remove_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(object) = self.get(&node.resource, &node.key).await?.filter(|object| object.meta().uid == uid) else {
            return Ok(());
        };
        let meta = object.meta();
        let left: Vec<_> = meta.finalizers.iter().filter(|have| *have != finalizer).collect();
        if left.len() == meta.finalizers.len() {
            return Ok(());
        }
        let left = (!left.is_empty()).then_some(left);
        let patch = json!({"metadata": {
            "uid": uid, "resourceVersion": meta.resource_version, "finalizers": left,
        }});
        self.patch(node, patch).await
    }

    async fn patch(&self, node: &Node, patch: Value) -> Result<(), Error> {
        let verb = Verb::Patch(Patch::merge(patch), WriteOptions::manager("garbage-collector-controller"));
        self.ask(&node.resource, &node.key, verb).await.map(drop).or_else(unless_gone)
    }

    /// The object as it is now; `None` if there is none of this name.
    async fn get(&self, resource: &Resource, key: &Key) -> Result<Option<Arc<Object>>, Error> {
        match self.ask(resource, key, Verb::Get).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, resource: &Resource, key: &Key, verb: Verb) -> Result<Arc<Object>, Error> {
        let request = Request {
            resource: resource.clone(),
            namespace: key.0.clone(),
            name: key.1.clone(),
            subresource: String::new(),
            verb,
        };
        self.client.request(request).await
    }
}

fn owner_values(object: &Object) -> Result<Vec<Value>, Error> {
    let owners = object.meta().owner_references.iter().map(serde_json::to_value);
    owners.collect::<Result<_, _>>().map_err(|error| Error::decode("ownerReferences", &error))
}

/// Whether the server says that this object is not there; a resource that is not served says nothing about it.
fn is_absent(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    error.is_not_found() && status.details.as_ref().is_some_and(|details| details.name.is_some())
}

fn unless_gone(error: Error) -> Result<(), Error> {
    if is_absent(&error) { Ok(()) } else { Err(error) }
}
