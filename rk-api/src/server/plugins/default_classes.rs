//! Classes that claims and ingresses get where they name none.

use async_trait::async_trait;
use serde_json::Value;

use super::{is, spec_mut, text};
use crate::{
    LabelSelector, Resource, Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// The class that is marked as default; of several the newest, of equally old ones the first by name.
async fn default_class(
    reader: &dyn Reader,
    group: &str,
    plural: &str,
    annotations: &[&str],
) -> Result<Option<String>, Status> {
    let all = reader.list(group, plural, "", &LabelSelector::everything()).await.map_err(status::internal)?;
    let marked = |annotation: &&str, meta: &crate::Meta| meta.annotations.get(*annotation).is_some_and(|v| v == "true");
    let defaults = all.iter().map(|class| class.meta()).filter(|meta| annotations.iter().any(|a| marked(a, meta)));
    let newest =
        defaults.max_by(|a, b| a.creation_timestamp.cmp(&b.creation_timestamp).then_with(|| b.name.cmp(&a.name)));
    Ok(newest.map(|meta| meta.name.clone()))
}

fn annotated(object: &Value, annotation: &str) -> bool {
    object["metadata"]["annotations"].get(annotation).is_some()
}

/// Gives persistent volume claims without a class the default StorageClass. An empty class name is a choice, and stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultStorageClass;

#[async_trait]
impl Admit for DefaultStorageClass {
    fn name(&self) -> &str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is(resource, "", "persistentvolumeclaims") && subresource.is_empty()
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(claim) = &request.object else { return Ok(()) };
        if !claim["spec"]["storageClassName"].is_null() || annotated(claim, "volume.beta.kubernetes.io/storage-class") {
            return Ok(());
        }
        let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        if let Some(class) = default_class(reader, "storage.k8s.io", "storageclasses", &marks).await?
            && let Some(spec) = spec_mut(request)
        {
            spec["storageClassName"] = class.into();
        }
        Ok(())
    }
}

/// Gives new ingresses without a class the default IngressClass.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultIngressClass;

#[async_trait]
impl Admit for DefaultIngressClass {
    fn name(&self) -> &str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is(resource, "networking.k8s.io", "ingresses") && subresource.is_empty()
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(ingress) = &request.object else { return Ok(()) };
        let annotation = ingress["metadata"]["annotations"].get("kubernetes.io/ingress.class").map(text);
        if !ingress["spec"]["ingressClassName"].is_null() || annotation.is_some_and(|class| !class.is_empty()) {
            return Ok(());
        }
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) = default_class(reader, "networking.k8s.io", "ingressclasses", &marks).await?
            && let Some(spec) = spec_mut(request)
        {
            spec["ingressClassName"] = class.into();
        }
        Ok(())
    }
}
