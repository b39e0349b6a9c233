//! What a pod's runtime class adds to it.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{forbid, is, list, push, spec_mut, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Adds the overhead, node selector and tolerations of their RuntimeClass to new pods (KEP-688, KEP-894).
#[derive(Debug, Clone, Copy, Default)]
pub struct RuntimeClass;

/// Merges what the class says of nodes; an error where pod and class contradict each other.
fn merge(spec: &mut Value, class: &Value) -> Result<(), String> {
    let overhead = &class["overhead"]["podFixed"];
    if overhead.as_object().is_some_and(|overhead| !overhead.is_empty()) {
        if spec["overhead"].as_object().is_some_and(|own| !own.is_empty()) && spec["overhead"] != *overhead {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        }
        spec["overhead"] = overhead.clone();
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        if spec["nodeSelector"].is_null() {
            spec["nodeSelector"] = json!({});
        }
        let Some(selector) = spec["nodeSelector"].as_object_mut() else { continue };
        match selector.get(key) {
            Some(own) if own != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(own)
                ));
            }
            _ => _ = selector.insert(key.clone(), value.clone()),
        }
    }
    for toleration in list(&class["scheduling"]["tolerations"]) {
        if !list(&spec["tolerations"]).contains(toleration) {
            push(spec, "tolerations", toleration.clone());
        }
    }
    Ok(())
}

#[async_trait]
impl Admit for RuntimeClass {
    fn name(&self) -> &str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is(resource, "", "pods") && subresource.is_empty()
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(pod) = &request.object else { return Ok(()) };
        let name = text(&pod["spec"]["runtimeClassName"]).to_owned();
        if name.is_empty() {
            return Ok(());
        }
        let found = reader.get("node.k8s.io", "runtimeclasses", "", &name).await.map_err(status::internal)?;
        let Some(class) = found else {
            return Err(forbid(request, &format!("pod rejected: RuntimeClass {name:?} not found")));
        };
        let class = class.cached(|| class.value()).map_err(status::internal)?;
        let Some(spec) = spec_mut(request) else { return Ok(()) };
        merge(spec, &class).map_err(|why| forbid(request, &why))
    }

    async fn validate(&self, request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(pod) = &request.object else { return Ok(()) };
        let overhead = pod["spec"]["overhead"].as_object().is_some_and(|overhead| !overhead.is_empty());
        if overhead && text(&pod["spec"]["runtimeClassName"]).is_empty() {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(forbid(request, why));
        }
        Ok(())
    }
}
