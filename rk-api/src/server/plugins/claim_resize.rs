//! Claims that ask for more than they have.

use async_trait::async_trait;
use serde_json::Value;

use super::{forbid, is, text};
use crate::{
    Quantity, Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Lets a PersistentVolumeClaim ask for more storage only if it is bound and its StorageClass says `allowVolumeExpansion`
/// (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#persistentvolumeclaimresize>).
#[derive(Debug, Clone, Copy, Default)]
pub struct PersistentVolumeClaimResize;

/// What a claim asks for.
fn size(claim: &Value) -> Option<Quantity> {
    text(&claim["spec"]["resources"]["requests"]["storage"]).parse().ok()
}

/// The class of a claim; the older annotation wins, as in Kubernetes.
fn class(claim: &Value) -> &str {
    match text(&claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]) {
        "" => text(&claim["spec"]["storageClassName"]),
        annotated => annotated,
    }
}

#[async_trait]
impl Admit for PersistentVolumeClaimResize {
    fn name(&self) -> &str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update && is(resource, "", "persistentvolumeclaims") && subresource.is_empty()
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let old = request.old_value()?;
        let (Some(new), Some(old)) = (&request.object, old) else { return Ok(()) };
        // What is no amount is refused by the claim's own rules.
        let (Some(after), Some(before)) = (size(new), size(&old)) else { return Ok(()) };
        if after <= before {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(forbid(request, "Only bound persistent volume claims can be expanded"));
        }
        let name = class(new);
        if !name.is_empty() && name == class(&old) {
            let found = reader.get("storage.k8s.io", "storageclasses", "", name).await.map_err(status::internal)?;
            let found = found.map(|found| found.value()).transpose().map_err(status::internal)?;
            if found.is_some_and(|class| class["allowVolumeExpansion"] == true) {
                return Ok(());
            }
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        Err(forbid(request, why))
    }
}
