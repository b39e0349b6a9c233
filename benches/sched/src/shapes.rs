//! Nodes and pods of the effect that scheduler_perf's templates have.

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::CSINode,
};
use serde_json::{Value, json};

/// What a pod is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A tenth of a core, 500 MiB.
    Plain,
    /// No requests, one node by name.
    Daemon,
    /// As plain, in one of two zones.
    InZones,
    /// As plain, over zones with a skew of 5 at most.
    Spread,
    /// As plain, never beside one of its kind.
    Far,
    /// As plain, in the zone of its kind.
    Near,
    /// As plain, better beside one of its kind.
    BetterNear,
    /// As plain, better not beside one of its kind.
    BetterFar,
    /// As plain, with a volume of a Secret.
    Secret,
    /// As plain, with a claim of its name that is bound.
    Claim,
    /// Nine tenths of a core, gone without grace.
    Low,
    /// Priority 10, three cores.
    High,
    /// Priority 10, more cores than any node has.
    TooLarge,
}

/// The priority of those that are above others.
pub const PRIORITY: i32 = 10;
/// The namespaces that pods are in.
pub const NAMESPACES: [&str; 2] = ["sched-0", "sched-1"];
/// The only node for [`Shape::Daemon`].
pub const DAEMON_NODE: &str = "scheduler-perf-node";
/// The driver of the volumes.
pub const DRIVER: &str = "ebs.csi.aws.com";
/// How many volumes of it a node takes.
const VOLUMES: i32 = 39;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the shapes are of the right types")
}

impl Shape {
    /// The pod that all of this shape are copies of.
    pub fn template(self) -> Pod {
        let requests = match self {
            Self::Daemon => json!({}),
            Self::Low => json!({"cpu": "900m", "memory": "500Mi"}),
            Self::High => json!({"cpu": "3", "memory": "500Mi"}),
            Self::TooLarge => json!({"cpu": "9", "memory": "500Mi"}),
            _ => json!({"cpu": "100m", "memory": "500Mi"}),
        };
        let color = self.color();
        let term = |key: &str| json!({"topologyKey": key, "namespaces": NAMESPACES, "labelSelector": {"matchLabels": {"color": color}}});
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
        let weighted = || json!([{"weight": 1, "podAffinityTerm": term(HOST)}]);
        let nodes = |term: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}});
        let affinity = match self {
            Self::Daemon => {
                nodes(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [DAEMON_NODE]}]}))
            }
            Self::InZones => {
                nodes(json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone1", "zone2"]}]}))
            }
            Self::Far => json!({"podAntiAffinity": {REQUIRED: [term(HOST)]}}),
            Self::Near => json!({"podAffinity": {REQUIRED: [term(ZONE)]}}),
            Self::BetterNear => json!({"podAffinity": {PREFERRED: weighted()}}),
            Self::BetterFar => json!({"podAntiAffinity": {PREFERRED: weighted()}}),
            _ => Value::Null,
        };
        let spread = match self {
            Self::Spread => json!([{
                "maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"color": color}},
            }]),
            _ => Value::Null,
        };
        let volumes = match self {
            Self::Secret => json!([{"name": "secret", "secret": {"secretName": "secret"}}]),
            Self::Claim => json!([{"name": "vol", "persistentVolumeClaim": {"claimName": "of-the-pod"}}]),
            _ => Value::Null,
        };
        object(json!({
            "metadata": {"labels": color.map(|color| json!({"color": color}))},
            "spec": {
                "affinity": affinity, "topologySpreadConstraints": spread, "volumes": volumes,
                "priority": self.priority(), "terminationGracePeriodSeconds": (self == Self::Low).then_some(0),
                "containers": [{
                    "name": "pause", "image": "registry.k8s.io/pause:3.10.1", "ports": [{"containerPort": 80}],
                    "resources": {"requests": requests},
                }],
            },
        }))
    }

    /// Its label, of those that have one.
    fn color(self) -> Option<&'static str> {
        match self {
            Self::Spread | Self::Near => Some("blue"),
            Self::Far => Some("green"),
            Self::BetterNear => Some("red"),
            Self::BetterFar => Some("yellow"),
            _ => None,
        }
    }

    /// Its priority, where it has one.
    pub fn priority(self) -> Option<i32> {
        matches!(self, Self::High | Self::TooLarge).then_some(PRIORITY)
    }
}

/// A copy of a template under a name of its own.
pub fn pod(template: &Pod, namespace: &str, name: &str) -> Pod {
    let mut pod = template.clone();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.namespace = Some(namespace.to_owned());
    for volume in pod.spec.iter_mut().flat_map(|spec| spec.volumes.iter_mut().flatten()) {
        if let Some(claim) = &mut volume.persistent_volume_claim {
            name.clone_into(&mut claim.claim_name);
        }
    }
    pod
}

/// A node of four cores for 110 pods, or the one for daemons.
pub fn node(name: &str, zone: Option<&str>) -> Node {
    let amounts = json!({
        "cpu": "4", "memory": "32Gi", "pods": if name == DAEMON_NODE { "90000" } else { "110" },
    });
    let mut labels = json!({HOST: name});
    if let Some(zone) = zone {
        labels[ZONE] = zone.into();
    }
    object(json!({
        "metadata": {"name": name, "labels": labels},
        "status": {
            "capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
}

/// A node that takes no pods.
pub fn useless_node(name: &str) -> Node {
    object(json!({"metadata": {"name": name}, "status": {"capacity": {"pods": "0"}, "allocatable": {"pods": "0"}}}))
}

/// What says how many volumes a node takes.
pub fn csi_node(name: &str) -> CSINode {
    let driver = json!({"name": DRIVER, "nodeID": name, "allocatable": {"count": VOLUMES}});
    object(json!({"metadata": {"name": name}, "spec": {"drivers": [driver]}}))
}

/// A volume and a claim that is bound to it, both of a pod's name.
pub fn volume(namespace: &str, name: &str) -> (PersistentVolume, PersistentVolumeClaim) {
    let volume = json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "capacity": {"storage": "1Gi"},
            "csi": {"driver": DRIVER, "volumeHandle": name}, "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": name},
        },
        "status": {"phase": "Bound"},
    });
    let claim = json!({
        "metadata": {
            "name": name, "namespace": namespace, "annotations": {"pv.kubernetes.io/bind-completed": "true"},
        },
        "spec": {
            "accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": name,
            "storageClassName": "",
        },
        "status": {"phase": "Bound"},
    });
    (object(volume), object(claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_its_own_name_and_claim() {
        let one = pod(&Shape::Claim.template(), "sched-0", "p7");
        let volumes = one.spec.unwrap().volumes.unwrap();
        assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "p7");
        assert_eq!(one.metadata.name.as_deref(), Some("p7"));
        let far = Shape::Far.template().spec.unwrap().affinity.unwrap().pod_anti_affinity.unwrap();
        assert_eq!(far.required_during_scheduling_ignored_during_execution.unwrap()[0].topology_key, HOST);
    }
}
