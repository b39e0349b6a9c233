//! The admission plugins of Kubernetes.
//!
//! [`default_chain`] is what a cluster runs, in kube-apiserver's order; [`authorizing_chain`] is that with the plugins that
//! ask the authorizer. A program adds its own with [`from_fn`] or by implementing [`Admit`], or with [`mutating_typed`],
//! [`validating_typed`] or [`AdmitTyped`] for objects as Rust types:
//!
//! ```
//! use rk_api::server::{Operation, plugins};
//!
//! let plugin = plugins::from_fn(
//!     "NeedsOwner",
//!     |operation, resource, _| operation == Operation::Create && resource.plural == "configmaps",
//!     |request| match request.object.as_ref().and_then(|object| object["metadata"]["labels"]["owner"].as_str()) {
//!         Some(_) => Ok(()),
//!         None => Err(plugins::forbid(request, "every ConfigMap has an owner here")),
//!     },
//! );
//! assert_eq!(plugin.name(), "NeedsOwner");
//! ```

mod certificates;
mod claim_resize;
mod declared_features;
mod default_classes;
mod default_tolerations;
mod describe;
mod in_use;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod owner_references;
mod pod_security;
mod pod_topology;
mod policies;
mod priority;
mod resource_quota;
mod runtime_class;
mod select;
mod service_account;
mod typed;
#[cfg(feature = "serve")]
mod webhooks;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;

use super::{AdmissionRequest, Admit, Authorizer, Operation, Reader};
use crate::{
    Resource, status,
    tree::{list, text},
};

pub use certificates::{CertificateApproval, CertificateSigning, CertificateSubjectRestriction};
pub use claim_resize::PersistentVolumeClaimResize;
pub use declared_features::NodeDeclaredFeatureValidator;
pub use default_classes::{DefaultIngressClass, DefaultStorageClass};
pub use default_tolerations::{DefaultTolerationSeconds, ExtendedResourceToleration};
pub use in_use::StorageObjectInUseProtection;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use node_taint::TaintNodesByCondition;
pub use owner_references::OwnerReferencesPermissionEnforcement;
pub use pod_security::{Exemptions, Level, PodSecurity, Policy, Version, Violation};
pub use pod_topology::PodTopologyLabels;
pub use policies::{MutatingPolicies, ValidatingPolicies};
pub(crate) use policies::{condition_issues, issues as policy_issues, type_check};
pub use priority::Priority;
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub use typed::{AdmitTyped, mutating_typed, typed, validating_typed};
#[cfg(feature = "serve")]
pub(crate) use webhooks::call as call_webhook;
#[cfg(feature = "serve")]
pub use webhooks::{MutatingWebhooks, ValidatingWebhooks};

/// The plugins that a cluster runs by default, in kube-apiserver's order.
pub fn default_chain() -> Vec<Arc<dyn Admit>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(LimitRanger),
        Arc::new(ServiceAccount::default()),
        Arc::new(NodeRestriction),
        Arc::new(TaintNodesByCondition),
        Arc::new(PodSecurity::default()),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds::default()),
        Arc::new(DefaultStorageClass),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(PersistentVolumeClaimResize),
        Arc::new(RuntimeClass),
        Arc::new(CertificateSubjectRestriction),
        Arc::new(DefaultIngressClass),
        Arc::new(PodTopologyLabels),
        Arc::new(NodeDeclaredFeatureValidator),
        Arc::new(MutatingPolicies::default()),
        #[cfg(feature = "serve")]
        Arc::new(MutatingWebhooks::default()),
        Arc::new(ValidatingPolicies::default()),
        #[cfg(feature = "serve")]
        Arc::new(ValidatingWebhooks::default()),
        Arc::new(ResourceQuota::default()),
    ]
}

/// [`default_chain`], and in their place the plugins that ask whether the caller may do more than the request itself says: to
/// approve and sign certificates.
pub fn authorizing_chain(authorizer: &Arc<dyn Authorizer>) -> Vec<Arc<dyn Admit>> {
    let mut chain = default_chain();
    let at = chain.iter().position(|plugin| plugin.name() == "CertificateSubjectRestriction").unwrap_or(chain.len());
    let asking: [Arc<dyn Admit>; 2] = [
        Arc::new(CertificateApproval::new(Arc::clone(authorizer))),
        Arc::new(CertificateSigning::new(Arc::clone(authorizer))),
    ];
    chain.splice(at..at, asking);
    chain
}

/// A 403 about the request's object, in the words of Kubernetes' `admission.NewForbidden`.
pub fn forbid(request: &AdmissionRequest, why: &str) -> Status {
    let meta = |field: &str| request.object.as_ref().and_then(|object| object["metadata"][field].as_str());
    let name = [Some(request.attributes.name.as_str()), meta("name"), meta("generateName")]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty())
        .unwrap_or("Unknown");
    status::forbidden(&request.resource, name, why)
}

/// A plugin made of two closures: `handles` says which writes it wants to see, `validate` refuses them or not.
pub fn from_fn<H, V>(name: &str, handles: H, validate: V) -> Arc<dyn Admit>
where
    H: Fn(Operation, &Resource, &str) -> bool + Send + Sync + 'static,
    V: Fn(&AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
{
    Arc::new(Closures { name: name.to_owned(), handles, mutate: |_: &mut AdmissionRequest| Ok(()), validate })
}

/// A plugin made of two closures: `handles` says which writes it wants to see, `mutate` changes them, or refuses them.
pub fn mutating_fn<H, M>(name: &str, handles: H, mutate: M) -> Arc<dyn Admit>
where
    H: Fn(Operation, &Resource, &str) -> bool + Send + Sync + 'static,
    M: Fn(&mut AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
{
    Arc::new(Closures { name: name.to_owned(), handles, mutate, validate: |_: &AdmissionRequest| Ok(()) })
}

struct Closures<H, M, V> {
    name: String,
    handles: H,
    mutate: M,
    validate: V,
}

#[async_trait]
impl<H, M, V> Admit for Closures<H, M, V>
where
    H: Fn(Operation, &Resource, &str) -> bool + Send + Sync + 'static,
    M: Fn(&mut AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
    V: Fn(&AdmissionRequest) -> Result<(), Status> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        (self.handles)(operation, resource, subresource)
    }

    async fn mutate(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        (self.mutate)(request)
    }

    async fn validate(&self, request: &AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        (self.validate)(request)
    }
}

/// Whether a resource is this one.
fn is(resource: &Resource, group: &str, plural: &str) -> bool {
    resource.group == group && resource.plural == plural
}

/// The list in a field, made if it is missing or null; `None` where no list can be, which validation says later.
fn list_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = object.as_object_mut()?.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
}

/// Adds an item to the list in a field.
fn push(object: &mut Value, field: &str, item: Value) {
    if let Some(list) = list_mut(object, field) {
        list.push(item);
    }
}

/// The `spec` of the request's object, if it is one.
fn spec_mut(request: &mut AdmissionRequest) -> Option<&mut Value> {
    request.object.as_mut()?.get_mut("spec").filter(|spec| spec.is_object())
}

#[cfg(test)]
mod tests;
