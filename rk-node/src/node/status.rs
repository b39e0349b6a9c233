//! The Node object and the node's lease: registration, heartbeats, conditions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, NodeStatus},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use rk_api::{Api, Error, Patch};
use serde_json::{Value, json};

use super::machine;
use crate::shared::Shared;

/// Namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";

/// How long a lease holds without renewal, in seconds.
const LEASE_SECONDS: u32 = 40;

/// What a pod on this node may count on (KEP-5328): no container has CPUs of its own, so the shares of each can be changed.
const DECLARED: [&str; 1] = ["GuaranteedQoSPodCPUResize"];

/// Memory below which the node is under pressure, in bytes: the kubelet's `memory.available<100Mi`.
const MEMORY: u64 = 100 << 20;

pub(crate) struct Reporter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) port: u16,
    pub(crate) runtime_version: String,
}

fn labels(shared: &Shared) -> BTreeMap<String, String> {
    let architecture = machine::architecture();
    let standard = [
        ("kubernetes.io/hostname", shared.config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ];
    let mut labels: BTreeMap<String, String> = standard.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    labels.extend(shared.config.labels.clone());
    labels
}

impl Reporter {
    fn api(&self) -> Api<Node> {
        Api::all(Arc::clone(&self.shared.client))
    }

    /// Makes the Node, or brings an older one of the same name up to date.
    pub(crate) async fn register(&self) -> Result<Arc<Node>, Error> {
        let config = &self.shared.config;
        let existing = self.api().get_opt(&config.name).await?;
        let node = match existing {
            Some(node) => {
                let known = node.metadata.labels.clone().unwrap_or_default();
                let missing: BTreeMap<_, _> =
                    labels(&self.shared).into_iter().filter(|(key, value)| known.get(key) != Some(value)).collect();
                let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
                let mut patch = json!({"metadata": {"labels": missing}});
                if let (None, Some(cidr)) = (range, &config.pod_cidr) {
                    patch["spec"] = json!({"podCIDR": cidr, "podCIDRs": [cidr]});
                }
                if missing.is_empty() && patch.get("spec").is_none() {
                    node
                } else {
                    self.api().patch(&config.name, Patch::merge(patch)).await?
                }
            }
            None => {
                let ranges = config.pod_cidr.as_ref().map(|cidr| vec![cidr.clone()]);
                let body = json!({
                    "metadata": {
                        "name": config.name,
                        "labels": labels(&self.shared),
                        "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
                    },
                    "spec": {"podCIDR": config.pod_cidr, "podCIDRs": ranges, "taints": config.taints},
                });
                let node: Node = serde_json::from_value(body).map_err(|error| Error::decode("Node", &error))?;
                match self.api().create(&node).await {
                    Err(error) if error.is_already_exists() => self.api().get(&config.name).await?,
                    other => other?,
                }
            }
        };
        self.report(&node, None).await
    }

    /// The conditions now, by type.
    async fn conditions(&self) -> Vec<(&'static str, bool, String, String)> {
        let mut problems = Vec::new();
        match self.shared.config.runtime.status().await {
            Ok(conditions) => {
                let failed = conditions.into_iter().filter(|condition| !condition.status);
                problems.extend(
                    failed.map(|c| format!("container runtime status: {} {} {}", c.r#type, c.reason, c.message)),
                );
            }
            Err(error) => problems.push(format!("container runtime is down: {error}")),
        }
        let ready = if problems.is_empty() {
            ("Ready", true, "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned())
        } else {
            ("Ready", false, "KubeletNotReady".to_owned(), format!("[{}]", problems.join(", ")))
        };
        let short_of_memory = machine::memory("MemAvailable") < MEMORY;
        let disk = machine::disk(&self.shared.config.data_dir);
        let short_of_disk = disk.is_some_and(|(_, free)| free < self.shared.config.disk_pressure);
        let pressure = |kind, bad: bool, words: [&str; 4]| {
            let (reason, message) = if bad { (words[0], words[1]) } else { (words[2], words[3]) };
            (kind, bad, reason.to_owned(), message.to_owned())
        };
        vec![
            pressure(
                "MemoryPressure",
                short_of_memory,
                [
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ],
            ),
            pressure(
                "DiskPressure",
                short_of_disk,
                [
                    "KubeletHasDiskPressure",
                    "kubelet has disk pressure",
                    "KubeletHasNoDiskPressure",
                    "kubelet has no disk pressure",
                ],
            ),
            pressure(
                "PIDPressure",
                false,
                [
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available",
                    "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available",
                ],
            ),
            ready,
        ]
    }

    /// Writes the node's status if something changed, or if it is older than the status interval.
    pub(crate) async fn report(&self, node: &Node, age: Option<Duration>) -> Result<Arc<Node>, Error> {
        let config = &self.shared.config;
        let old = node.status.clone().unwrap_or_default();
        let now = Time(rk_api::now());
        let mut conditions: Vec<NodeCondition> = Vec::new();
        for (kind, holds, reason, message) in self.conditions().await {
            let status = if holds { "True" } else { "False" };
            let known = old.conditions.iter().flatten().find(|condition| condition.type_ == kind);
            let since =
                known.filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
            conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: known.and_then(|known| known.last_heartbeat_time.clone()),
                last_transition_time: since.or_else(|| Some(now.clone())),
            });
        }
        // Conditions of others stay.
        for other in old.conditions.iter().flatten() {
            if !conditions.iter().any(|own| own.type_ == other.type_) {
                conditions.push(other.clone());
            }
        }
        let mut wanted = NodeStatus { conditions: Some(conditions), ..old.clone() };
        let parts = json!({
            "addresses": [
                {"type": "InternalIP", "address": config.address.to_string()},
                {"type": "Hostname", "address": config.name},
            ],
            "capacity": self.shared.allocatable,
            "allocatable": self.shared.allocatable,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "nodeInfo": machine::info(&config.name, &self.runtime_version),
            "declaredFeatures": DECLARED,
        });
        let fixed: NodeStatus = serde_json::from_value(parts).map_err(|error| Error::decode("NodeStatus", &error))?;
        wanted.addresses = fixed.addresses;
        wanted.capacity = fixed.capacity;
        wanted.allocatable = fixed.allocatable;
        wanted.daemon_endpoints = fixed.daemon_endpoints;
        wanted.node_info = fixed.node_info;
        wanted.declared_features = fixed.declared_features;
        let due = age.is_none_or(|age| age >= config.status_interval);
        if wanted == old && !due {
            return Ok(Arc::new(node.clone()));
        }
        for condition in wanted.conditions.iter_mut().flatten() {
            if ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].contains(&condition.type_.as_str()) {
                condition.last_heartbeat_time = Some(now.clone());
            }
        }
        let status = serde_json::to_value(&wanted).map_err(|error| Error::decode("NodeStatus", &error))?;
        self.api().patch_status(&config.name, Patch::merge(json!({"status": status}))).await
    }

    /// Renews the node's lease, making it where it is missing.
    pub(crate) async fn renew(&self, node: &Node) -> Result<(), Error> {
        let leases = Api::<Lease>::namespaced(Arc::clone(&self.shared.client), LEASES);
        let name = &self.shared.config.name;
        let now = MicroTime(rk_api::now());
        match leases.patch(name, Patch::merge(json!({"spec": {"renewTime": now}}))).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map(drop),
        }
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid}]);
        let body: Value = json!({
            "metadata": {"name": name, "namespace": LEASES, "ownerReferences": owner},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        });
        let lease: Lease = serde_json::from_value(body).map_err(|error| Error::decode("Lease", &error))?;
        leases.create(&lease).await.map(drop)
    }
}
