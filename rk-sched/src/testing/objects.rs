//! Random objects that have to do with volumes, and their random changes.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use rand::{Rng, RngExt};
use rk_api::{Change, Object, ResourceType};
use serde_json::{Value, json};

use super::random::one;
use crate::model::Snapshot;

const KINDS: [&str; 7] = [
    "PersistentVolumeClaim",
    "PersistentVolume",
    "StorageClass",
    "CSINode",
    "CSIDriver",
    "CSIStorageCapacity",
    "VolumeAttachment",
];
const CLAIMS: [&str; 3] = ["claim-0", "claim-1", "claim-2"];
const VOLUMES: [&str; 4] = ["volume-0", "volume-1", "volume-2", "volume-3"];
const NODES: [&str; 3] = ["node-0", "node-1", "node-2"];
const ZONES: [&str; 3] = ["a", "b", "c"];
const DRIVER: &str = "driver.example";

/// Gives a pod volumes: claims, and perhaps a disk that a node can have but once.
pub(super) fn give_volumes(random: &mut impl Rng, pod: &mut Pod) {
    let claims = random.random_range(1..3);
    let mut volumes: Vec<Value> = (0..claims)
        .map(|number| json!({"name": format!("v{number}"), "persistentVolumeClaim": {"claimName": one(random, &CLAIMS)}}))
        .collect();
    if random.random_bool(0.2) {
        volumes.push(json!({"name": "disk", "awsElasticBlockStore": {"volumeID": one(random, &["vol-1", "vol-2"])}}));
    }
    if let Some(spec) = &mut pod.spec {
        spec.volumes = serde_json::from_value(Value::Array(volumes)).ok();
    }
}

/// All objects that are there, by kind, namespace and name.
#[derive(Default)]
pub(super) struct Objects {
    all: BTreeMap<(&'static str, String, String), Value>,
    versions: u64,
}

impl Objects {
    /// Makes, changes or removes an object, in the snapshot too.
    pub(super) fn change(&mut self, random: &mut impl Rng, snapshot: &mut Snapshot) -> Change {
        let kind = KINDS[random.random_range(0..KINDS.len())];
        let namespace = match kind {
            "PersistentVolumeClaim" => one(random, &["default", "other"]),
            "CSIStorageCapacity" => "default",
            _ => "",
        };
        let name = match kind {
            "PersistentVolumeClaim" => one(random, &CLAIMS),
            "PersistentVolume" => one(random, &VOLUMES),
            "StorageClass" => one(random, &["now", "local", "made"]),
            "CSINode" => one(random, &NODES),
            "CSIDriver" => DRIVER,
            _ => one(random, &["x", "y", "z"]),
        };
        let key = (kind, namespace.to_owned(), name.to_owned());
        let old = self.all.get(&key).cloned();
        let new = match &old {
            None => Some(made(random, kind, name)),
            Some(_) if random.random_bool(0.25) => None,
            Some(old) => Some(changed(random, kind, old.clone())),
        };
        let new = new.map(|new| self.finished(new, kind, namespace, name));
        match &new {
            Some(new) => drop(self.all.insert(key, new.clone())),
            None => drop(self.all.remove(&key)),
        }
        set(snapshot, kind, namespace, name, new.as_ref());
        let object = |value: &Value| Arc::new(Object::from_value(value).expect("it has a kind and a name"));
        match (&old, &new) {
            (Some(old), Some(new)) => Change::Updated { old: object(old), new: object(new) },
            (None, Some(new)) => Change::Added(object(new)),
            (Some(old), None) => Change::Deleted(object(old)),
            (None, None) => unreachable!("an object is made where there is none"),
        }
    }

    /// An object with all that the API gives it.
    fn finished(&mut self, mut object: Value, kind: &str, namespace: &str, name: &str) -> Value {
        self.versions += 1;
        let core = matches!(kind, "PersistentVolumeClaim" | "PersistentVolume");
        (object["apiVersion"], object["kind"]) = (if core { "v1" } else { "storage.k8s.io/v1" }.into(), kind.into());
        object["metadata"]["name"] = name.into();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        object["metadata"]["resourceVersion"] = self.versions.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", self.versions).into();
        }
        object
    }
}

fn typed<K: ResourceType>(object: Option<&Value>) -> Option<Arc<K>> {
    object.map(|object| Arc::new(serde_json::from_value(object.clone()).expect("the generator makes right shapes")))
}

fn set(snapshot: &mut Snapshot, kind: &str, namespace: &str, name: &str, object: Option<&Value>) {
    let volumes = &mut snapshot.volumes;
    match kind {
        "PersistentVolumeClaim" => volumes.set_claim(namespace, name, typed(object)),
        "PersistentVolume" => volumes.set_volume(name, typed(object)),
        "StorageClass" => volumes.set_class(name, typed(object)),
        "CSINode" => volumes.set_csi_node(name, typed(object).as_deref()),
        "CSIDriver" => volumes.set_csi_driver(name, typed(object).as_deref()),
        "CSIStorageCapacity" => volumes.set_capacity(namespace, name, typed(object).as_deref()),
        _ => volumes.set_attachment(name, typed(object).as_deref()),
    }
}

/// A new object, with what never changes of it.
fn made(random: &mut impl Rng, kind: &str, name: &str) -> Value {
    let object = match kind {
        "PersistentVolumeClaim" => json!({"spec": {
            "storageClassName": one(random, &["now", "local", "made"]),
            "accessModes": [one(random, &["ReadWriteOnce", "ReadWriteOncePod"])],
            "resources": {"requests": {"storage": format!("{}Gi", random.random_range(1..4))}},
        }}),
        "PersistentVolume" => {
            let term = match random.random_range(0..4) {
                0 => {
                    json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]})
                }
                1 => {
                    json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": NODES[..2]}]})
                }
                2 => json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}),
                _ => json!({"matchExpressions": [
                    {"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["b"]},
                    {"key": "disk", "operator": "In", "values": ["ssd", "hdd"]},
                ]}),
            };
            let mut volume = json!({
                "metadata": {"annotations": {}},
                "spec": {
                    "storageClassName": one(random, &["local", "made"]), "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"],
                    "capacity": {"storage": format!("{}Gi", random.random_range(1..5))},
                },
                "status": {"phase": "Available"},
            });
            if random.random_bool(0.7) {
                volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [term]}});
            }
            match random.random_range(0..3) {
                0 => volume["spec"]["csi"] = json!({"driver": DRIVER, "volumeHandle": name}),
                1 => volume["spec"]["awsElasticBlockStore"] = json!({"volumeID": name}),
                _ => volume["spec"]["local"] = json!({"path": "/disk"}),
            }
            volume
        }
        "StorageClass" => json!({
            "provisioner": if name == "local" { "kubernetes.io/no-provisioner" } else { DRIVER },
            "volumeBindingMode": if name == "now" { "Immediate" } else { "WaitForFirstConsumer" },
        }),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIDriver" => json!({"spec": {}}),
        "CSIStorageCapacity" => {
            let zone = one(random, &ZONES);
            let topology = json!({"matchLabels": {"topology.kubernetes.io/zone": zone}});
            json!({"storageClassName": "made", "nodeTopology": topology})
        }
        _ => json!({
            "spec": {"attacher": DRIVER, "nodeName": one(random, &NODES), "source": {"persistentVolumeName": one(random, &VOLUMES)}},
        }),
    };
    changed(random, kind, object)
}

/// Another version of an object.
fn changed(random: &mut impl Rng, kind: &str, mut object: Value) -> Value {
    match kind {
        "PersistentVolumeClaim" => match random.random_range(0..4) {
            0 => {
                object["spec"]["volumeName"] = one(random, &VOLUMES).into();
                object["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
            }
            1 => object["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = one(random, &NODES).into(),
            2 => object["metadata"]["annotations"] = json!({}),
            _ => {}
        },
        "PersistentVolume" => match random.random_range(0..4) {
            0 => {
                let namespace = one(random, &["default", "other"]);
                object["spec"]["claimRef"] = json!({"namespace": namespace, "name": one(random, &CLAIMS)});
            }
            1 => object["spec"]["claimRef"] = Value::Null,
            2 => object["status"]["phase"] = one(random, &["Available", "Released", "Pending"]).into(),
            _ => object["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": one(random, &ZONES)}),
        },
        "StorageClass" => {
            object["allowedTopologies"] = match random.random_bool(0.3) {
                true => json!([{"matchLabelExpressions": [
                    {"key": "topology.kubernetes.io/zone", "values": [one(random, &ZONES)]},
                ]}]),
                false => Value::Null,
            };
        }
        "CSINode" => {
            let limit = random.random_range(0..3);
            object["spec"]["drivers"] = match random.random_bool(0.8) {
                true => json!([
                    {"name": DRIVER, "nodeID": "n", "allocatable": {"count": limit}},
                    {"name": "ebs.csi.aws.com", "nodeID": "n", "allocatable": {"count": limit}},
                ]),
                false => json!([]),
            };
            let migrated = one(random, &["", "kubernetes.io/aws-ebs"]);
            object["metadata"]["annotations"] = json!({"storage.alpha.kubernetes.io/migrated-plugins": migrated});
        }
        "CSIDriver" => object["spec"]["storageCapacity"] = random.random_bool(0.6).into(),
        "CSIStorageCapacity" => object["capacity"] = format!("{}Gi", random.random_range(0..4)).into(),
        _ => object["status"] = json!({"attached": random.random_bool(0.5)}),
    }
    object
}
