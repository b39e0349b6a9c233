//! The Node authorizer: a node reads what the pods bound to it need, and writes what is its own
//! (<https://kubernetes.io/docs/reference/access-authn-authz/node/>).
//!
//! [`Graph`] knows the pods by node and what they refer to; it follows the server's pods change by change. Who is a node's
//! user is told by [`node_name`]. What a node may do with other resources is the rules of the ClusterRole `system:node`.

mod graph;
mod references;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{core::v1::PersistentVolume, rbac::v1::PolicyRule};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde_json::Value;

use super::{ResolvedRules, RuleResolver, rule_allows};
use crate::{
    Error,
    server::{Attributes, Authorizer, Decision, Reader, UserInfo, bootstrap},
};

use graph::Graph;
pub(crate) use references::taken_from;
use references::{Kind, Thing};

/// The node that a user is: `system:node:NAME` in `system:nodes`. The name is empty for a member of the group with another name.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    user.in_group("system:nodes").then(|| user.name.strip_prefix("system:node:").unwrap_or_default())
}

/// Lets nodes do what kubelets do, each for itself; has no opinion on other users.
///
/// What a node may read of Secrets, ConfigMaps, PersistentVolumeClaims, ServiceAccounts and ResourceClaims follows from the
/// pods that are bound to it; of PersistentVolumes and the Secrets of their drivers, from its claims.
pub struct NodeAuthorizer {
    reader: Arc<dyn Reader>,
    graph: RwLock<Graph>,
    rules: Vec<PolicyRule>,
}

/// Why not; empty words for a yes.
type Verdict = Result<(), String>;

fn no(why: impl Into<String>) -> Verdict {
    Err(why.into())
}

impl NodeAuthorizer {
    /// Decides by the objects that `reader` shows.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader, graph: RwLock::default(), rules: bootstrap::node_rules() }
    }

    async fn decide(&self, node: &str, asked: &Attributes) -> Result<Verdict, Error> {
        let reads = ["get", "list", "watch"];
        Ok(match (&*asked.group, &*asked.resource) {
            ("", "secrets") => self.one(node, asked, Kind::Secret, "", &reads).await?,
            ("", "configmaps") => self.one(node, asked, Kind::ConfigMap, "", &reads).await?,
            ("", "persistentvolumeclaims") if asked.subresource == "status" => {
                self.one(node, asked, Kind::Claim, "status", &["get", "update", "patch"]).await?
            }
            ("", "persistentvolumeclaims") => self.one(node, asked, Kind::Claim, "", &["get"]).await?,
            ("", "serviceaccounts") if asked.subresource == "token" => {
                self.one(node, asked, Kind::ServiceAccount, "token", &["create"]).await?
            }
            ("", "serviceaccounts") => self.one(node, asked, Kind::ServiceAccount, "", &["get"]).await?,
            ("resource.k8s.io", "resourceclaims") => self.one(node, asked, Kind::ResourceClaim, "", &["get"]).await?,
            ("", "persistentvolumes") => match individual(asked, "", &["get"]) {
                Ok(()) => self.volume(node, &asked.name).await?,
                refused => refused,
            },
            ("storage.k8s.io", "volumeattachments") => match individual(asked, "", &["get"]) {
                Ok(()) => self.bears(node, asked).await?,
                refused => refused,
            },
            ("resource.k8s.io", "resourceslices") => self.slice(node, asked).await?,
            ("coordination.k8s.io", "leases") if asked.namespace != "kube-node-lease" => {
                no("can only access leases in the \"kube-node-lease\" system namespace")
            }
            ("coordination.k8s.io", "leases") => own(node, asked, "node lease"),
            ("storage.k8s.io", "csinodes") => own(node, asked, "CSINode"),
            ("", "nodes") => itself(node, asked),
            ("", "pods") => self.pod(node, asked)?,
            _ if self.rules.iter().any(|rule| rule_allows(rule, asked)) => Ok(()),
            _ => no(""),
        })
    }

    /// Single objects that pods of the node refer to.
    async fn one(
        &self,
        node: &str,
        asked: &Attributes,
        kind: Kind,
        subresource: &str,
        verbs: &[&str],
    ) -> Result<Verdict, Error> {
        if let Err(why) = individual(asked, subresource, verbs) {
            return Ok(no(why));
        }
        let thing = Thing::new(kind, &asked.namespace, &asked.name);
        let claims = {
            let graph = self.graph()?;
            if graph.relates(node, &thing) {
                return Ok(Ok(()));
            }
            if kind == Kind::Secret { graph.claims(node) } else { Vec::new() }
        };
        // Secrets of the drivers of the node's volumes.
        for claim in claims {
            if let Some(volume) = self.volume_of(&claim).await?
                && references::secrets_of_volume(&volume, &claim.namespace).contains(&thing)
            {
                return Ok(Ok(()));
            }
        }
        Ok(unrelated(node))
    }

    /// The pods, changed up to now.
    fn graph(&self) -> Result<RwLockReadGuard<'_, Graph>, Error> {
        let graph = self.graph.read();
        if graph.is_current(&*self.reader)? {
            return Ok(graph);
        }
        drop(graph);
        let mut graph = self.graph.write();
        graph.follow(&*self.reader)?;
        Ok(RwLockWriteGuard::downgrade(graph))
    }

    /// The volume of a claim, if each names the other.
    async fn volume_of(&self, claim: &Thing) -> Result<Option<Arc<PersistentVolume>>, Error> {
        let found = self.reader.get("", "persistentvolumeclaims", &claim.namespace, &claim.name).await?;
        let Some(found) = found else { return Ok(None) };
        let value = found.value()?;
        let Some(name) = value["spec"]["volumeName"].as_str() else { return Ok(None) };
        let Some(volume) = self.reader.get("", "persistentvolumes", "", name).await? else { return Ok(None) };
        let volume = volume.typed::<PersistentVolume>()?;
        let bound = references::claim_of_volume(&volume).is_some_and(|bound| bound == *claim);
        Ok(bound.then_some(volume))
    }

    /// The volume of a claim that a pod of the node uses.
    async fn volume(&self, node: &str, name: &str) -> Result<Verdict, Error> {
        let Some(volume) = self.reader.get("", "persistentvolumes", "", name).await? else {
            return Ok(unrelated(node));
        };
        let claim = references::claim_of_volume(&*volume.typed::<PersistentVolume>()?);
        let Some(claim) = claim else { return Ok(unrelated(node)) };
        Ok(if self.graph()?.relates(node, &claim) { Ok(()) } else { unrelated(node) })
    }

    /// An object whose `spec.nodeName` is this node.
    async fn bears(&self, node: &str, asked: &Attributes) -> Result<Verdict, Error> {
        let found = self.reader.get(&asked.group, &asked.resource, "", &asked.name).await?;
        let value = found.map(|object| object.value()).transpose()?.unwrap_or(Value::Null);
        Ok(if value["spec"]["nodeName"] == node { Ok(()) } else { unrelated(node) })
    }

    /// ResourceSlices: NodeRestriction sees that a new one is of the node itself.
    async fn slice(&self, node: &str, asked: &Attributes) -> Result<Verdict, Error> {
        Ok(match &*asked.verb {
            _ if !asked.subresource.is_empty() => no("cannot authorize ResourceSlice subresources"),
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.bears(node, asked).await?,
            "list" | "watch" | "deletecollection" if asked.fields.required("spec.nodeName") == Some(node) => Ok(()),
            "list" | "watch" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: create, delete, deletecollection, get, list, patch, update, watch",
            ),
        })
    }

    /// Pods: NodeRestriction sees to what a node writes (KEP-4601: reads are of its own pods only).
    fn pod(&self, node: &str, asked: &Attributes) -> Result<Verdict, Error> {
        Ok(match (asked.subresource.as_str(), &*asked.verb) {
            ("", "get") => match individual(asked, "", &["get"]) {
                Ok(()) if self.graph()?.has_pod(node, &asked.namespace, &asked.name) => Ok(()),
                Ok(()) => unrelated(node),
                refused => refused,
            },
            ("", "list" | "watch") if asked.fields.required("spec.nodeName") == Some(node) => Ok(()),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        })
    }
}

fn unrelated(node: &str) -> Verdict {
    no(format!("no relationship found between node '{node}' and this object"))
}

/// Whether a request is about one object (or lists the one of a name), with such a verb.
fn individual(asked: &Attributes, subresource: &str, verbs: &[&str]) -> Verdict {
    if asked.subresource != subresource {
        return no("cannot read subresource");
    }
    if !verbs.contains(&&*asked.verb) {
        return no(format!("can only {} resources of this type", verbs.join("/")));
    }
    if asked.name.is_empty() {
        return no("No Object name found");
    }
    Ok(())
}

/// A Lease or CSINode with the node's own name.
fn own(node: &str, asked: &Attributes, what: &str) -> Verdict {
    if !asked.subresource.is_empty() {
        return no(format!("cannot authorize {what} subresources"));
    }
    match &*asked.verb {
        // A create has no name yet; NodeRestriction sees that it is the right one.
        "create" => Ok(()),
        "get" | "update" | "patch" | "delete" if asked.name == node => Ok(()),
        "get" | "update" | "patch" | "delete" => {
            no(format!("can only access {what} with the same name as the requesting node"))
        }
        _ => no(format!("can only get, create, update, patch, or delete a {what}")),
    }
}

/// The Node itself.
fn itself(node: &str, asked: &Attributes) -> Verdict {
    match (asked.subresource.as_str(), &*asked.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if asked.name == node => Ok(()),
        ("", "get" | "list" | "watch") if asked.name.is_empty() => {
            no(format!("node {node:?} cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no(format!("node {node:?} cannot read {:?}, only its own Node object", asked.name))
        }
        _ => no(""),
    }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, asked: &Attributes) -> Decision {
        let node = match node_name(&asked.user) {
            None => return Decision::NoOpinion(String::new()),
            Some("") => return Decision::NoOpinion(format!("unknown node for user {:?}", asked.user.name)),
            Some(node) => node,
        };
        match self.decide(node, asked).await {
            Ok(Ok(())) => Decision::Allow(String::new()),
            Ok(Err(why)) => Decision::NoOpinion(why),
            Err(error) => Decision::Failed(format!("node authorizer: {error}")),
        }
    }

    fn authorize_at_once(&self, asked: &Attributes) -> Option<Decision> {
        node_name(&asked.user).is_none().then(|| Decision::NoOpinion(String::new()))
    }
}

#[async_trait]
impl RuleResolver for NodeAuthorizer {
    async fn rules_for(&self, user: &UserInfo, _namespace: &str) -> ResolvedRules {
        match node_name(user) {
            None => ResolvedRules::default(),
            Some(_) => ResolvedRules {
                incomplete: true,
                errors: vec!["node authorizer does not support user rule resolution".to_owned()],
                ..ResolvedRules::default()
            },
        }
    }
}

#[cfg(test)]
mod tests;
