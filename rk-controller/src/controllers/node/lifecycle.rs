//! Whether nodes live: by the heartbeats of their Lease and status.
//!
//! The time of a heartbeat is when this controller saw it change, so that clocks need not agree. A node that was
//! silent for the grace period gets the conditions Unknown, the taints that go with them, and its pods are not ready.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, NodeCondition, Pod, PodCondition, Taint},
};
use parking_lot::Mutex;
use rk_api::{Change, Informer, Informers, Key, Object, Patch, object_reference};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{NOT_READY, UNREACHABLE, pods_on, ready_status, taints, zone};
use crate::{
    Action, Context, Controller, Error, Reconcile,
    common::{
        condition::{self, Condition},
        meta, pod,
    },
};

/// The namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// Times of the node lifecycle.
#[derive(Debug, Clone, Copy)]
pub struct NodeLifecycleConfig {
    /// How long a node may be silent.
    pub grace: Duration,
    /// How long one that has just been registered may be.
    pub startup_grace: Duration,
}

impl Default for NodeLifecycleConfig {
    /// kube-controller-manager's: 50 s and 60 s.
    fn default() -> Self {
        Self { grace: Duration::from_secs(50), startup_grace: Duration::from_secs(60) }
    }
}

/// What was last heard of a node, and when.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    what: (Option<NodeCondition>, Option<String>),
    at: Instant,
}

/// Watches heartbeats.
pub struct NodeLifecycleController {
    config: NodeLifecycleConfig,
    nodes: Informer,
    leases: Informer,
    pods: Informer,
    heard: Mutex<HashMap<String, Heard>>,
    /// When each zone may lose its next node.
    next_eviction: Mutex<HashMap<String, Instant>>,
}

/// Runs the node lifecycle controller until `shutdown`.
pub async fn run(informers: &Informers, config: NodeLifecycleConfig, shutdown: CancellationToken) {
    let (nodes, leases) = (informers.of::<Node>(), informers.of::<Lease>());
    let reconciler = NodeLifecycleController {
        config,
        nodes: nodes.clone(),
        leases: leases.clone(),
        pods: informers.of::<Pod>(),
        heard: Mutex::default(),
        next_eviction: Mutex::default(),
    };
    let siblings = nodes.clone();
    Controller::new("node-lifecycle-controller", reconciler, informers)
        .watches_informer(leases, |change| {
            let meta = change.object().meta();
            if meta.namespace == LEASES { vec![(String::new(), meta.name.clone())] } else { Vec::new() }
        })
        // How fast nodes may lose their pods depends on how many others are down.
        .watches_informer(nodes, move |change| changed_health(change, &siblings))
        .run(shutdown)
        .await;
}

/// The nodes that are not ready, when one of all has become ready or ceased to be.
fn changed_health(change: &Change, nodes: &Informer) -> Vec<Key> {
    let status = |object: &Object| object.typed::<Node>().map(|node| ready_status(&node) == "True").unwrap_or(false);
    if let Change::Updated { old, new } = change
        && status(old) == status(new)
    {
        return Vec::new();
    }
    let down = nodes.list().into_iter().filter(|node| !status(node));
    down.map(|node| (String::new(), node.meta().name.clone())).collect()
}

#[async_trait]
impl Reconcile for NodeLifecycleController {
    type Object = Node;

    async fn reconcile(&self, node: Arc<Node>, context: &Context) -> Result<Action, Error> {
        let mut node = Node::clone(&node);
        let silence = self.listen(&node)?;
        let ready = node.status.as_ref().and_then(|status| condition::get(&status.conditions, "Ready"));
        let grace = if ready.is_some() { self.config.grace } else { self.config.startup_grace };
        let mut action = Action::await_change();
        if silence >= grace {
            node = self.mark_unknown(node, context).await?;
        } else {
            action = Action::requeue(grace - silence);
        }
        let wait = self.taint(&node, context).await?;
        if ready_status(&node) != "True" {
            self.mark_pods(&node, context).await?;
        }
        Ok(wait.map_or(action, |wait| action.or_sooner(Action::requeue(wait))))
    }

    async fn gone(&self, key: &Key, _: &Context) -> Result<Action, Error> {
        self.heard.lock().remove(&key.1);
        Ok(Action::await_change())
    }
}

impl NodeLifecycleController {
    /// How long the node has been silent.
    fn listen(&self, node: &Node) -> Result<Duration, Error> {
        let name = meta::name(&node.metadata);
        let lease = self.leases.get_as::<Lease>(LEASES, name)?;
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0.to_string()));
        // A condition that this controller wrote is no sign of life.
        let ready = node.status.as_ref().and_then(|status| condition::get(&status.conditions, "Ready"));
        let own = |ready: &&NodeCondition| ready.status != "Unknown";
        let what = (ready.filter(own).cloned(), renewed);
        let mut heard = self.heard.lock();
        let now = Instant::now();
        let last = heard.entry(name.to_owned()).or_insert_with(|| Heard { what: what.clone(), at: now });
        let news = match &what {
            (None, renewed) => *renewed != last.what.1,
            _ => what != last.what,
        };
        if news {
            *last = Heard { what, at: now };
        }
        Ok(now.duration_since(last.at))
    }

    async fn mark_unknown(&self, mut node: Node, context: &Context) -> Result<Node, Error> {
        let before = ready_status(&node).to_owned();
        let status = node.status.get_or_insert_default();
        let mut changed = false;
        for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            let known = condition::get(&status.conditions, kind);
            let (reason, message) = match known {
                Some(known) if known.status == "Unknown" => continue,
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            let heartbeat = known.and_then(|known| known.last_heartbeat_time.clone());
            let condition = NodeCondition::new(kind, "Unknown", reason, message.to_owned());
            condition::set(
                &mut status.conditions,
                NodeCondition {
                    last_heartbeat_time: heartbeat.or_else(|| node.metadata.creation_timestamp.clone()),
                    ..condition
                },
            );
            changed = true;
        }
        if !changed {
            return Ok(node);
        }
        let written = context.api_all::<Node>().update_status(&node).await?;
        if before == "True" {
            let message = format!("Node {} status is now: NodeNotReady", meta::name(&node.metadata));
            context.events.normal(&object_reference(written.as_ref()), "NodeNotReady", message);
        }
        Ok(Node::clone(&written))
    }

    /// Brings the taints to what the conditions say; answers how long to wait where a taint has to.
    async fn taint(&self, node: &Node, context: &Context) -> Result<Option<Duration>, Error> {
        let (mut wanted, mut wait) = (no_schedule(node), None);
        let ready = ready_status(node);
        let execute = match ready {
            "True" => None,
            "False" => Some(NOT_READY),
            _ => Some(UNREACHABLE),
        };
        if let Some(key) = execute {
            let has = |key: &str| taints(node).any(|taint| taint.effect == "NoExecute" && taint.key == key);
            match self.eviction_allowed(node, has(NOT_READY) || has(UNREACHABLE))? {
                Ok(()) => wanted.push((key, "NoExecute")),
                Err(later) => wait = later,
            }
        }
        let managed = |taint: &Taint| match taint.effect.as_str() {
            "NoExecute" => matches!(taint.key.as_str(), NOT_READY | UNREACHABLE),
            "NoSchedule" => MANAGED.contains(&taint.key.as_str()),
            _ => false,
        };
        let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
        let mut after: Vec<Taint> = taints(node).filter(|taint| !managed(taint) || is_wanted(taint)).cloned().collect();
        for (key, effect) in wanted {
            if !after.iter().any(|taint| taint.key == key && taint.effect == effect) {
                let time_added = Some(meta::now());
                after.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
            }
        }
        if after.iter().ne(taints(node)) {
            let after = (!after.is_empty()).then_some(after);
            let patch =
                json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": after}});
            context.api_all::<Node>().patch(meta::name(&node.metadata), Patch::merge(patch)).await?;
        }
        Ok(wait)
    }

    /// Whether the node may lose its pods now. If not: after how long, or `None` for when other nodes change.
    fn eviction_allowed(&self, node: &Node, has: bool) -> Result<Result<(), Option<Duration>>, Error> {
        let zone = zone_of(node);
        let (mut ready, mut down, mut ready_anywhere) = (0, 0, false);
        for object in self.nodes.list() {
            let other: Arc<Node> = object.typed()?;
            // The copy may not show yet what was just written to this node.
            let is_ready = ready_status(&other) == "True" && other.metadata.uid != node.metadata.uid;
            ready_anywhere |= is_ready;
            if zone_of(&other) == zone {
                if is_ready { ready += 1 } else { down += 1 }
            }
        }
        let rate = zone::rate(zone::state(ready, down), ready + down, !ready_anywhere);
        if has && ready_anywhere {
            return Ok(Ok(()));
        }
        if rate <= 0.0 {
            return Ok(Err(None));
        }
        let mut next = self.next_eviction.lock();
        let now = Instant::now();
        match next.get(&zone) {
            Some(&at) if at > now => Ok(Err(Some(at - now))),
            _ => {
                next.insert(zone, now + Duration::from_secs_f64(1.0 / rate));
                Ok(Ok(()))
            }
        }
    }

    /// Pods of a node that is not ready are not ready either, as nobody can tell.
    async fn mark_pods(&self, node: &Node, context: &Context) -> Result<(), Error> {
        for pod in pods_on(&self.pods, meta::name(&node.metadata))? {
            if !pod::is_ready(&pod) {
                continue;
            }
            let mut status = pod.status.clone().unwrap_or_default();
            let known = condition::get(&status.conditions, "Ready").cloned().unwrap_or_default();
            condition::remove(&mut status.conditions, "Ready");
            let ready = PodCondition { status: "False".to_owned(), last_transition_time: Some(meta::now()), ..known };
            condition::set(&mut status.conditions, ready);
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
                "status": {"conditions": status.conditions},
            });
            let api = context.api::<Pod>(meta::namespace(&pod.metadata));
            match api.patch_status(meta::name(&pod.metadata), Patch::merge(patch)).await {
                Ok(_) => context.events.warning(&object_reference(pod.as_ref()), "NodeNotReady", "Node is not ready"),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn zone_of(node: &Node) -> String {
    let labels = meta::labels(&node.metadata);
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that, being True, keep new pods away.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// `NoSchedule` taints that are this controller's.
const MANAGED: [&str; 7] =
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE, PRESSURES[0].1, PRESSURES[1].1, PRESSURES[2].1, PRESSURES[3].1];

/// The `NoSchedule` taints that the node's conditions and spec call for.
fn no_schedule(node: &Node) -> Vec<(&'static str, &'static str)> {
    let status = node.status.clone().unwrap_or_default();
    let mut keys = Vec::new();
    match condition::get(&status.conditions, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => keys.push(NOT_READY),
        Some("Unknown") => keys.push(UNREACHABLE),
        _ => {}
    }
    for (kind, key) in PRESSURES {
        if condition::get(&status.conditions, kind).is_some_and(|condition| condition.status == "True") {
            keys.push(key);
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        keys.push(UNSCHEDULABLE);
    }
    keys.into_iter().map(|key| (key, "NoSchedule")).collect()
}
