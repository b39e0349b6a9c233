//! What each built-in kind has beyond its schema: defaults, rules, columns, selectable fields.
//!
//! [`strategy`], [`columns`] and [`selectable_fields`] are looked up once, when the registry's rows are made. A kind's file holds its
//! rules as a `Rules` table of plain functions over JSON trees, which work in place: no object is decoded into a type on its
//! way in. What is wrong is said through [`field::Errors`] in Kubernetes' words.

mod admission;
mod api_service;
mod apps;
mod autoscaling;
mod batch;
mod cells;
mod certificates;
mod config;
mod csi;
mod custom;
mod devices;
mod endpoints;
mod event;
pub mod field;
mod flow_control;
mod limits;
pub(crate) mod meta;
mod misc;
mod namespace;
mod networking;
mod node;
mod pod;
mod pod_group;
mod rbac;
mod rules;
mod scheduling;
mod selector;
pub mod service;
mod storage;
#[cfg(test)]
mod tests;
mod value;
pub(crate) mod warn;

use std::sync::Arc;

pub(crate) use cells::age;
pub(crate) use custom::Approval;
pub use meta::{validate_meta, validate_meta_update};
pub use value::Peek;

use self::rules::Rules;
use super::{Column, Strategy, flow::GROUP as FLOW_CONTROL};
pub(crate) use crate::names;

/// The rules of a kind; those that have none beyond their schema get a strategy that does nothing.
///
/// Services get cluster IPs and node ports of the default ranges; see [`service::strategy`] for others.
pub fn strategy(group: &str, kind: &str) -> Arc<dyn Strategy> {
    let rules = match (group, kind) {
        ("", "Service") => return service::strategy(service::Ranges::default()),
        ("", "Pod") => pod::RULES,
        ("", "PodTemplate") => pod::template::POD_TEMPLATE,
        ("", "Namespace") => namespace::RULES,
        ("", "Node") => node::RULES,
        ("", "ConfigMap") => config::CONFIG_MAP,
        ("", "Secret") => config::SECRET,
        ("", "ServiceAccount") => config::SERVICE_ACCOUNT,
        ("", "PersistentVolume") => storage::VOLUME,
        ("", "PersistentVolumeClaim") => storage::CLAIM,
        ("", "ReplicationController") => apps::REPLICATION_CONTROLLER,
        ("", "LimitRange") => limits::LIMIT_RANGE,
        ("", "ResourceQuota") => limits::QUOTA,
        ("", "Endpoints") => endpoints::ENDPOINTS,
        ("" | "events.k8s.io", "Event") => event::EVENT,
        ("apps", "Deployment") => apps::DEPLOYMENT,
        ("apps", "ReplicaSet") => apps::REPLICA_SET,
        ("apps", "StatefulSet") => apps::STATEFUL_SET,
        ("apps", "DaemonSet") => apps::DAEMON_SET,
        ("apps", "ControllerRevision") => apps::CONTROLLER_REVISION,
        ("batch", "Job") => batch::JOB,
        ("batch", "CronJob") => batch::CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::AUTOSCALER,
        ("policy", "PodDisruptionBudget") => autoscaling::DISRUPTION_BUDGET,
        ("networking.k8s.io", "Ingress") => networking::INGRESS,
        ("networking.k8s.io", "IngressClass") => networking::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => networking::NETWORK_POLICY,
        ("networking.k8s.io", "IPAddress") => networking::IP_ADDRESS,
        ("networking.k8s.io", "ServiceCIDR") => networking::SERVICE_CIDR,
        ("discovery.k8s.io", "EndpointSlice") => endpoints::ENDPOINT_SLICE,
        (DEVICES, "ResourceClaim") => devices::CLAIM,
        (DEVICES, "ResourceClaimTemplate") => devices::TEMPLATE,
        (DEVICES, "DeviceClass") => devices::CLASS,
        (DEVICES, "ResourceSlice") => devices::SLICE,
        ("rbac.authorization.k8s.io", "Role") => rbac::ROLE,
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::BINDING,
        ("storage.k8s.io", "StorageClass") => storage::CLASS,
        ("storage.k8s.io", "CSIDriver") => csi::DRIVER,
        ("storage.k8s.io", "CSINode") => csi::NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => csi::CAPACITY,
        ("storage.k8s.io", "VolumeAttachment") => csi::ATTACHMENT,
        ("storage.k8s.io", "VolumeAttributesClass") => csi::ATTRIBUTES_CLASS,
        ("scheduling.k8s.io", "PriorityClass") => scheduling::PRIORITY_CLASS,
        (pod_group::GROUP, "PodGroup") => pod_group::POD_GROUP,
        (pod_group::GROUP, "Workload") => pod_group::WORKLOAD,
        ("node.k8s.io", "RuntimeClass") => scheduling::RUNTIME_CLASS,
        ("coordination.k8s.io", "Lease") => scheduling::LEASE,
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::SIGNING_REQUEST,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom::DEFINITION,
        ("apiregistration.k8s.io", "APIService") => api_service::API_SERVICE,
        (FLOW_CONTROL, "FlowSchema") => flow_control::FLOW_SCHEMA,
        (FLOW_CONTROL, "PriorityLevelConfiguration") => flow_control::PRIORITY_LEVEL,
        (ADMISSION, "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => admission::WEBHOOKS,
        (ADMISSION, "ValidatingAdmissionPolicy") => admission::POLICY,
        (ADMISSION, "MutatingAdmissionPolicy") => {
            Rules { observe: Rules::NONE.observe, has_status: false, ..admission::POLICY }
        }
        (ADMISSION, "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => admission::POLICY_BINDING,
        _ => Rules::NONE,
    };
    Arc::new(rules)
}

/// The columns kubectl shows of a kind; `Name` and `Created At` where Kubernetes has no others.
pub fn columns(group: &str, kind: &str) -> Arc<[Column]> {
    let columns = match (group, kind) {
        ("", "Pod") => pod::columns(),
        ("", "PodTemplate") => misc::pod_template(),
        ("", "Service") => service::columns(),
        ("", "Namespace") => namespace::columns(),
        ("", "Node") => node::columns(),
        ("", "ConfigMap") => config::config_map_columns(),
        ("", "Secret") => config::secret_columns(),
        ("", "ServiceAccount") => config::service_account_columns(),
        ("", "PersistentVolume") => storage::volume_columns(),
        ("", "PersistentVolumeClaim") => storage::claim_columns(),
        ("", "ReplicationController") => apps::replication_controller_columns(),
        ("", "LimitRange") => limits::limit_range_columns(),
        ("", "ResourceQuota") => limits::quota_columns(),
        ("", "Endpoints") => endpoints::endpoints_columns(),
        ("", "ComponentStatus") => misc::component_status(),
        ("" | "events.k8s.io", "Event") => event::columns(),
        ("apps", "Deployment") => apps::deployment_columns(),
        ("apps", "ReplicaSet") => apps::replica_set_columns(),
        ("apps", "StatefulSet") => apps::stateful_set_columns(),
        ("apps", "DaemonSet") => apps::daemon_set_columns(),
        ("apps", "ControllerRevision") => apps::controller_revision_columns(),
        ("batch", "Job") => batch::job_columns(),
        ("batch", "CronJob") => batch::cron_job_columns(),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler_columns(),
        ("autoscaling", "Scale") => autoscaling::scale_columns(),
        ("policy", "PodDisruptionBudget") => autoscaling::disruption_budget_columns(),
        ("networking.k8s.io", "Ingress") => networking::ingress_columns(),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class_columns(),
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy_columns(),
        ("networking.k8s.io", "IPAddress") => misc::ip_address(),
        ("networking.k8s.io", "ServiceCIDR") => misc::service_cidr(),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::endpoint_slice_columns(),
        (DEVICES, "ResourceClaim") => devices::claim_columns(),
        (DEVICES, "ResourceClaimTemplate" | "DeviceClass") => devices::named_columns(),
        (DEVICES, "ResourceSlice") => devices::slice_columns(),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding_columns(),
        ("storage.k8s.io", "StorageClass") => storage::class_columns(),
        ("storage.k8s.io", "CSIDriver") => misc::csi_driver(),
        ("storage.k8s.io", "CSINode") => misc::csi_node(),
        ("storage.k8s.io", "CSIStorageCapacity") => misc::storage_capacity(),
        ("storage.k8s.io", "VolumeAttachment") => misc::volume_attachment(),
        ("storage.k8s.io", "VolumeAttributesClass") => misc::volume_attributes_class(),
        ("scheduling.k8s.io", "PriorityClass") => scheduling::priority_class_columns(),
        ("node.k8s.io", "RuntimeClass") => scheduling::runtime_class_columns(),
        ("coordination.k8s.io", "Lease") => scheduling::lease_columns(),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::columns(),
        (FLOW_CONTROL, "FlowSchema") => misc::flow_schema(),
        (FLOW_CONTROL, "PriorityLevelConfiguration") => misc::priority_level(),
        ("apiregistration.k8s.io", "APIService") => misc::api_service(),
        (ADMISSION, "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => admission::webhook_columns(),
        (ADMISSION, "ValidatingAdmissionPolicy") => admission::policy_columns(),
        (ADMISSION, "MutatingAdmissionPolicy") => admission::mutating_policy_columns(),
        (ADMISSION, "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            admission::policy_binding_columns()
        }
        _ => vec![cells::NAME, cells::CREATED_AT],
    };
    columns.into()
}

/// The group of webhook configurations and admission policies.
const ADMISSION: &str = "admissionregistration.k8s.io";

/// The group of dynamic resource allocation.
const DEVICES: &str = "resource.k8s.io";

/// The fields besides `metadata.name` and `metadata.namespace` that a field selector may name.
pub fn selectable_fields(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("", "Pod") => pod::SELECTABLE,
        ("", "Namespace") => &["status.phase"],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "ReplicationController") => &["status.replicas"],
        ("", "Event") => event::SELECTABLE,
        ("events.k8s.io", "Event") => event::NEW_SELECTABLE,
        ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::SELECTABLE,
        (DEVICES, "ResourceSlice") => devices::SLICE_SELECTABLE,
        _ => &[],
    }
}
