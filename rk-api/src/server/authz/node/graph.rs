//! Which node has which pods, and what they refer to.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

use super::references::{self, Kind, Thing};
use crate::{
    Error, Object,
    server::{Follower, Reader},
};

/// What a node's pods refer to, kept current by the changes of pods.
#[derive(Debug)]
pub(super) struct Graph {
    follower: Follower,
    /// By namespace and name.
    pods: HashMap<(String, String), Bound>,
    /// By node: how many of its pods refer to a thing.
    nodes: HashMap<String, HashMap<Thing, usize>>,
}

/// A pod on a node.
#[derive(Debug)]
struct Bound {
    node: String,
    things: Vec<Thing>,
}

impl Default for Graph {
    fn default() -> Self {
        Self { follower: Follower::new("", "pods"), pods: HashMap::new(), nodes: HashMap::new() }
    }
}

impl Graph {
    /// Whether nothing changed since the last call of [`Self::follow`].
    pub(super) fn is_current(&self, reader: &dyn Reader) -> Result<bool, Error> {
        self.follower.is_current(reader)
    }

    /// Takes over what changed since the last call.
    pub(super) fn follow(&mut self, reader: &dyn Reader) -> Result<(), Error> {
        let news = self.follower.news(reader)?;
        if news.all {
            self.pods.clear();
            self.nodes.clear();
        }
        for (object, deleted) in &news.objects {
            self.change(object, *deleted);
        }
        Ok(())
    }

    fn change(&mut self, object: &Object, deleted: bool) {
        let meta = object.meta();
        let key = (meta.namespace.clone(), meta.name.clone());
        let bound = (!deleted).then(|| bound(object)).flatten();
        // Most changes are of a status, and change nothing here.
        if let (Some(new), Some(known)) = (&bound, self.pods.get(&key))
            && new.node == known.node
            && new.things == known.things
        {
            return;
        }
        if let Some(old) = self.pods.remove(&key) {
            self.forget(&old);
        }
        if let Some(new) = bound {
            let counts = self.nodes.entry(new.node.clone()).or_default();
            for thing in &new.things {
                *counts.entry(thing.clone()).or_default() += 1;
            }
            self.pods.insert(key, new);
        }
    }

    fn forget(&mut self, old: &Bound) {
        let Some(counts) = self.nodes.get_mut(&old.node) else { return };
        for thing in &old.things {
            if let Some(count) = counts.get_mut(thing) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(thing);
                }
            }
        }
        if counts.is_empty() {
            self.nodes.remove(&old.node);
        }
    }

    /// Whether a pod on the node refers to a thing.
    pub(super) fn relates(&self, node: &str, thing: &Thing) -> bool {
        self.nodes.get(node).is_some_and(|counts| counts.contains_key(thing))
    }

    /// The claims of the node's pods.
    pub(super) fn claims(&self, node: &str) -> Vec<Thing> {
        let things = self.nodes.get(node).into_iter().flat_map(HashMap::keys);
        things.filter(|thing| thing.kind == Kind::Claim).cloned().collect()
    }

    /// Whether a pod is bound to the node.
    pub(super) fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(&(namespace.to_owned(), name.to_owned())).is_some_and(|pod| pod.node == node)
    }
}

/// The pod on its node; `None` while it has none. A pod that can't be read gives its node nothing.
fn bound(object: &Object) -> Option<Bound> {
    let pod = object.typed::<Pod>().ok()?;
    let node = pod.spec.as_ref()?.node_name.clone().filter(|node| !node.is_empty())?;
    Some(Bound { node, things: references::of_pod(&pod) })
}
