//! Nodes write what is theirs and nothing else
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>).

use std::collections::BTreeSet;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{forbid, is, list, text};
use crate::{
    Resource, Status,
    server::{
        AdmissionRequest, Admit, Operation, Reader,
        authz::{node_name, taken_from},
    },
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

async fn check_pod_create(pod: &Value, node: &str, reader: &dyn Reader) -> Result<(), String> {
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if text(&pod["spec"]["nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let [owner] = list(&pod["metadata"]["ownerReferences"]) else {
        let single = if list(&pod["metadata"]["ownerReferences"]).is_empty() { "an" } else { "a single" };
        return Err(format!("node {node:?} can only create pods with {single} owner reference set to itself"));
    };
    if text(&owner["apiVersion"]) != "v1" || text(&owner["kind"]) != "Node" || text(&owner["name"]) != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let found = reader.get("", "nodes", "", node).await.map_err(|error| error.to_string())?;
    let Some(found) = found else { return Err(format!("nodes {node:?} not found")) };
    let (uid, own) = (text(&owner["uid"]), &found.meta().uid);
    if uid != own {
        return Err(format!("node {node:?} UID mismatch: expected {own} got {uid}"));
    }
    match reference(pod)? {
        Some(what) => Err(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// Volumes for which the API is asked, and what of it.
const VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];
/// The same for the sources of projected volumes.
const SOURCES: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// What kind of other objects a pod refers to, if it does (Kubernetes' `HasAPIObjectReference`).
fn reference(pod: &Value) -> Result<Option<&'static str>, String> {
    let spec = &pod["spec"];
    if !text(&spec["serviceAccountName"]).is_empty() {
        return Ok(Some("serviceaccounts"));
    }
    let typed: Pod = serde_json::from_value(pod.clone()).map_err(|error| format!("the pod can't be read: {error}"))?;
    if let Some(what) = taken_from(&typed) {
        return Ok(Some(what));
    }
    if !list(&spec["resourceClaims"]).is_empty() {
        return Ok(Some("resourceclaims"));
    }
    let of = |holder: &Value, known: &[(&str, &'static str)]| {
        known.iter().find(|(field, _)| holder[*field].is_object()).map(|(_, what)| *what)
    };
    let of_volume = |volume: &Value| {
        let sources = list(&volume["projected"]["sources"]);
        of(volume, &VOLUMES).or_else(|| sources.iter().find_map(|source| of(source, &SOURCES)))
    };
    Ok(list(&spec["volumes"]).iter().find_map(of_volume))
}

fn check_pod_status(new: &Value, old: &Value, node: &str) -> Result<(), String> {
    if text(&old["spec"]["nodeName"]) != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if new["metadata"]["labels"] != old["metadata"]["labels"] {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    if list(&new["status"]["resourceClaimStatuses"]) != list(&old["status"]["resourceClaimStatuses"]) {
        return Err(format!("node {node:?} cannot update resource claim statuses"));
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
    if !new["spec"]["configSource"].is_null() && new["spec"]["configSource"] != old["spec"]["configSource"] {
        return Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
    }
    if list(&new["metadata"]["ownerReferences"]) != list(&old["metadata"]["ownerReferences"]) {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
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
    check_audience(body, &pod, reader).await
}

/// A node asks for tokens for those only whom the pod's volumes, or the drivers of these, are for
/// (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>, `ServiceAccountNodeAudienceRestriction`).
async fn check_audience(body: &Value, pod: &Value, reader: &dyn Reader) -> Result<(), String> {
    let audience = match list(&body["spec"]["audiences"]) {
        [] => "",
        [one] => text(one),
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    for volume in list(&pod["spec"]["volumes"]) {
        let sources = list(&volume["projected"]["sources"]).iter().map(|source| &source["serviceAccountToken"]);
        if sources.filter(|source| source.is_object()).any(|source| text(&source["audience"]) == audience) {
            return Ok(());
        }
        let driver = match driver_of(
            volume,
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
            reader,
        )
        .await
        {
            Ok(driver) if driver.is_empty() => continue,
            Ok(driver) => driver,
            Err(error) => return Err(error.to_string()),
        };
        let found = reader.get("storage.k8s.io", "csidrivers", "", &driver).await.map_err(|error| error.to_string())?;
        let driver = found.map(|driver| driver.value()).transpose().map_err(|error| error.to_string())?;
        let requests = driver.unwrap_or_default();
        if list(&requests["spec"]["tokenRequests"]).iter().any(|request| text(&request["audience"]) == audience) {
            return Ok(());
        }
    }
    Err(format!("audience {audience:?} not found in pod spec volume"))
}

/// The CSI driver of a volume, its claim's volume included; empty if it has none.
async fn driver_of(volume: &Value, namespace: &str, pod: &str, reader: &dyn Reader) -> Result<String, crate::Error> {
    if let Some(driver) = volume["csi"]["driver"].as_str() {
        return Ok(driver.to_owned());
    }
    let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
        Some(claim) => claim.to_owned(),
        None if volume["ephemeral"].is_object() => format!("{pod}-{}", text(&volume["name"])),
        None => return Ok(String::new()),
    };
    let Some(claim) = reader.get("", "persistentvolumeclaims", namespace, &claim).await? else {
        return Ok(String::new());
    };
    let name = text(&claim.value()?["spec"]["volumeName"]).to_owned();
    let Some(volume) = reader.get("", "persistentvolumes", "", &name).await? else { return Ok(String::new()) };
    Ok(text(&volume.value()?["spec"]["csi"]["driver"]).to_owned())
}

/// The status of a claim, as far as a node resizes its volume; nothing else of the claim.
fn check_claim(request: &AdmissionRequest, new: &Value, old: &Value, node: &str) -> Result<(), String> {
    let strip = |claim: &Value| {
        let mut claim = claim.clone();
        claim["status"] = Value::Null;
        for field in ["managedFields", "resourceVersion"] {
            claim["metadata"][field] = Value::Null;
        }
        claim
    };
    let rest = |claim: &Value| {
        let mut status = claim["status"].clone();
        if let Some(fields) = status.as_object_mut() {
            for field in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
                fields.remove(field);
            }
        }
        status
    };
    if request.attributes.subresource != "status" || request.operation != Operation::Update {
        return Err(format!("node {node:?} may only update PVC status"));
    }
    if strip(new) != strip(old) || rest(new) != rest(old) {
        return Err(format!(
            "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
        ));
    }
    Ok(())
}

/// A new ResourceSlice is of the node that makes it.
fn check_slice(request: &AdmissionRequest, new: &Value, old: &Value, node: &str) -> Result<(), String> {
    let slice = if request.operation == Operation::Delete { old } else { new };
    if text(&slice["spec"]["nodeName"]) == node {
        return Ok(());
    }
    Err("can only create ResourceSlice with the same NodeName as the requesting node".to_owned())
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
            || is(resource, "", "persistentvolumeclaims")
            || is(resource, "storage.k8s.io", "csinodes")
            || is(resource, "resource.k8s.io", "resourceslices")
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(node) = node_name(&request.attributes.user) else { return Ok(()) };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", request.attributes.user.name);
            return Err(forbid(request, &why));
        }
        let old = request.old_value()?;
        let old = old.unwrap_or_default();
        let new = request.object.as_ref().unwrap_or(&Value::Null);
        let at = text(&old["spec"]["nodeName"]);
        let result = match (&*request.resource.plural, request.attributes.subresource.as_str(), request.operation) {
            ("pods", "", Operation::Create) => check_pod_create(new, node, reader).await,
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
            ("persistentvolumeclaims", ..) => check_claim(request, new, &old, node),
            ("resourceslices", ..) => check_slice(request, new, &old, node),
            ("csinodes", ..) => check_own(request, new, node, "CSINode"),
            _ => Ok(()),
        };
        result.map_err(|why| forbid(request, &why))
    }
}
