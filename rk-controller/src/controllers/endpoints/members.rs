//! Pods as members of a Service: who takes part, at which addresses and ports.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::common::{meta, pod};

/// A port that members answer on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Port {
    /// The Service port's name; may be empty.
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) port: i32,
    pub(super) app_protocol: Option<String>,
}

/// Whether a pod can have traffic at all; one that is ending may still have some.
pub(super) fn takes_part(pod: &Pod) -> bool {
    !pod::is_terminal(pod) && addresses(pod).next().is_some()
}

/// A pod's addresses.
pub(super) fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.as_ref();
    let ips = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
    let single = status.and_then(|status| status.pod_ip.as_deref());
    let mut ips = ips.peekable();
    let single = if ips.peek().is_none() { single } else { None };
    ips.chain(single).filter_map(|ip| ip.parse().ok())
}

/// The ports of a Service as a pod has them; a named port that the pod lacks is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let mut found: Vec<Port> = ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port.protocol.as_deref()).to_owned(),
                port: target(port, pod)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    found.sort_unstable();
    found
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    // Sidecars (init containers that are restarted always) serve too.
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted = protocol(port.protocol.as_deref());
    ports
        .find(|own| own.name.as_deref() == Some(name) && protocol(own.protocol.as_deref()) == wanted)
        .map(|own| own.container_port)
}

/// The reference by which an endpoint names its pod.
pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The name in the Service's DNS zone that a pod asks for.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let own = spec.subdomain.as_deref() == Some(meta::name(&service.metadata));
    spec.hostname.clone().filter(|hostname| own && !hostname.is_empty())
}

/// Whether a Service wants addresses of pods that are not ready.
pub(super) fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_follow_names_and_protocols() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {
                "containers": [{"name": "c", "ports": [
                    {"name": "web", "containerPort": 8080},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ]}],
                "initContainers": [
                    {"name": "mesh", "restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15000}]},
                    {"name": "init", "ports": [{"name": "once", "containerPort": 1}]},
                ],
            },
        }))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s"},
            "spec": {"ports": [
                {"name": "a", "port": 80, "targetPort": "web"},
                {"name": "b", "port": 81, "targetPort": 9000},
                {"name": "c", "port": 82},
                {"name": "d", "port": 53, "targetPort": "dns"},
                {"name": "e", "port": 53, "targetPort": "dns", "protocol": "UDP"},
                {"name": "f", "port": 15, "targetPort": "mesh"},
                {"name": "g", "port": 16, "targetPort": "once"},
            ]},
        }))
        .unwrap();
        let found: Vec<_> = ports(&service, &pod).into_iter().map(|port| (port.name, port.port)).collect();
        let expected = [("a", 8080), ("b", 9000), ("c", 82), ("e", 53), ("f", 15000)];
        assert_eq!(found, expected.map(|(name, port)| (name.to_owned(), port)));
    }
}
