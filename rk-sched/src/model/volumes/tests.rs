//! The tables against ones that are made anew, and promises against a naive list of them.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSINode, StorageClass, VolumeAttachment},
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ClaimKey, Given, Tables, Volumes};
use crate::model::PodInfo;

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// What the objects are, by kind and number.
#[derive(Debug, Clone, Default)]
struct Objects {
    claims: HashMap<u8, PersistentVolumeClaim>,
    volumes: HashMap<u8, PersistentVolume>,
    classes: HashMap<u8, StorageClass>,
    csi_nodes: HashMap<u8, CSINode>,
    attachments: HashMap<u8, VolumeAttachment>,
    pods: HashMap<u8, (Arc<PodInfo>, u8)>,
}

/// A change: which kind, which of them, and what it shall be.
type Change = (u8, u8, u8, u8);

fn claim(number: u8, a: u8, b: u8) -> PersistentVolumeClaim {
    let volume = (!a.is_multiple_of(3)).then(|| format!("v{}", b % 4));
    object(json!({
        "metadata": {"namespace": "d", "name": format!("c{number}"), "uid": format!("u{number}")},
        "spec": {"volumeName": volume, "storageClassName": format!("s{}", b % 2)},
    }))
}

fn volume(number: u8, a: u8) -> PersistentVolume {
    let source = match a % 4 {
        0 => json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": format!("h{}", number % 2)}}),
        1 => json!({"csi": {"driver": "x", "volumeHandle": format!("h{number}")}}),
        2 => json!({"awsElasticBlockStore": {"volumeID": format!("h{number}")}}),
        _ => json!({"nfs": {"server": "s", "path": "/"}}),
    };
    object(json!({"metadata": {"name": format!("v{number}")}, "spec": source}))
}

fn csi_node(number: u8, a: u8, b: u8) -> CSINode {
    let migrated = if b.is_multiple_of(2) { "kubernetes.io/aws-ebs" } else { "" };
    object(json!({
        "metadata": {
            "name": format!("n{number}"), "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": migrated},
        },
        "spec": {"drivers": [
            {"name": "ebs.csi.aws.com", "nodeID": "n", "allocatable": {"count": a % 5}},
            {"name": "x", "nodeID": "n", "allocatable": {"count": (!b.is_multiple_of(3)).then_some(b % 5)}},
        ]},
    }))
}

fn pod(number: u8, a: u8, b: u8) -> Arc<PodInfo> {
    let volumes = json!([
        {"name": "a", "persistentVolumeClaim": {"claimName": format!("c{}", a % 4)}},
        {"name": "b", "persistentVolumeClaim": {"claimName": format!("c{}", b % 4)}},
        {"name": "i", "awsElasticBlockStore": {"volumeID": format!("h{}", a % 2)}},
    ]);
    let pod: Pod = object(json!({
        "metadata": {"namespace": "d", "name": format!("p{number}"), "uid": format!("p{number}")},
        "spec": {"containers": [], "volumes": volumes},
    }));
    Arc::new(PodInfo::new(Arc::new(pod)))
}

impl Objects {
    /// Makes a change here and in the tables.
    fn apply(&mut self, tables: &mut Volumes, (kind, number, a, b): Change) {
        let gone = a.is_multiple_of(7);
        match kind % 6 {
            0 => {
                let new = (!gone).then(|| claim(number % 4, a, b));
                tables.set_claim("d", &format!("c{}", number % 4), new.clone().map(Arc::new));
                set(&mut self.claims, number % 4, new);
            }
            1 => {
                let new = (!gone).then(|| volume(number % 4, a));
                tables.set_volume(&format!("v{}", number % 4), new.clone().map(Arc::new));
                set(&mut self.volumes, number % 4, new);
            }
            2 => {
                let provisioner = ["x", "kubernetes.io/aws-ebs", ""][usize::from(b % 3)];
                let name = format!("s{}", number % 2);
                let class = json!({"metadata": {"name": name}, "provisioner": provisioner});
                let new = (!gone).then(|| object::<StorageClass>(class));
                tables.set_class(&name, new.clone().map(Arc::new));
                set(&mut self.classes, number % 2, new);
            }
            3 => {
                let new = (!gone).then(|| csi_node(number % 3, a, b));
                tables.set_csi_node(&format!("n{}", number % 3), new.as_ref());
                set(&mut self.csi_nodes, number % 3, new);
            }
            4 => {
                let name = format!("a{}", number % 4);
                let spec = json!({
                    "attacher": "x", "nodeName": format!("n{}", a % 3),
                    "source": {"persistentVolumeName": format!("v{}", b % 4)},
                });
                let attachment = json!({"metadata": {"name": name}, "spec": spec});
                let new = (!gone).then(|| object::<VolumeAttachment>(attachment));
                tables.set_attachment(&name, new.as_ref());
                set(&mut self.attachments, number % 4, new);
            }
            _ => {
                if let Some((old, _)) = self.pods.remove(&(number % 6)) {
                    tables.take_off(&old);
                }
                if !gone {
                    let (pod, node) = (pod(number % 6, a, b), b % 3);
                    tables.place(&pod, &Arc::from(format!("n{node}")));
                    self.pods.insert(number % 6, (pod, node));
                }
            }
        }
    }

    /// Tables of these objects, pods first.
    fn tables(&self) -> Volumes {
        let mut tables = Volumes::default();
        for (pod, node) in self.pods.values() {
            tables.place(pod, &Arc::from(format!("n{node}")));
        }
        for (number, attachment) in &self.attachments {
            tables.set_attachment(&format!("a{number}"), Some(attachment));
        }
        for (number, node) in &self.csi_nodes {
            tables.set_csi_node(&format!("n{number}"), Some(node));
        }
        for (number, volume) in &self.volumes {
            tables.set_volume(&format!("v{number}"), Some(Arc::new(volume.clone())));
        }
        for (number, class) in &self.classes {
            tables.set_class(&format!("s{number}"), Some(Arc::new(class.clone())));
        }
        for (number, claim) in &self.claims {
            tables.set_claim("d", &format!("c{number}"), Some(Arc::new(claim.clone())));
        }
        tables
    }
}

fn set<V>(map: &mut HashMap<u8, V>, key: u8, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// What differs between two tables of the same objects.
fn difference(one: &Tables, other: &Tables) -> Option<String> {
    for node in one.nodes.keys().chain(other.nodes.keys()) {
        let (a, b) = (one.node(node), other.node(node));
        if !a.zip(b).is_some_and(|(a, b)| a.counts_as(b)) {
            return Some(format!("node {node}: {a:?} is not {b:?}"));
        }
    }
    (one.slack != other.slack).then(|| format!("{:?} is not {:?}", one.slack, other.slack))
}

proptest! {
    #[test]
    fn counts_are_those_of_tables_made_anew(changes in proptest::collection::vec(any::<Change>(), 1..60)) {
        let (mut objects, mut tables) = (Objects::default(), Volumes::default());
        for change in changes {
            objects.apply(&mut tables, change);
            let found = difference(tables.tables(), objects.tables().tables());
            prop_assert!(found.is_none(), "after {change:?}: {found:?}");
        }
        for number in 0..6 {
            if let Some((pod, _)) = objects.pods.remove(&number) {
                tables.take_off(&pod);
            }
        }
        for number in 0..4 {
            tables.set_attachment(&format!("a{number}"), None);
            tables.set_claim("d", &format!("c{number}"), None);
            tables.set_volume(&format!("v{number}"), None);
            tables.set_csi_node(&format!("n{number}"), None);
        }
        let left = tables.tables();
        prop_assert!(left.nodes.is_empty() && left.placed.is_empty() && left.named.is_empty());
        prop_assert!(left.attached.is_empty() && left.claims.is_empty());
        prop_assert_eq!(&left.slack, &Default::default());
    }

    #[test]
    fn no_volume_is_promised_twice_and_what_is_given_back_is_free(
        steps in proptest::collection::vec((0_u8..5, 0_u8..4, 0_u8..4, 0_u8..4), 1..80),
    ) {
        let mut volumes = Volumes::default();
        let key = |number: u8| ClaimKey::of(&claim(number, 0, 0));
        for number in 0..4 {
            volumes.set_claim("d", &format!("c{number}"), Some(Arc::new(claim(number, 0, 0))));
        }
        let mut version = 0_u64;
        let set = |volumes: &mut Volumes, number: u8, version: u64| {
            let mut new = volume(number, 1);
            new.metadata.resource_version = Some(version.to_string());
            volumes.set_volume(&format!("v{number}"), Some(Arc::new(new)));
        };
        for number in 0..4 {
            set(&mut volumes, number, version);
        }
        // Volume: claim, pod, the version that was written.
        let mut model: HashMap<u8, (u8, u8, Option<u64>)> = HashMap::new();
        for (step, volume, claim, pod) in steps {
            let name = format!("v{volume}");
            let uid = format!("p{pod}");
            match step {
                0 | 1 => {
                    let given = volumes.assumed().promise_volume(&name, &key(claim), &uid);
                    let expected = match model.get(&volume) {
                        // A claim is promised one volume.
                        None if model.values().any(|(held, ..)| *held == claim) => Given::Refused,
                        None => Given::Now,
                        Some((held, ..)) if *held == claim => Given::Already,
                        Some(_) => Given::Refused,
                    };
                    prop_assert_eq!(given, expected);
                    if given == Given::Now {
                        model.insert(volume, (claim, pod, None));
                    }
                }
                2 => {
                    volumes.assumed().give_back(&uid);
                    model.retain(|_, (_, holder, written)| *holder != pod || written.is_some());
                }
                3 => {
                    if let Some((_, _, written @ None)) = model.get_mut(&volume) {
                        version += 1;
                        volumes.assumed().wrote_volume(&name, Some(&version.to_string()));
                        *written = Some(version);
                    }
                }
                _ => {
                    set(&mut volumes, volume, version);
                    if model.get(&volume).is_some_and(|(_, _, written)| written.is_some()) {
                        model.remove(&volume);
                    }
                }
            }
            let assumed = Arc::clone(volumes.assumed());
            for number in 0..4 {
                let info = volumes.volume(&format!("v{number}")).unwrap();
                for claim in 0..4 {
                    let another = model.get(&number).is_some_and(|(held, ..)| *held != claim);
                    prop_assert_eq!(assumed.is_anothers(info, &key(claim), volumes.tables()), another);
                }
            }
        }
    }
}
