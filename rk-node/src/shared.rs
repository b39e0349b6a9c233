//! What all parts of one agent share.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, Service},
    apimachinery::pkg::api::resource::Quantity as QuantityText,
};
use rk_api::{Client, EventRecorder, Informer, Quantity, object_reference};

use crate::{
    NodeConfig,
    objects::Objects,
    pod::{fields::Place, spec::Member, spec::Role},
};

pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) client: Arc<dyn Client>,
    pub(crate) recorder: EventRecorder,
    pub(crate) services: Informer,
    /// The runtime's name, as container ids begin.
    pub(crate) runtime_name: String,
    pub(crate) objects: Objects,
    pub(crate) allocatable: BTreeMap<String, QuantityText>,
}

impl Shared {
    /// Memory of the node in bytes.
    pub(crate) fn memory(&self) -> i64 {
        let text = self.allocatable.get("memory").map_or("0", |quantity| quantity.0.as_str());
        text.parse::<Quantity>().map_or(0, |quantity| quantity.value())
    }

    pub(crate) fn place(&self, pod_ips: Vec<String>) -> Place {
        Place {
            node: self.config.name.clone(),
            host_ip: self.config.address.to_string(),
            pod_ips,
            allocatable: self.allocatable.clone(),
        }
    }

    /// The services that pods of a namespace are told of: the API's, and those of the namespace, which go before it.
    pub(crate) fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        let api = self.services.get("default", "kubernetes");
        let known = api.into_iter().chain(self.services.list_namespace(namespace));
        // A service that does not decode is not the pod's fault.
        known.filter_map(|object| object.typed().ok()).collect()
    }
}

/// The pod, as events refer to it.
pub(crate) fn about(pod: &Pod) -> ObjectReference {
    object_reference(pod)
}

/// A container of the pod, as events refer to it.
pub(crate) fn about_container(pod: &Pod, member: &Member) -> ObjectReference {
    let list = match member.role {
        Role::Init | Role::Sidecar => "initContainers",
        Role::Main => "containers",
        Role::Ephemeral => "ephemeralContainers",
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{}}}", member.container.name)), ..about(pod) }
}
