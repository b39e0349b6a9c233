//! Tolerations that pods get without asking.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{is, list, push, spec_mut, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
};

/// Lets pods stay for a while on a node that is not ready or unreachable, where they do not say how long themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultTolerationSeconds {
    /// Seconds on a node that is not ready.
    pub not_ready: i64,
    /// Seconds on a node that is unreachable.
    pub unreachable: i64,
}

impl Default for DefaultTolerationSeconds {
    fn default() -> Self {
        Self { not_ready: 300, unreachable: 300 }
    }
}

fn pods(operation: Operation, resource: &Resource, subresource: &str) -> bool {
    matches!(operation, Operation::Create | Operation::Update) && is(resource, "", "pods") && subresource.is_empty()
}

#[async_trait]
impl Admit for DefaultTolerationSeconds {
    fn name(&self) -> &str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        pods(operation, resource, subresource)
    }

    async fn mutate(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(spec) = spec_mut(request) else {
            return Ok(());
        };
        for (key, seconds) in
            [("node.kubernetes.io/not-ready", self.not_ready), ("node.kubernetes.io/unreachable", self.unreachable)]
        {
            let tolerates = |toleration: &Value| {
                matches!(text(&toleration["key"]), k if k == key || k.is_empty())
                    && matches!(text(&toleration["effect"]), "NoExecute" | "")
            };
            if !list(&spec["tolerations"]).iter().any(tolerates) {
                push(
                    spec,
                    "tolerations",
                    json!({
                        "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
                    }),
                );
            }
        }
        Ok(())
    }
}

/// Lets pods that ask for an extended resource (`example.com/gpu`) onto the nodes that are tainted with its name. Not
/// part of the default chain.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtendedResourceToleration;

/// Whether a resource is none of Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

#[async_trait]
impl Admit for ExtendedResourceToleration {
    fn name(&self) -> &str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        pods(operation, resource, subresource)
    }

    async fn mutate(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(spec) = spec_mut(request) else {
            return Ok(());
        };
        let containers = ["initContainers", "containers"].into_iter().flat_map(|field| list(&spec[field]));
        let asked: BTreeSet<String> = containers
            .flat_map(|container| container["resources"]["requests"].as_object().into_iter().flatten())
            .map(|(name, _)| name.clone())
            .filter(|name| is_extended(name))
            .collect();
        for key in asked {
            let toleration = json!({"key": key, "operator": "Exists"});
            let covers = |known: &Value| {
                text(&known["key"]) == key
                    && text(&known["operator"]) == "Exists"
                    && matches!(text(&known["effect"]), "" | "NoSchedule")
            };
            if !list(&spec["tolerations"]).iter().any(covers) {
                push(spec, "tolerations", toleration);
            }
        }
        Ok(())
    }
}
