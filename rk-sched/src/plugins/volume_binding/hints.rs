//! Which changes of objects may let a pod's claims be bound that could not be before.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::PersistentVolume,
    storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass},
};
use rk_api::{Change, Object};

use crate::{
    model::{
        PodInfo,
        volumes::{Capacity, MIGRATED},
    },
    plugins::claims::{is_claim_of, is_kept_for, versions},
};

/// Whether the change of an object may help a pod.
pub(super) fn change_helps(pod: &PodInfo, change: &Change) -> bool {
    let gone = matches!(change, Change::Deleted(_));
    match change.object().kind() {
        "PersistentVolumeClaim" => !gone && is_claim_of(pod, change.object()),
        "PersistentVolume" => volume_helps(pod, change),
        "StorageClass" => {
            let (old, new) = versions::<StorageClass>(change);
            let topologies = |class: &StorageClass| class.allowed_topologies.clone();
            new.is_some_and(|new| old.is_none_or(|old| topologies(&old) != topologies(&new)))
        }
        "CSINode" => match change {
            Change::Updated { old, new } => migrated(old) != migrated(new),
            Change::Added(_) => true,
            Change::Deleted(old) => migrated(old).is_some(),
        },
        // Where a driver tells no more how much room it has, there is as much as one likes.
        "CSIDriver" => {
            let (old, new) = versions::<CSIDriver>(change);
            let tracks = |driver: Option<Arc<CSIDriver>>| driver.and_then(|driver| driver.spec.storage_capacity);
            tracks(old) == Some(true) && tracks(new) != Some(true)
        }
        "CSIStorageCapacity" => {
            let (old, new) = versions::<CSIStorageCapacity>(change);
            let limit = |capacity: Arc<CSIStorageCapacity>| Capacity::new(&capacity).limit();
            new.is_some_and(|new| old.is_none_or(|old| limit(new) > limit(old)))
        }
        _ => false,
    }
}

/// A new volume may help anybody; a changed one those that it is kept for, and if it is kept for nobody, anybody. One that is gone may have kept
/// the pod's claim to its nodes.
fn volume_helps(pod: &PodInfo, change: &Change) -> bool {
    let (old, new) = versions::<PersistentVolume>(change);
    let is_free = |volume: &PersistentVolume| volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
    match (old, new) {
        (Some(old), Some(new)) => is_free(&new) || is_kept_for(pod, &new) || is_kept_for(pod, &old),
        (Some(old), None) => is_kept_for(pod, &old),
        (None, _) => true,
    }
}

/// The plugins that a node has given up for their CSI drivers.
fn migrated(node: &Object) -> Option<&String> {
    node.meta().annotations.get(MIGRATED)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: &str, mut fields: Value) -> Arc<Object> {
        let version = match kind {
            "PersistentVolume" | "PersistentVolumeClaim" => "v1",
            _ => "storage.k8s.io/v1",
        };
        (fields["apiVersion"], fields["kind"]) = (version.into(), kind.into());
        fields["metadata"]["name"] = fields["metadata"].get("name").cloned().unwrap_or("x".into());
        Arc::new(Object::from_value(&fields).unwrap())
    }

    /// Whether a pod that uses the claim `c` in the namespace `default` is woken.
    fn wakes(kind: &str, old: Option<Value>, new: Option<Value>) -> bool {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "p"},
            "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
        }))
        .unwrap();
        let change = match (old.map(|old| object(kind, old)), new.map(|new| object(kind, new))) {
            (None, Some(new)) => Change::Added(new),
            (Some(old), Some(new)) => Change::Updated { old, new },
            (Some(old), None) => Change::Deleted(old),
            (None, None) => unreachable!("there is an object"),
        };
        change_helps(&PodInfo::new(Arc::new(pod)), &change)
    }

    #[test]
    fn only_changes_that_may_help_wake_a_pod() {
        let claim = |name: &str, namespace: &str| json!({"metadata": {"name": name, "namespace": namespace}});
        let volume = |claim: Value| json!({"spec": {"claimRef": claim}});
        let own = || volume(json!({"namespace": "default", "name": "c"}));
        let others = || volume(json!({"namespace": "default", "name": "d"}));
        let class = |zone: &str| json!({"provisioner": "d", "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": [zone]}]}]});
        let labelled = || json!({"metadata": {"labels": {"a": "b"}}, "provisioner": "d", "allowedTopologies": class("a")["allowedTopologies"]});
        let node = |migrated: &str| json!({"metadata": {"annotations": {MIGRATED: migrated}}, "spec": {"drivers": []}});
        let driver = |tracks: bool| json!({"spec": {"storageCapacity": tracks}});
        let room = |size: &str| json!({"storageClassName": "s", "capacity": size});
        let cases = [
            ("PersistentVolumeClaim", None, Some(claim("c", "default")), true),
            ("PersistentVolumeClaim", Some(claim("c", "default")), Some(claim("c", "default")), true),
            ("PersistentVolumeClaim", Some(claim("c", "default")), None, false),
            ("PersistentVolumeClaim", None, Some(claim("d", "default")), false),
            ("PersistentVolumeClaim", None, Some(claim("c", "other")), false),
            ("PersistentVolume", None, Some(volume(Value::Null)), true),
            ("PersistentVolume", Some(volume(Value::Null)), Some(own()), true),
            ("PersistentVolume", Some(volume(Value::Null)), Some(others()), false),
            ("PersistentVolume", Some(own()), None, true),
            ("PersistentVolume", Some(others()), None, false),
            ("StorageClass", None, Some(class("a")), true),
            ("StorageClass", Some(class("a")), Some(class("b")), true),
            ("StorageClass", Some(class("a")), Some(labelled()), false),
            ("StorageClass", Some(class("a")), None, false),
            ("CSINode", None, Some(node("")), true),
            ("CSINode", Some(node("a")), Some(node("a")), false),
            ("CSINode", Some(node("a")), Some(node("a,b")), true),
            ("CSIDriver", None, Some(driver(false)), false),
            ("CSIDriver", Some(driver(true)), Some(driver(true)), false),
            ("CSIDriver", Some(driver(true)), Some(driver(false)), true),
            ("CSIDriver", Some(driver(true)), None, true),
            ("CSIStorageCapacity", None, Some(room("1Gi")), true),
            ("CSIStorageCapacity", Some(room("1Gi")), Some(room("2Gi")), true),
            ("CSIStorageCapacity", Some(room("2Gi")), Some(room("1Gi")), false),
            ("CSIStorageCapacity", Some(room("1Gi")), None, false),
            ("VolumeAttachment", Some(json!({"spec": {"attacher": "d", "nodeName": "n", "source": {}}})), None, false),
        ];
        for (kind, old, new, expected) in cases {
            let what = format!("{kind}: {old:?} to {new:?}");
            assert_eq!(wakes(kind, old, new), expected, "{what}");
        }
    }
}
