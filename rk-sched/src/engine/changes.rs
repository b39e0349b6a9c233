//! From changes of the API's objects to the snapshot and the queue.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Node, Pod, PodResourceClaimStatus, ReplicationController, Service},
    policy::v1::PodDisruptionBudget,
    resource::v1::ResourceClaim,
    scheduling::v1alpha2::PodGroup,
};
use rk_api::{Change, LabelSelector, Object, ResourceType};
use tokio::time::Instant;

use super::Engine;
use crate::{
    framework::ClusterEvent,
    model::{Budget, GroupKey, NodeInfo, PodInfo},
};

/// The object as its type. One that does not fit is said aloud and left out: it can't be scheduled or scheduled on.
fn typed<K: ResourceType>(object: &Object) -> Option<Arc<K>> {
    object.typed().inspect_err(|error| tracing::error!(%error, ?object, "object left out of scheduling")).ok()
}

/// Whether a node's change can matter to scheduling; heartbeats don't.
fn node_changed(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || spec(old) != spec(new)
        || allocatable(old) != allocatable(new)
}

/// Whether a waiting pod's change can matter to its scheduling; of its status only the claims that were made for it do.
fn pod_changed(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || claims_of(old) != claims_of(new)
}

/// The claims that were made for a pod.
fn claims_of(pod: &Pod) -> Option<&Vec<PodResourceClaimStatus>> {
    pod.status.as_ref()?.resource_claim_statuses.as_ref()
}

/// What a controller of pods selects.
fn controller_selector(object: &Object) -> Option<LabelSelector> {
    let of_spec = |selector| LabelSelector::from_spec(selector).ok();
    match object.kind() {
        "ReplicaSet" => of_spec(&typed::<ReplicaSet>(object)?.spec.as_ref()?.selector),
        "StatefulSet" => of_spec(&typed::<StatefulSet>(object)?.spec.as_ref()?.selector),
        _ => {
            let controller = typed::<ReplicationController>(object)?;
            Some(LabelSelector::from_labels(controller.spec.as_ref()?.selector.as_ref()?))
        }
    }
}

impl Engine {
    /// Takes a change of any object; one of a kind that scheduling does not look at changes nothing.
    pub fn apply(&mut self, change: &Change, now: Instant) {
        match change.object().kind() {
            "Node" => self.on_node(change, now),
            "Pod" => self.on_pod(change, now),
            _ => self.on_other(change, now),
        }
    }

    fn on_node(&mut self, change: &Change, now: Instant) {
        match change {
            Change::Deleted(object) => self.remove_node(&object.meta().name, now),
            Change::Added(object) | Change::Updated { new: object, .. } => {
                if let Some(node) = typed::<Node>(object) {
                    self.set_node(node, now);
                }
            }
        }
    }

    /// Adds a node or takes its new version.
    pub fn set_node(&mut self, node: Arc<Node>, now: Instant) {
        let known = node.metadata.name.as_deref().and_then(|name| self.snapshot.find(name));
        let old = known.map(|index| Arc::clone(&self.snapshot.node(index).node));
        self.snapshot.set_node(Arc::clone(&node));
        // Read once, for all the pods that wait.
        let info = |node: Arc<Node>| Arc::new(NodeInfo::new(node));
        let event = match old {
            Some(old) if !node_changed(&old, &node) => return,
            Some(old) => ClusterEvent::NodeUpdate { old: info(old), new: info(node) },
            None => ClusterEvent::NodeAdd(info(node)),
        };
        self.queue.on_event(&event, &self.snapshot, now);
    }

    /// Removes a node. Its pods stay, until the cluster deletes them.
    pub fn remove_node(&mut self, name: &str, now: Instant) {
        let Some(index) = self.snapshot.find(name) else { return };
        let node = Arc::clone(&self.snapshot.node(index).node);
        self.snapshot.remove_node(name);
        let event = ClusterEvent::NodeDelete(Arc::new(NodeInfo::new(node)));
        self.queue.on_event(&event, &self.snapshot, now);
    }

    /// A change of an object that is neither a node nor a pod.
    fn on_other(&mut self, change: &Change, now: Instant) {
        if let Change::Updated { old, new } = change
            && old.meta().uid != new.meta().uid
        {
            self.on_other(&Change::Deleted(Arc::clone(old)), now);
            return self.on_other(&Change::Added(Arc::clone(new)), now);
        }
        let object = change.object();
        let meta = object.meta();
        let (namespace, name) = (meta.namespace.as_str(), meta.name.as_str());
        let there = !matches!(change, Change::Deleted(_));
        let workloads = &mut self.snapshot.workloads;
        match object.kind() {
            "Namespace" => {
                let labels = there.then(|| meta.labels.clone());
                if labels.as_ref() != self.snapshot.namespaces().get(name) {
                    self.snapshot.set_namespace(name, labels);
                    self.queue.on_event(&ClusterEvent::Object(change.clone()), &self.snapshot, now);
                }
            }
            "Service" => {
                let service = typed::<Service>(object).filter(|_| there);
                let labels = service.as_ref().and_then(|service| service.spec.as_ref()?.selector.as_ref());
                workloads.set_service(namespace, name, labels.map(LabelSelector::from_labels));
            }
            "PodDisruptionBudget" => {
                let budget = typed::<PodDisruptionBudget>(object).filter(|_| there);
                workloads.set_budget(namespace, name, budget.map(|budget| Budget::new(&budget)));
            }
            "PersistentVolumeClaim"
            | "PersistentVolume"
            | "StorageClass"
            | "CSINode"
            | "CSIDriver"
            | "CSIStorageCapacity"
            | "VolumeAttachment" => {
                self.set_volume_object(object, there);
                self.queue.on_event(&ClusterEvent::Object(change.clone()), &self.snapshot, now);
            }
            "ResourceClaim" => self.set_claim(namespace, name, typed(object).filter(|_| there), now),
            "DeviceClass" => {
                self.snapshot.devices.set_class(name, typed(object).filter(|_| there));
                self.queue.on_event(&ClusterEvent::Object(change.clone()), &self.snapshot, now);
            }
            "ResourceSlice" => {
                self.snapshot.devices.set_slice(name, typed(object).filter(|_| there));
                self.queue.on_event(&ClusterEvent::Object(change.clone()), &self.snapshot, now);
            }
            "DeviceTaintRule" => {
                self.snapshot.devices.set_taint_rule(name, typed(object).filter(|_| there).as_deref());
                self.queue.on_event(&ClusterEvent::Object(change.clone()), &self.snapshot, now);
            }
            "PodGroup" => self.set_group(namespace, name, typed(object).filter(|_| there), now),
            kind @ ("ReplicaSet" | "StatefulSet" | "ReplicationController") => {
                let selector = there.then(|| controller_selector(object)).flatten();
                workloads.set_controller(kind, namespace, name, selector);
            }
            _ => {}
        }
    }

    /// A change of an object that has to do with volumes.
    fn set_volume_object(&mut self, object: &Object, there: bool) {
        let (namespace, name) = (object.meta().namespace.as_str(), object.meta().name.as_str());
        let volumes = &mut self.snapshot.volumes;
        match object.kind() {
            "PersistentVolumeClaim" => volumes.set_claim(namespace, name, typed(object).filter(|_| there)),
            "PersistentVolume" => volumes.set_volume(name, typed(object).filter(|_| there)),
            "StorageClass" => volumes.set_class(name, typed(object).filter(|_| there)),
            "CSINode" => volumes.set_csi_node(name, typed(object).filter(|_| there).as_deref()),
            "CSIDriver" => volumes.set_csi_driver(name, typed(object).filter(|_| there).as_deref()),
            "CSIStorageCapacity" => {
                volumes.set_capacity(namespace, name, typed(object).filter(|_| there).as_deref());
            }
            _ => volumes.set_attachment(name, typed(object).filter(|_| there).as_deref()),
        }
    }

    /// Sets a ResourceClaim; `None` when it is gone.
    pub fn set_claim(&mut self, namespace: &str, name: &str, claim: Option<Arc<ResourceClaim>>, now: Instant) {
        let old = self.snapshot.devices.claim(namespace, name).map(Arc::clone);
        self.snapshot.devices.set_claim(namespace, name, claim.clone());
        self.queue.on_event(&ClusterEvent::ClaimUpdate { old, new: claim }, &self.snapshot, now);
    }

    /// Sets a PodGroup; `None` when it is gone.
    pub fn set_group(&mut self, namespace: &str, name: &str, group: Option<Arc<PodGroup>>, now: Instant) {
        let old = self.snapshot.groups.set_group(namespace, name, group.clone());
        self.queue.on_event(&ClusterEvent::PodGroupUpdate { old, new: group }, &self.snapshot, now);
        self.tell_of_idle_promises(&(Arc::from(namespace), Arc::from(name)), now);
    }

    /// What is promised to a group's pods keeps nobody away while the group holds them back: for others it is then as if they had left
    /// their nodes.
    fn tell_of_idle_promises(&mut self, key: &GroupKey, now: Instant) {
        let groups = &self.snapshot.groups;
        let promised = groups.members(key).filter_map(|uid| self.nominated.pod(uid));
        let idle: Vec<_> = promised.filter(|pod| groups.hold_back(pod)).map(Arc::clone).collect();
        for pod in idle {
            self.queue.on_event(&ClusterEvent::AssignedPodDelete(pod), &self.snapshot, now);
        }
    }

    fn on_pod(&mut self, change: &Change, now: Instant) {
        if let Change::Updated { old, new } = change
            && old.meta().uid != new.meta().uid
        {
            // The name was given to another pod between two looks.
            self.remove_pod(&old.meta().uid, now);
        }
        match change {
            Change::Deleted(object) => self.remove_pod(&object.meta().uid, now),
            Change::Added(object) | Change::Updated { new: object, .. } => {
                if let Some(pod) = typed::<Pod>(object) {
                    self.set_pod(pod, now);
                }
            }
        }
    }

    /// Adds a pod or takes its new version. It waits for a node, is on one, or has ended.
    pub fn set_pod(&mut self, pod: Arc<Pod>, now: Instant) {
        let pod = Arc::new(PodInfo::new(pod));
        if pod.terminal() {
            return self.remove_pod(&pod.uid, now);
        }
        let joins = self.snapshot.groups.add_pod(&pod);
        if pod.node_name().is_some() {
            return self.pod_on_node(pod, now);
        }
        self.pod_waits(Arc::clone(&pod), now);
        if joins {
            self.queue.on_event(&ClusterEvent::UnscheduledPodAdd(pod), &self.snapshot, now);
        }
    }

    /// Removes a pod, wherever it is.
    pub fn remove_pod(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        self.take_promise(uid, now);
        self.evicting.remove(uid);
        if let Some(queued) = self.assumed.remove(uid) {
            self.leaving.insert(Arc::clone(&queued.pod.uid), queued.pod);
        }
        if let Some(group) = self.snapshot.groups.remove_pod(uid) {
            self.tell_of_idle_promises(&group, now);
        }
        self.waiting.reject(uid, "", "the pod was deleted");
        if let Some(pod) = self.snapshot.remove_pod(uid) {
            self.queue.on_event(&ClusterEvent::AssignedPodDelete(pod), &self.snapshot, now);
        }
    }

    fn pod_on_node(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let Some(node) = pod.node_name() else { return };
        self.queue.remove(&pod.uid);
        match self.nominated.node_of(&pod.uid).is_some_and(|promised| **promised != *node) {
            true => self.take_promise(&pod.uid, now),
            false => drop(self.nominated.remove(&pod.uid)),
        }
        let confirmed = self.assumed.remove(&pod.uid).is_some();
        let known = self.snapshot.pod(&pod.uid).map(Arc::clone);
        self.snapshot.set_pod(Arc::clone(&pod), node);
        let event = match known {
            Some(old) if !confirmed => {
                let same = old.labels() == pod.labels()
                    && old.requests == pod.requests
                    && old.terminating() == pod.terminating();
                if same {
                    return;
                }
                ClusterEvent::AssignedPodUpdate { old, new: pod }
            }
            _ => ClusterEvent::AssignedPodAdd(pod),
        };
        self.queue.on_event(&event, &self.snapshot, now);
    }

    fn pod_waits(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if !self.profiles.contains_key(pod.scheduler_name()) {
            return;
        }
        if let Some(queued) = self.assumed.get_mut(&pod.uid) {
            // It is being bound; should that fail, the new version is tried.
            let old = std::mem::replace(&mut queued.pod, Arc::clone(&pod));
            if pod_changed(&old.pod, &pod.pod) {
                self.queue.on_event(&ClusterEvent::UnscheduledPodUpdate { old, new: pod }, &self.snapshot, now);
            }
            return;
        }
        let old = self.queue.queued(&pod.uid).map(|queued| queued.pod.nominated_node_name().map(Arc::<str>::from));
        let new = pod.nominated_node_name().map(Arc::<str>::from);
        match new {
            // The API tells of a promise that is new to it.
            Some(node) if old.as_ref().is_none_or(|old| old.as_ref() != Some(&node)) => {
                self.give_promise(Arc::clone(&pod), node, now);
            }
            None if old.is_some_and(|old| old.is_some()) => self.take_promise(&pod.uid, now),
            _ => {
                if let Some(node) = self.nominated.node_of(&pod.uid).map(Arc::clone) {
                    self.nominated.insert(Arc::clone(&pod), node);
                }
            }
        }
        match self.queue.queued(&pod.uid) {
            Some(old) if !pod_changed(&old.pod.pod, &pod.pod) => self.queue.refresh(pod),
            _ => self.queue.update(pod, &self.snapshot, now),
        }
    }
}
