//! Objects live in namespaces that are there and not about to go.

use async_trait::async_trait;

use super::{forbid, is, text};
use crate::{
    Resource, Status, StatusExt,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Refuses objects in namespaces that do not exist (404) or are being deleted (403), and the deletion of the namespaces
/// `default`, `kube-system` and `kube-public`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Questions about a namespace may be asked before it is there.
fn is_access_review(resource: &Resource) -> bool {
    is(resource, "authorization.k8s.io", "localsubjectaccessreviews")
}

#[async_trait]
impl Admit for NamespaceLifecycle {
    fn name(&self) -> &str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        match operation {
            Operation::Create | Operation::Update => resource.namespaced && !is_access_review(resource),
            Operation::Delete => is(resource, "", "namespaces"),
            Operation::Connect => false,
        }
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        if request.operation == Operation::Delete {
            let name = &request.attributes.name;
            return if IMMORTAL.contains(&name.as_str()) {
                Err(status::forbidden(&request.resource, name, "this namespace may not be deleted"))
            } else {
                Ok(())
            };
        }
        let name = &request.attributes.namespace;
        let Some(namespace) = reader.get("", "namespaces", "", name).await.map_err(status::internal)? else {
            return Err(status::not_found(&Resource::new("", "v1", "Namespace", "namespaces", false), name));
        };
        // A deletion timestamp is there a moment before the phase is in all copies; the phase is what Kubernetes looks at.
        let ending = namespace.meta().deletion_timestamp.is_some()
            || text(&namespace.value().map_err(status::internal)?["status"]["phase"]) == "Terminating";
        if request.operation == Operation::Create && ending {
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            let cause = format!("namespace {name} is being terminated");
            return Err(forbid(request, &why).cause("NamespaceTerminating", "metadata.namespace", &cause));
        }
        Ok(())
    }
}
