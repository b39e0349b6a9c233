//! From changes of the API's objects to the snapshot and the queue.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Node, Pod, ReplicationController, Service},
    policy::v1::PodDisruptionBudget,
};
use rk_api::{Change, LabelSelector, Object, ResourceType};

use super::Running;
use crate::{
    framework::ClusterEvent,
    model::{Budget, PodInfo},
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

/// Whether a waiting pod's change can matter to its scheduling; its status does not.
fn pod_changed(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
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

impl Running {
    pub(super) fn on_node(&mut self, change: &Change) {
        let Some(node) = typed::<Node>(change.object()) else { return };
        let name = change.object().meta().name.as_str();
        let event = match change {
            Change::Deleted(_) => {
                self.snapshot.remove_node(name);
                ClusterEvent::NodeDelete(node)
            }
            Change::Added(_) => {
                self.snapshot.set_node(Arc::clone(&node));
                ClusterEvent::NodeAdd(node)
            }
            Change::Updated { .. } => {
                let old = self.snapshot.find(name).map(|index| Arc::clone(&self.snapshot.node(index).node));
                self.snapshot.set_node(Arc::clone(&node));
                match old {
                    Some(old) if !node_changed(&old, &node) => return,
                    Some(old) => ClusterEvent::NodeUpdate { old, new: node },
                    None => ClusterEvent::NodeAdd(node),
                }
            }
        };
        self.queue.on_event(&event);
    }

    /// A change of an object that is neither a node nor a pod.
    pub(super) fn on_other(&mut self, change: &Change) {
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
                    self.queue.on_event(&ClusterEvent::Object(Arc::clone(object)));
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
            "PersistentVolumeClaim" => {
                self.snapshot.volumes.set_claim(namespace, name, typed(object).filter(|_| there));
                self.queue.on_event(&ClusterEvent::Object(Arc::clone(object)));
            }
            "PersistentVolume" => {
                self.snapshot.volumes.set_volume(name, typed(object).filter(|_| there));
                self.queue.on_event(&ClusterEvent::Object(Arc::clone(object)));
            }
            "StorageClass" => {
                self.snapshot.volumes.set_class(name, typed(object).filter(|_| there));
                self.queue.on_event(&ClusterEvent::Object(Arc::clone(object)));
            }
            kind => {
                let selector = there.then(|| controller_selector(object)).flatten();
                workloads.set_controller(kind, namespace, name, selector);
            }
        }
    }

    pub(super) fn on_pod(&mut self, change: &Change) {
        let Some(pod) = typed::<Pod>(change.object()) else { return };
        let pod = Arc::new(PodInfo::new(pod));
        if let Change::Updated { old, .. } = change
            && old.meta().uid != change.object().meta().uid
        {
            // The name was given to another pod between two looks.
            self.pod_gone(&old.meta().uid);
        }
        if matches!(change, Change::Deleted(_)) || pod.terminal() {
            self.pod_gone(&pod.uid);
        } else if pod.node_name().is_some() {
            self.pod_on_node(pod);
        } else {
            self.pod_waits(pod);
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.nominated.remove(uid);
        self.assumed.remove(uid);
        self.config.waiting.reject(uid, "", "the pod was deleted");
        if let Some(pod) = self.snapshot.remove_pod(uid) {
            self.queue.on_event(&ClusterEvent::AssignedPodDelete(pod));
        }
    }

    fn pod_on_node(&mut self, pod: Arc<PodInfo>) {
        let Some(node) = pod.node_name().map(str::to_owned) else { return };
        self.queue.remove(&pod.uid);
        self.nominated.remove(&pod.uid);
        let confirmed = self.assumed.remove(&pod.uid).is_some();
        let known = self.snapshot.pod(&pod.uid).cloned();
        self.snapshot.set_pod(Arc::clone(&pod), &node);
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
        self.queue.on_event(&event);
    }

    fn pod_waits(&mut self, pod: Arc<PodInfo>) {
        if !self.profiles.contains_key(pod.scheduler_name()) {
            return;
        }
        if let Some(assumed) = self.assumed.get_mut(&pod.uid) {
            // It is being bound; should that fail, the new version is tried.
            let old = std::mem::replace(&mut assumed.queued.pod, Arc::clone(&pod));
            if pod_changed(&old.pod, &pod.pod) {
                self.queue.on_event(&ClusterEvent::UnscheduledPodUpdate { old, new: pod });
            }
            return;
        }
        if let Some(node) = pod.nominated_node_name()
            && self.nominated.node_of(&pod.uid).is_none()
        {
            self.nominated.insert(Arc::clone(&pod), Arc::from(node));
        }
        match self.queue.waiting(&pod.uid) {
            Some(old) if !pod_changed(&old.pod, &pod.pod) => self.queue.refresh(pod),
            _ => self.queue.update(pod),
        }
    }
}
