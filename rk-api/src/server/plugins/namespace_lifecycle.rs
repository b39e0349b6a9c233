//! Objects live in namespaces that are there and not about to go.

use async_trait::async_trait;

use super::{forbid, is, text};
use crate::{
    Error, Object, Resource, Status, StatusExt,
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

/// What the phase of a namespace says, read once of each version.
struct Terminating(bool);

/// Whether a namespace is about to go. Its deletion timestamp is there a moment before the phase is in all copies; the phase is what
/// Kubernetes looks at.
fn is_ending(namespace: &Object) -> Result<bool, Error> {
    let phase = || Ok(Terminating(text(&namespace.value()?["status"]["phase"]) == "Terminating"));
    Ok(namespace.meta().deletion_timestamp.is_some() || namespace.cached(phase)?.0)
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
        if request.operation == Operation::Create && is_ending(&namespace).map_err(status::internal)? {
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            let cause = format!("namespace {name} is being terminated");
            return Err(forbid(request, &why).cause("NamespaceTerminating", "metadata.namespace", &cause));
        }
        Ok(())
    }
}
