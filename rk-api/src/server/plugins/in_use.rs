//! Claims, volumes and their classes stay while they are used.

use async_trait::async_trait;

use super::{list, push};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
};

/// Gives new PersistentVolumeClaims, PersistentVolumes and VolumeAttributesClasses the finalizers `kubernetes.io/pvc-protection`,
/// `kubernetes.io/pv-protection` and `kubernetes.io/vac-protection`. Controllers take them off when who is deleted is used no more
/// (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>); without those controllers
/// none of these objects ever goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct StorageObjectInUseProtection;

fn finalizer(resource: &Resource) -> Option<&'static str> {
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
        ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses") => Some("kubernetes.io/vac-protection"),
        _ => None,
    }
}

#[async_trait]
impl Admit for StorageObjectInUseProtection {
    fn name(&self) -> &str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && subresource.is_empty() && finalizer(resource).is_some()
    }

    async fn mutate(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(finalizer) = finalizer(&request.resource) else { return Ok(()) };
        let meta = request.object.as_mut().and_then(|object| object.get_mut("metadata"));
        if let Some(meta) = meta.filter(|meta| meta.is_object())
            && !list(&meta["finalizers"]).iter().any(|one| one == finalizer)
        {
            push(meta, "finalizers", finalizer.into());
        }
        Ok(())
    }
}
