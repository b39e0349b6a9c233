//! Nodes write what is theirs and nothing else
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>).

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::Value;

use super::{forbid, is, list, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader, UserInfo},
    status,
};

/// Keeps a node (`system:node:NAME` in `system:nodes`) to its own Node, Lease and CSINode, the pods bound to it, and
/// tokens for those pods.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeRestriction;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of Kubernetes' own domains that a kubelet sets on its node.
const KUBELET_LABELS: [&str; 14] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.k8s.io/zone",
    "topology.k8s.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

/// The name of the node that a user is; `Err` for one of its group that names no node.
fn node_of(user: &UserInfo) -> Option<Result<&str, ()>> {
    user.in_group("system:nodes").then(|| user.name.strip_prefix("system:node:").filter(|n| !n.is_empty()).ok_or(()))
}

fn in_domain(domain: &str, parent: &str) -> bool {
    domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a node may set this label on itself.
fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    if in_domain(domain, "node-restriction.kubernetes.io") {
        return false;
    }
    let kubernetes = in_domain(domain, "kubernetes.io") || in_domain(domain, "k8s.io");
    !kubernetes
        || KUBELET_LABELS.contains(&key)
        || in_domain(domain, "kubelet.kubernetes.io")
        || in_domain(domain, "node.kubernetes.io")
}

/// Labels that a node changed and may not.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let labels = |object: &Value| object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (new, old) = (labels(new), labels(old));
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    keys.into_iter().filter(|key| new.get(*key) != old.get(*key) && !may_label(key)).cloned().collect()
}

fn check_pod_create(pod: &Value, node: &str) -> Result<(), String> {
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if text(&pod["spec"]["nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    match list(&pod["metadata"]["ownerReferences"]) {
        [] => {}
        [owner] if text(&owner["kind"]) == "Node" && text(&owner["name"]) == node => {}
        [_] => return Err(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return Err(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    }
    let refuse = |what: &str| Err(format!("node {node:?} can not create pods that reference {what}"));
    if !text(&pod["spec"]["serviceAccountName"]).is_empty() {
        return refuse("a service account");
    }
    for volume in list(&pod["spec"]["volumes"]) {
        for (field, what) in
            [("secret", "secrets"), ("configMap", "configmaps"), ("persistentVolumeClaim", "persistentvolumeclaims")]
        {
            if !volume[field].is_null() {
                return refuse(what);
            }
        }
    }
    Ok(())
}

fn check_pod_status(new: &Value, old: &Value, node: &str) -> Result<(), String> {
    if text(&old["spec"]["nodeName"]) != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if new["metadata"]["labels"] != old["metadata"]["labels"] {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

fn check_node(request: &AdmissionRequest, new: &Value, old: &Value, node: &str) -> Result<(), String> {
    let own = text(&new["metadata"]["name"]);
    let name = if request.attributes.name.is_empty() { own } else { &request.attributes.name };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    if request.operation == Operation::Delete {
        return Ok(());
    }
    let labels = forbidden_labels(new, old).join(", ");
    if request.operation == Operation::Create {
        return if labels.is_empty() {
            Ok(())
        } else {
            Err(format!("node {node:?} is not allowed to set the following labels: {labels}"))
        };
    }
    if list(&new["spec"]["taints"]) != list(&old["spec"]["taints"]) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if labels.is_empty() { Ok(()) } else { Err(format!("is not allowed to modify labels: {labels}")) }
}

/// A token that a node asks for is bound to a pod on it.
async fn check_token(body: &Value, namespace: &str, node: &str, reader: &dyn Reader) -> Result<(), String> {
    let bound = &body["spec"]["boundObjectRef"];
    if text(&bound["kind"]) != "Pod" || !matches!(text(&bound["apiVersion"]), "v1" | "") {
        return Err("node requested token not bound to a pod".to_owned());
    }
    let (name, uid) = (text(&bound["name"]), text(&bound["uid"]));
    if uid.is_empty() {
        return Err(format!("node requested token with a pod binding without a uid: pod {name:?}"));
    }
    let pod = reader.get("", "pods", namespace, name).await.map_err(|error| error.to_string())?;
    let Some(pod) = pod else { return Err(format!("pod {name:?} not found")) };
    if pod.meta().uid != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    let pod = pod.value().map_err(|error| error.to_string())?;
    if text(&pod["spec"]["nodeName"]) != node {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    Ok(())
}

fn check_lease(request: &AdmissionRequest, new: &Value, node: &str) -> Result<(), String> {
    if request.attributes.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    check_own(request, new, node, "node lease")
}

fn check_own(request: &AdmissionRequest, new: &Value, node: &str, what: &str) -> Result<(), String> {
    let own = text(&new["metadata"]["name"]);
    let name = if request.attributes.name.is_empty() { own } else { &request.attributes.name };
    if name == node { Ok(()) } else { Err(format!("can only access {what} with the same name as the requesting node")) }
}

#[async_trait]
impl Admit for NodeRestriction {
    fn name(&self) -> &str {
        "NodeRestriction"
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        is(resource, "", "pods")
            || is(resource, "", "nodes")
            || is(resource, "", "serviceaccounts")
            || is(resource, "coordination.k8s.io", "leases")
            || is(resource, "storage.k8s.io", "csinodes")
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(node) = node_of(&request.attributes.user) else { return Ok(()) };
        let Ok(node) = node else {
            let why = format!("could not determine node from user {:?}", request.attributes.user.name);
            return Err(forbid(request, &why));
        };
        let old = request.old_object.as_ref().map(|old| old.value()).transpose().map_err(status::internal)?;
        let old = old.unwrap_or_default();
        let new = request.object.as_ref().unwrap_or(&Value::Null);
        let at = text(&old["spec"]["nodeName"]);
        let result = match (&*request.resource.plural, request.attributes.subresource.as_str(), request.operation) {
            ("pods", "", Operation::Create) => check_pod_create(new, node),
            ("pods", "", Operation::Delete) if at != node => {
                Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            ("pods", "", Operation::Delete) => Ok(()),
            ("pods", "status", _) => check_pod_status(new, &old, node),
            ("pods", "eviction", _) => {
                let name = &request.attributes.name;
                let pod =
                    reader.get("", "pods", &request.attributes.namespace, name).await.map_err(status::internal)?;
                let pod = pod.map(|pod| pod.value()).transpose().map_err(status::internal)?.unwrap_or_default();
                if text(&pod["spec"]["nodeName"]) == node {
                    Ok(())
                } else {
                    Err(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
                }
            }
            ("pods", ..) => Err(format!("unexpected operation on pods by node {node:?}")),
            ("nodes", ..) => check_node(request, new, &old, node),
            ("serviceaccounts", "token", _) => check_token(new, &request.attributes.namespace, node, reader).await,
            ("leases", ..) => check_lease(request, new, node),
            ("csinodes", ..) => check_own(request, new, node, "CSINode"),
            _ => Ok(()),
        };
        result.map_err(|why| forbid(request, &why))
    }
}
