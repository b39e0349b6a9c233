//! New nodes get no pods before they are ready.

use async_trait::async_trait;
use serde_json::json;

use super::{is, list_mut, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
};

/// Taints new nodes `node.kubernetes.io/not-ready:NoSchedule`; the node lifecycle controller takes the taint off.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

#[async_trait]
impl Admit for TaintNodesByCondition {
    fn name(&self) -> &str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is(resource, "", "nodes") && subresource.is_empty()
    }

    async fn mutate(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(node) = request.object.as_mut().filter(|node| node.is_object()) else { return Ok(()) };
        if node["spec"].is_null() {
            node["spec"] = json!({});
        }
        let Some(taints) = list_mut(&mut node["spec"], "taints") else { return Ok(()) };
        if !taints.iter().any(|taint| text(&taint["key"]) == NOT_READY && text(&taint["effect"]) == "NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
