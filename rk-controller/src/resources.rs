//! All collections of a cluster: Kubernetes' own and those that CustomResourceDefinitions add.

use k8s_openapi::{
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch,
        certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
        discovery::v1 as discovery, flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node,
        policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling,
        storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use rk_api::{Informer, Resource};

macro_rules! resources {
    ($($kind:ty),* $(,)?) => { vec![$(Resource::of::<$kind>()),*] };
}

/// The stored resources that Kubernetes itself defines and rk's API server has; each once, in its stable version. Events are among them.
pub fn builtin() -> Vec<Resource> {
    resources![
        core::ConfigMap,
        core::Endpoints,
        core::Event,
        core::LimitRange,
        core::Namespace,
        core::Node,
        core::PersistentVolume,
        core::PersistentVolumeClaim,
        core::Pod,
        core::PodTemplate,
        core::ReplicationController,
        core::ResourceQuota,
        core::Secret,
        core::Service,
        core::ServiceAccount,
        apps::ControllerRevision,
        apps::DaemonSet,
        apps::Deployment,
        apps::ReplicaSet,
        apps::StatefulSet,
        autoscaling::HorizontalPodAutoscaler,
        batch::CronJob,
        batch::Job,
        certificates::CertificateSigningRequest,
        coordination::Lease,
        discovery::EndpointSlice,
        flowcontrol::FlowSchema,
        flowcontrol::PriorityLevelConfiguration,
        networking::IPAddress,
        networking::Ingress,
        networking::IngressClass,
        networking::NetworkPolicy,
        networking::ServiceCIDR,
        node::RuntimeClass,
        policy::PodDisruptionBudget,
        rbac::ClusterRole,
        rbac::ClusterRoleBinding,
        rbac::Role,
        rbac::RoleBinding,
        resource::DeviceClass,
        resource::ResourceClaim,
        resource::ResourceClaimTemplate,
        resource::ResourceSlice,
        scheduling::PriorityClass,
        storage::CSIDriver,
        storage::CSINode,
        storage::CSIStorageCapacity,
        storage::StorageClass,
        storage::VolumeAttachment,
        storage::VolumeAttributesClass,
        admission::MutatingAdmissionPolicy,
        admission::MutatingAdmissionPolicyBinding,
        admission::MutatingWebhookConfiguration,
        admission::ValidatingAdmissionPolicy,
        admission::ValidatingAdmissionPolicyBinding,
        admission::ValidatingWebhookConfiguration,
        APIService,
        CustomResourceDefinition,
    ]
}

/// The resources that the definitions in this informer add, each in its storage version. A definition that does not
/// decode is reported and left out.
pub fn custom(definitions: &Informer) -> Vec<Resource> {
    definitions
        .list()
        .iter()
        .filter_map(|object| match object.typed::<CustomResourceDefinition>() {
            Ok(definition) => of_definition(&definition),
            Err(error) => {
                tracing::warn!(?object, %error, "can't read a CustomResourceDefinition");
                None
            }
        })
        .collect()
}

/// The resource of a definition that the server has begun to serve.
fn of_definition(definition: &CustomResourceDefinition) -> Option<Resource> {
    let conditions = definition.status.as_ref()?.conditions.as_ref()?;
    if !conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
        return None;
    }
    let spec = &definition.spec;
    let version = spec.versions.iter().find(|version| version.storage && version.served);
    let version = version.or_else(|| spec.versions.iter().find(|version| version.served))?;
    Some(Resource::new(&spec.group, &version.name, &spec.names.kind, &spec.names.plural, spec.scope == "Namespaced"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn all_that_is_stored_is_known() {
        let rows: Vec<Value> = serde_json::from_str(include_str!("../../rk-api/data/discovery.json")).unwrap();
        let may = |row: &Value, verb: &str| row["verbs"].as_array().unwrap().iter().any(|known| known == verb);
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        let stored = rows.iter().filter(|row| may(row, "list") && may(row, "delete"));
        // Events have two groups.
        let stored = stored.filter(|row| row["group"] != "events.k8s.io");
        let stored: BTreeSet<_> = stored.map(|row| (text(row, "group"), text(row, "plural"))).collect();
        let all = builtin();
        let known: BTreeSet<_> =
            all.iter().map(|resource| (resource.group.to_string(), resource.plural.to_string())).collect();
        assert_eq!(known, stored);
        assert_eq!(known.len(), all.len(), "one is there twice");
    }
}
