//! What the scheduler knows of a pod.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, Toleration, TopologySpreadConstraint};
use rk_api::{LabelSelector, Requirement};

use super::{NodeAffinity, PodAffinity, Resources, pod_requests, pod_requests_nonzero};

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The node's address, `0.0.0.0` for all of them.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both can't be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// A pod with what plugins ask of it, computed once.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its identity.
    pub uid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What it asks for.
    pub requests: Resources,
    /// Milli-cores it is scored with; a container without a request counts as a small one.
    pub nonzero_milli_cpu: i64,
    /// Bytes of memory it is scored with.
    pub nonzero_memory: i64,
    /// Ports of the node that it takes.
    pub host_ports: Vec<HostPort>,
    /// Its priority, 0 by default.
    pub priority: i32,
    /// What it wants of the node.
    pub node_affinity: NodeAffinity,
    /// What it wants of pods nearby.
    pub pod_affinity: Arc<PodAffinity>,
    /// The selectors of its `topologySpreadConstraints`, in their order, `matchLabelKeys` included.
    pub spread_selectors: Vec<LabelSelector>,
}

/// The spec of a pod, or an empty one in its place.
fn spec_of(pod: &Pod) -> &PodSpec {
    static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

fn labels_of(pod: &Pod) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.labels.as_ref().unwrap_or(&NONE)
}

/// Most pods have no terms, and share that.
fn affinity_of(spec: &PodSpec, namespace: &str, labels: &BTreeMap<String, String>) -> Arc<PodAffinity> {
    static NONE: LazyLock<Arc<PodAffinity>> = LazyLock::new(Arc::default);
    let affinity = PodAffinity::new(spec.affinity.as_ref(), namespace, labels);
    if affinity.is_empty() { Arc::clone(&NONE) } else { Arc::new(affinity) }
}

fn spread_selectors(spec: &PodSpec, labels: &BTreeMap<String, String>) -> Vec<LabelSelector> {
    // One that can't be read would match nothing; the API server lets none pass. An absent one matches nothing.
    let nothing = || LabelSelector { requirements: vec![Requirement::In(String::new(), Vec::new())] };
    let selector = |constraint: &TopologySpreadConstraint| {
        let spread = constraint.label_selector.as_ref().and_then(|selector| LabelSelector::from_spec(selector).ok());
        let mut selector = spread.unwrap_or_else(nothing);
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector.requirements.push(Requirement::In(key.clone(), vec![value.clone()]));
            }
        }
        selector
    };
    spec.topology_spread_constraints.iter().flatten().map(selector).collect()
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let text = |field: &Option<String>| -> Arc<str> { Arc::from(field.as_deref().unwrap_or_default()) };
        let spec = spec_of(&pod);
        let (nonzero_milli_cpu, nonzero_memory) = pod_requests_nonzero(spec);
        let namespace = text(&pod.metadata.namespace);
        Self {
            uid: text(&pod.metadata.uid),
            name: text(&pod.metadata.name),
            requests: pod_requests(spec),
            nonzero_milli_cpu,
            nonzero_memory,
            host_ports: host_ports(spec),
            priority: spec.priority.unwrap_or(0),
            node_affinity: NodeAffinity::new(spec),
            pod_affinity: affinity_of(spec, &namespace, labels_of(&pod)),
            spread_selectors: spread_selectors(spec, labels_of(&pod)),
            namespace,
            pod,
        }
    }

    /// The pod's spec.
    pub fn spec(&self) -> &PodSpec {
        spec_of(&self.pod)
    }

    /// The pod's labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        labels_of(&self.pod)
    }

    /// The pod's tolerations.
    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().tolerations.as_deref().unwrap_or_default()
    }

    /// The node that the pod is bound to, if any.
    pub fn node_name(&self) -> Option<&str> {
        self.spec().node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The profile that shall schedule it.
    pub fn scheduler_name(&self) -> &str {
        self.spec().scheduler_name.as_deref().unwrap_or("default-scheduler")
    }

    /// The node that an earlier cycle made room on for it, if any.
    pub fn nominated_node_name(&self) -> Option<&str> {
        self.pod.status.as_ref()?.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether it is being deleted.
    pub fn terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether it is on its way out to make room for a pod like this one (`PodTerminatingByPreemption`).
    pub(crate) fn leaves_for(&self, pod: &Self) -> bool {
        let conditions = self.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let preempted = |condition: &PodCondition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("PreemptionByScheduler")
        };
        self.priority < pod.priority && self.terminating() && conditions.iter().any(preempted)
    }

    /// Whether it has ended (`Succeeded` or `Failed`) and so needs nothing any more.
    pub fn terminal(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

/// Ports of the node that the containers and sidecars take.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.init_containers.iter().flatten().filter(sidecar).chain(&spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let text = |field: &Option<String>, default: &str| {
                field.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
            };
            let number = port.host_port.filter(|port| *port > 0)?;
            Some(HostPort { ip: text(&port.host_ip, "0.0.0.0"), protocol: text(&port.protocol, "TCP"), port: number })
        })
        .collect()
}
