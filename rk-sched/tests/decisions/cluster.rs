//! From a case to a profile, a cluster and events.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    Resource as _,
    api::{
        apps::v1::{ReplicaSet, StatefulSet},
        core::v1::{PersistentVolume, PersistentVolumeClaim, ReplicationController, Service},
        policy::v1::PodDisruptionBudget,
        resource::{
            v1::{DeviceClass, ResourceClaim, ResourceSlice},
            v1beta2::DeviceTaintRule,
        },
        scheduling::v1alpha2::PodGroup,
        storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
    },
};
use rk_api::{Change, LabelSelector, Object};
use rk_sched::{
    Profile, SchedulerConfig,
    config::{self, Registry},
    framework::ClusterEvent,
    model::{Budget, NodeInfo, PodInfo, Snapshot},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    case::{Case, Event},
    short,
};

pub fn pod_info(short: &Value, name: &str) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(short::pod(short, name))))
}

/// The nodes, pods and objects of a case.
pub fn snapshot(case: &Case) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, node) in &case.nodes {
        snapshot.set_node(Arc::new(short::node(name, node)));
    }
    for (name, labels) in &case.namespaces {
        snapshot.set_namespace(name, Some(labels.clone()));
    }
    for object in &case.objects {
        set_object(&mut snapshot, object);
    }
    for (number, pod) in case.pods.iter().enumerate() {
        let pod = pod_info(pod, &format!("pod-{number}"));
        let node = pod.node_name().expect("`pods` are on nodes").to_owned();
        snapshot.groups.add_pod(&pod);
        snapshot.set_pod(pod, &node);
    }
    for pod in waiting(case).iter().chain(&case.pod.as_ref().map(|pod| pod_info(pod, "pod"))) {
        snapshot.groups.add_pod(pod);
    }
    snapshot
}

/// The pods that wait.
pub fn waiting(case: &Case) -> Vec<Arc<PodInfo>> {
    let named = |(number, pod): (usize, &Value)| pod_info(pod, &format!("waiting-{number}"));
    case.waiting.iter().enumerate().map(named).collect()
}

/// Kinds whose objects are in no namespace.
const CLUSTER_SCOPED: [&str; 8] = [
    "PersistentVolume",
    "StorageClass",
    "CSINode",
    "CSIDriver",
    "VolumeAttachment",
    "DeviceClass",
    "ResourceSlice",
    "DeviceTaintRule",
];

/// A manifest with the namespace `default`, unless it is of another one or of none.
pub fn in_namespace(object: &Value) -> Value {
    let mut object = object.clone();
    let kind = object["kind"].as_str().unwrap_or_default();
    if !CLUSTER_SCOPED.contains(&kind) && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "default".into();
    }
    object
}

fn set_object(snapshot: &mut Snapshot, object: &Value) {
    let object = in_namespace(object);
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    let workloads = &mut snapshot.workloads;
    let of_spec = |selector| LabelSelector::from_spec(selector).ok();
    match kind.as_str() {
        Service::KIND => {
            let selector = short::exact::<Service>(object).spec.unwrap().selector;
            workloads.set_service(&namespace, &name, selector.as_ref().map(LabelSelector::from_labels));
        }
        ReplicaSet::KIND => {
            let selector = of_spec(&short::exact::<ReplicaSet>(object).spec.unwrap().selector);
            workloads.set_controller(&kind, &namespace, &name, selector);
        }
        StatefulSet::KIND => {
            let selector = of_spec(&short::exact::<StatefulSet>(object).spec.unwrap().selector);
            workloads.set_controller(&kind, &namespace, &name, selector);
        }
        ReplicationController::KIND => {
            let selector = short::exact::<ReplicationController>(object).spec.unwrap().selector;
            workloads.set_controller(&kind, &namespace, &name, selector.as_ref().map(LabelSelector::from_labels));
        }
        PodDisruptionBudget::KIND => {
            let budget = Budget::new(&short::exact::<PodDisruptionBudget>(object));
            workloads.set_budget(&namespace, &name, Some(budget));
        }
        PersistentVolumeClaim::KIND => {
            snapshot.volumes.set_claim(&namespace, &name, Some(Arc::new(short::exact(object))));
        }
        PersistentVolume::KIND => snapshot.volumes.set_volume(&name, Some(Arc::new(short::exact(object)))),
        StorageClass::KIND => snapshot.volumes.set_class(&name, Some(Arc::new(short::exact(object)))),
        CSINode::KIND => snapshot.volumes.set_csi_node(&name, Some(&short::exact(object))),
        CSIDriver::KIND => snapshot.volumes.set_csi_driver(&name, Some(&short::exact(object))),
        CSIStorageCapacity::KIND => {
            snapshot.volumes.set_capacity(&namespace, &name, Some(&short::exact(object)));
        }
        VolumeAttachment::KIND => snapshot.volumes.set_attachment(&name, Some(&short::exact(object))),
        ResourceClaim::KIND => {
            snapshot.devices.set_claim(&namespace, &name, Some(Arc::new(short::exact(object))));
        }
        DeviceClass::KIND => snapshot.devices.set_class(&name, Some(Arc::new(short::exact(object)))),
        ResourceSlice::KIND => snapshot.devices.set_slice(&name, Some(Arc::new(short::exact(object)))),
        DeviceTaintRule::KIND => {
            let rule = short::exact::<DeviceTaintRule>(object);
            snapshot.devices.set_taint_rule(&name, Some(&rule));
        }
        PodGroup::KIND => {
            snapshot.groups.set_group(&namespace, &name, Some(Arc::new(short::exact(object))));
        }
        other => panic!("no case has a {other:?}"),
    }
}

/// The default profile with a case's plugin arguments, as a configuration file has them.
pub fn profile(args: &BTreeMap<String, Value>) -> Profile {
    let config = args.iter().map(|(plugin, args)| {
        let mut args = args.clone();
        if let Some(constraints) = args["defaultConstraints"].as_array() {
            args = json!({
                "defaultConstraints": constraints.iter().map(short::constraint).collect::<Vec<_>>(),
                "defaultingType": "List",
            });
        }
        json!({"name": plugin, "args": args})
    });
    let file = json!({
        "apiVersion": config::API_VERSION,
        "kind": config::KIND,
        "profiles": [{"pluginConfig": config.collect::<Vec<_>>()}],
    });
    let config = SchedulerConfig::from_json(&file, &Registry::kubernetes());
    config.unwrap_or_else(|error| panic!("{error}")).profiles.remove(0)
}

/// An object that is in a namespace; null for none.
fn namespaced<K: DeserializeOwned + Serialize>(object: &Value) -> Option<Arc<K>> {
    (!object.is_null()).then(|| Arc::new(short::exact(in_namespace(object))))
}

/// The event of a case.
pub fn event(event: &Event) -> ClusterEvent {
    let pod = |pod: &Value| pod_info(pod, "other");
    let node = |node: &Value| Arc::new(NodeInfo::new(Arc::new(short::node("node", node))));
    match event {
        Event { assigned_add: Some(added), .. } => ClusterEvent::AssignedPodAdd(pod(added)),
        Event { assigned_update: Some((old, new)), .. } => {
            ClusterEvent::AssignedPodUpdate { old: pod(old), new: pod(new) }
        }
        Event { assigned_delete: Some(gone), .. } => ClusterEvent::AssignedPodDelete(pod(gone)),
        Event { pod_update: Some((old, new)), .. } => {
            ClusterEvent::UnscheduledPodUpdate { old: pod_info(old, "pod"), new: pod_info(new, "pod") }
        }
        Event { node_add: Some(added), .. } => ClusterEvent::NodeAdd(node(added)),
        Event { node_update: Some((old, new)), .. } => ClusterEvent::NodeUpdate { old: node(old), new: node(new) },
        Event { node_delete: Some(gone), .. } => ClusterEvent::NodeDelete(node(gone)),
        Event { claim_update: Some((old, new)), .. } => {
            ClusterEvent::ClaimUpdate { old: namespaced(old), new: namespaced(new) }
        }
        Event { group_update: Some((old, new)), .. } => {
            ClusterEvent::PodGroupUpdate { old: namespaced(old), new: namespaced(new) }
        }
        Event { waiting_add: Some(added), .. } => ClusterEvent::UnscheduledPodAdd(pod(added)),
        Event { object: Some(object), .. } => {
            let mut object = in_namespace(object);
            object["apiVersion"] = "v1".into();
            ClusterEvent::Object(Change::Added(Arc::new(Object::from_value(&object).unwrap())))
        }
        _ => panic!("an event of no kind"),
    }
}
