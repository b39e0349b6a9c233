//! Extended resources that devices back (KEP-5004): the claim for those that a pod asks for.
//!
//! A node that has the resource by itself (a device plugin tells of it) gives it from there; on others it is devices of the class
//! that stands for the resource. So what the claim asks for differs by node.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::{Container, ContainerExtendedResourceRequest},
        resource::v1::{DeviceClaim, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use rk_api::Quantity;

use crate::model::{CLAIM_ANNOTATION, Devices, NodeInfo, PodInfo};

/// The name of the claim before it is made; no claim can have it.
const UNMADE: &str = "<extended-resources>";

/// The extended resources of a pod that devices may back.
#[derive(Debug)]
pub(super) struct Extended {
    /// The claim that would be made if all of them were devices; it is not in the API.
    pub(super) claim: Arc<ResourceClaim>,
    /// By resource, the requests of the claim that are for it.
    requests: Vec<(Arc<str>, Vec<String>)>,
    mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Extended {
    /// `None` for a pod that asks for none.
    pub(super) fn new(pod: &PodInfo, devices: &Devices) -> Option<Self> {
        let (mut requests, mut all, mut mappings) = (Vec::new(), Vec::new(), Vec::new());
        for (name, _) in pod.requests.scalars.iter().filter(|(_, amount)| *amount > 0) {
            let Some(class) = devices.class_of_resource(name) else { continue };
            let class = class.metadata.name.as_deref().unwrap_or_default();
            let (of_resource, mapped) = requests_for(pod, name, class);
            requests.push((Arc::clone(name), of_resource.iter().map(|request| request.name.clone()).collect()));
            all.extend(of_resource);
            mappings.extend(mapped);
        }
        if all.is_empty() {
            return None;
        }
        all.sort_by(|a: &DeviceRequest, b| a.name.cmp(&b.name));
        Some(Self { claim: Arc::new(claim(pod, all)), requests, mappings })
    }

    /// The requests that a node does not need devices for.
    pub(super) fn provided_by(&self, node: &NodeInfo) -> Vec<&str> {
        let provided = self.requests.iter().filter(|(name, _)| node.allocatable.get(name) > 0);
        provided.flat_map(|(_, requests)| requests.iter().map(String::as_str)).collect()
    }

    /// Which containers get the devices of which of the claim's requests.
    pub(super) fn mappings(&self, claim: &ResourceClaim) -> Vec<ContainerExtendedResourceRequest> {
        let requests = claim.spec.devices.as_ref().and_then(|devices| devices.requests.as_deref()).unwrap_or_default();
        let made = |mapping: &&ContainerExtendedResourceRequest| {
            requests.iter().any(|request| request.name == mapping.request_name)
        };
        self.mappings.iter().filter(made).cloned().collect()
    }
}

/// The claim as it is to be made, but for its name.
fn claim(pod: &PodInfo, requests: Vec<DeviceRequest>) -> ResourceClaim {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name.to_string(),
        uid: pod.uid.to_string(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    ResourceClaim {
        metadata: ObjectMeta {
            namespace: Some(pod.namespace.to_string()),
            name: Some(UNMADE.to_owned()),
            generate_name: Some(format!("{}-extended-resources-", pod.name)),
            // What is chosen for it is in flight under a uid that no claim has.
            uid: Some(format!("{UNMADE}/{}", pod.uid)),
            owner_references: Some(vec![owner]),
            annotations: Some([(CLAIM_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec { devices: Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() }) },
        status: None,
    }
}

/// The object to create for a claim that was not made.
pub(super) fn to_create(unmade: &ResourceClaim) -> ResourceClaim {
    let mut claim = unmade.clone();
    (claim.metadata.name, claim.metadata.uid, claim.status) = (None, None, None);
    claim
}

type Requests = (Vec<DeviceRequest>, Vec<ContainerExtendedResourceRequest>);

/// What a container asks for of a resource, as the name of its request and the amount; 0 for nothing.
fn asked(number: usize, container: &Container, resource: &str) -> (String, i64) {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let mut named = requests.into_iter().flatten().enumerate().filter(|(_, (name, _))| *name == resource);
    let Some((at, (_, text))) = named.next() else { return (String::new(), 0) };
    let amount = Quantity::try_from(text).map_or(0, |quantity| quantity.value());
    (format!("container-{number}-request-{at}"), amount)
}

/// The requests for one resource. Containers that run to the end have each their own devices; init containers that end before have those
/// of containers that are still to start, and where these are not enough, more that they share with each other.
fn requests_for(pod: &PodInfo, resource: &str, class: &str) -> Requests {
    let spec = pod.spec();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let containers: Vec<(usize, &Container)> = init.iter().chain(&spec.containers).enumerate().collect();
    let ends = |number: usize, container: &Container| {
        number < init.len() && container.restart_policy.as_deref() != Some("Always")
    };
    let (passing, lasting): (Vec<_>, Vec<_>) = containers.into_iter().partition(|(number, c)| ends(*number, c));
    let request = |name: &str, count: i64| DeviceRequest {
        name: name.to_owned(),
        exactly: Some(ExactDeviceRequest {
            device_class_name: class.to_owned(),
            allocation_mode: Some("ExactCount".to_owned()),
            count: Some(count),
            ..ExactDeviceRequest::default()
        }),
        first_available: None,
    };
    let mapping = |container: &Container, request: &str| ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request.to_owned(),
    };
    let (mut own, mut mappings) = (Vec::new(), Vec::new());
    for (number, container) in lasting {
        let (name, amount) = asked(number, container, resource);
        if amount > 0 {
            mappings.push(mapping(container, &name));
            own.push((number, name, amount));
        }
    }
    // Whoever needs most of what is beyond that gives it its name.
    let (mut more, mut sharing) = (None::<(String, i64)>, Vec::new());
    for (number, container) in passing {
        let (name, amount) = asked(number, container, resource);
        let mut missing = amount;
        for (_, lent, count) in own.iter().filter(|(later, _, _)| *later >= number) {
            if missing <= 0 {
                break;
            }
            mappings.push(mapping(container, lent));
            missing -= count;
        }
        if missing > 0 {
            sharing.push(container);
            if more.as_ref().is_none_or(|(_, most)| *most < missing) {
                more = Some((name, missing));
            }
        }
    }
    let mut requests: Vec<DeviceRequest> = own.iter().map(|(_, name, count)| request(name, *count)).collect();
    if let Some((name, count)) = &more {
        requests.push(request(name, *count));
        mappings.extend(sharing.into_iter().map(|container| mapping(container, name)));
    }
    (requests, mappings)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Counts = Vec<(String, i64)>;

    fn asks(pod: Value) -> (Counts, Vec<(String, String)>) {
        let pod = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": pod});
        let pod = PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let mut devices = Devices::default();
        let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
        devices.set_class("gpu", Some(Arc::new(serde_json::from_value(class).unwrap())));
        let extended = Extended::new(&pod, &devices).unwrap();
        let requests = extended.claim.spec.devices.as_ref().unwrap().requests.as_ref().unwrap();
        let of = |request: &DeviceRequest| (request.name.clone(), request.exactly.as_ref().unwrap().count.unwrap());
        let mapped =
            extended.mappings(&extended.claim).into_iter().map(|m| (m.container_name, m.request_name)).collect();
        (requests.iter().map(of).collect(), mapped)
    }

    fn container(name: &str, gpus: i64) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": "1", "example.com/gpu": gpus.to_string()}}})
    }

    #[test]
    fn each_container_has_its_own_request_named_by_its_place() {
        let owned =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
        let (requests, mappings) =
            asks(json!({"containers": [container("a", 2), container("b", 0), container("c", 1)]}));
        assert_eq!(requests, [("container-0-request-1".to_owned(), 2), ("container-2-request-1".to_owned(), 1)]);
        assert_eq!(mappings, owned(&[("a", "container-0-request-1"), ("c", "container-2-request-1")]));
        // An init container has the devices of those that come later, and what it needs beyond.
        let (requests, mappings) = asks(
            json!({"initContainers": [container("i", 1), container("j", 5), container("k", 4)], "containers": [container("a", 2)]}),
        );
        assert_eq!(requests, [("container-1-request-1".to_owned(), 3), ("container-3-request-1".to_owned(), 2)]);
        let lent = "container-3-request-1";
        let expected = [
            ("a", lent),
            ("i", lent),
            ("j", lent),
            ("k", lent),
            ("j", "container-1-request-1"),
            ("k", "container-1-request-1"),
        ];
        assert_eq!(mappings, owned(&expected));
    }

    #[test]
    fn sidecars_keep_their_devices_from_those_that_start_before_them() {
        let mut sidecar = container("s", 1);
        sidecar["restartPolicy"] = "Always".into();
        let (requests, _) =
            asks(json!({"initContainers": [sidecar, container("i", 1)], "containers": [container("a", 1)]}));
        assert_eq!(requests, [("container-0-request-1".to_owned(), 1), ("container-2-request-1".to_owned(), 1)]);
    }
}
