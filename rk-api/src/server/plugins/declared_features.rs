//! Changes of pods that their nodes have to be able to follow.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::{forbid, is, list, text};
use crate::{
    Quantity, Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Refuses changes of pods on nodes that do not declare the features which it takes to follow them (KEP-5328,
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/node-declared-features/>).
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeDeclaredFeatureValidator;

/// Whether a change needs a feature: of the pod as it was, to the pod as it shall be.
type Needs = fn(&Value, &Value) -> bool;

/// Kubernetes 1.36's features that changes may need, by name. The others that nodes declare matter when a pod is placed.
const FEATURES: [(&str, Needs); 2] =
    [("GuaranteedQoSPodCPUResize", resizes_own_cpus), ("InPlacePodLevelResourcesVerticalScaling", resizes_whole)];

/// Whether a container of a pod that may have CPUs of its own asks for another number of them.
fn resizes_own_cpus(old: &Value, new: &Value) -> bool {
    let cpus = |pod: &Value| -> Vec<Option<Quantity>> {
        list(&pod["spec"]["containers"]).iter().map(|container| cpu(&container["resources"])).collect()
    };
    old["status"]["qosClass"] == "Guaranteed" && cpus(old) != cpus(new)
}

fn cpu(resources: &Value) -> Option<Quantity> {
    text(&resources["requests"]["cpu"]).parse().ok().filter(|amount: &Quantity| !amount.is_zero())
}

/// Whether the resources of the pod as a whole change.
fn resizes_whole(old: &Value, new: &Value) -> bool {
    amounts(&old["spec"]["resources"]) != amounts(&new["spec"]["resources"])
}

/// The amounts of resources, by list and name; those that are none as they are written.
fn amounts(resources: &Value) -> BTreeMap<(&str, &str), Result<Quantity, &str>> {
    let of = |field: &'static str| {
        let entries = resources[field].as_object().into_iter().flatten();
        entries.map(move |(name, amount)| ((field, name.as_str()), text(amount).parse().map_err(|_| text(amount))))
    };
    of("limits").chain(of("requests")).collect()
}

#[async_trait]
impl Admit for NodeDeclaredFeatureValidator {
    fn name(&self) -> &str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update && is(resource, "", "pods") && matches!(subresource, "" | "resize")
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let old = request.old_value()?;
        let (Some(new), Some(old)) = (&request.object, old) else { return Ok(()) };
        let node = text(&new["spec"]["nodeName"]);
        let mut needed: Vec<_> = FEATURES.iter().filter(|(_, needs)| needs(&old, new)).map(|(name, _)| *name).collect();
        if node.is_empty() || needed.is_empty() {
            return Ok(());
        }
        let found = reader.get("", "nodes", "", node).await.map_err(status::internal)?;
        let Some(found) = found else { return Err(forbid(request, &format!("node {node:?} not found"))) };
        let found = found.value().map_err(status::internal)?;
        let declared = list(&found["status"]["declaredFeatures"]);
        needed.retain(|name| declared.iter().all(|declared| declared != name));
        if needed.is_empty() {
            return Ok(());
        }
        let needed = needed.join(", ");
        Err(forbid(request, &format!("pod update requires features {needed} which are not available on node {node:?}")))
    }
}
