//! What the plugins for volumes decide, on clusters in memory. The cases are those of the API reference, the concept pages on storage,
//! and KEP-1472 (storage capacity), KEP-2485 (ReadWriteOncePod), KEP-625 (CSI migration).

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use rk_sched::{Profile, simulate::Simulator};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

const SC: &str = "wait";

/// Nodes `a`, `b`, ... with the zones given, and the class `wait`, which waits for a consumer and provides volumes.
fn cluster(zones: &[&str]) -> Simulator {
    let mut cluster = Simulator::new(Profile::kubernetes("default-scheduler"), 1);
    for (number, zone) in zones.iter().enumerate() {
        let name = ["a", "b", "c", "d"][number];
        let mut labels = json!({"kubernetes.io/hostname": name});
        if !zone.is_empty() {
            labels["topology.kubernetes.io/zone"] = (*zone).into();
        }
        cluster.set_node(object(json!({
            "metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}},
        })));
    }
    class(&mut cluster, SC, json!({"provisioner": "x.csi"}));
    cluster
}

fn class(cluster: &mut Simulator, name: &str, change: Value) {
    let mut class = json!({
        "metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    class.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    cluster.snapshot_mut().volumes.set_class(name, Some(Arc::new(object::<StorageClass>(class))));
}

fn claim(cluster: &mut Simulator, name: &str, class: &str, size: &str) {
    claim_with(cluster, name, json!({"storageClassName": class, "resources": {"requests": {"storage": size}}}));
}

fn claim_with(cluster: &mut Simulator, name: &str, spec: Value) {
    let mut claim = json!({
        "metadata": {"namespace": "default", "name": name, "uid": name}, "spec": {"accessModes": ["ReadWriteOnce"]},
    });
    claim["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    set_claim(cluster, name, claim);
}

fn set_claim(cluster: &mut Simulator, name: &str, claim: Value) {
    let claim = Arc::new(object::<PersistentVolumeClaim>(claim));
    cluster.snapshot_mut().volumes.set_claim("default", name, Some(claim));
}

/// A claim of this name that is bound to a volume of the same name.
fn bound(cluster: &mut Simulator, name: &str, labels: Value, spec: Value) {
    let mut volume = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "default", "name": name, "uid": name},
        },
        "status": {"phase": "Bound"},
    });
    volume["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    set_volume(cluster, volume);
    set_claim(
        cluster,
        name,
        json!({
            "metadata": {
                "namespace": "default", "name": name, "uid": name,
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
            },
            "spec": {"volumeName": name, "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound"},
        }),
    );
}

fn set_volume(cluster: &mut Simulator, volume: Value) {
    let volume = object::<PersistentVolume>(volume);
    let name = volume.metadata.name.clone().unwrap();
    cluster.snapshot_mut().volumes.set_volume(&name, Some(Arc::new(volume)));
}

/// An available volume, on one node if its name is given.
fn volume(cluster: &mut Simulator, name: &str, class: &str, size: &str, node: Option<&str>) {
    let affinity = node.map(|node| {
        json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
        ]}]}})
    });
    set_volume(
        cluster,
        json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "nodeAffinity": affinity,
            },
            "status": {"phase": "Available"},
        }),
    );
}

fn csi_node(cluster: &mut Simulator, name: &str, driver: &str, count: Option<i32>, migrated: &str) {
    let node = json!({
        "metadata": {"name": name, "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": migrated}},
        "spec": {"drivers": [{"name": driver, "nodeID": name, "allocatable": {"count": count}}]},
    });
    cluster.snapshot_mut().volumes.set_csi_node(name, Some(&object::<CSINode>(node)));
}

/// A pod of these claims; what follows is merged into its spec.
fn pod(name: &str, claims: &[&str], spec: Value) -> Pod {
    let volume = |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
    let volumes: Vec<Value> = claims.iter().map(volume).collect();
    pod_with(name, json!(volumes), spec)
}

fn pod_with(name: &str, volumes: Value, spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"namespace": "default", "name": name, "uid": name},
        "spec": {"containers": [{"name": "c"}], "volumes": volumes},
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(pod)
}

fn on(node: &str) -> Value {
    json!({"nodeName": node})
}

/// The node of a pod, or why it has none, without what preemption says.
fn place(cluster: &mut Simulator, pod: Pod) -> Result<String, String> {
    let placed = cluster.schedule(pod).map(|node| node.to_string());
    placed.map_err(|refused| refused.to_string().split(" preemption:").next().unwrap_or_default().to_owned())
}

fn refused(reasons: &str, nodes: usize) -> Result<String, String> {
    Err(format!("0/{nodes} nodes are available: {reasons}."))
}

fn placed(node: &str) -> Result<String, String> {
    Ok(node.to_owned())
}

#[test]
fn claims_have_to_be_there_and_usable() {
    let mut cluster = cluster(&["", ""]);
    let own = json!([{"name": "e", "ephemeral": {}}]);
    let said = |cluster: &mut Simulator, pod: Pod| place(cluster, pod).unwrap_err();
    assert_eq!(
        said(&mut cluster, pod("p", &["c"], json!({}))),
        "0/2 nodes are available: persistentvolumeclaim \"c\" not found."
    );
    assert_eq!(
        said(&mut cluster, pod_with("p", own.clone(), json!({}))),
        "0/2 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-e\"."
    );
    claim(&mut cluster, "p-e", SC, "1Gi");
    assert_eq!(
        said(&mut cluster, pod_with("p", own.clone(), json!({}))),
        "0/2 nodes are available: PVC default/p-e was not created for pod default/p (pod is not owner)."
    );
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true}]);
    let owned = json!({
        "metadata": {"namespace": "default", "name": "p-e", "uid": "c", "ownerReferences": owner},
        "spec": {"storageClassName": SC},
    });
    set_claim(&mut cluster, "p-e", owned);
    assert!(place(&mut cluster, pod_with("p", own, json!({}))).is_ok());
    let lost = json!({
        "metadata": {"namespace": "default", "name": "c"}, "spec": {"volumeName": "v"}, "status": {"phase": "Lost"},
    });
    set_claim(&mut cluster, "c", lost);
    assert_eq!(
        said(&mut cluster, pod("q", &["c"], json!({}))),
        "0/2 nodes are available: persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\"."
    );
    let going = json!({"metadata": {"namespace": "default", "name": "c", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    set_claim(&mut cluster, "c", going);
    assert_eq!(
        said(&mut cluster, pod("q", &["c"], json!({}))),
        "0/2 nodes are available: persistentvolumeclaim \"c\" is being deleted."
    );
    // A claim that binds at once, one of no class, and one that names its volume are the controller's.
    class(&mut cluster, "now", json!({"volumeBindingMode": "Immediate"}));
    for spec in [
        json!({"storageClassName": "now"}),
        json!({"storageClassName": "unknown"}),
        json!({}),
        json!({"storageClassName": SC, "volumeName": "v"}),
    ] {
        claim_with(&mut cluster, "c", spec);
        assert_eq!(
            said(&mut cluster, pod("q", &["c"], json!({}))),
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        );
    }
}

#[test]
fn a_bound_volume_decides_where_its_pod_can_be() {
    let mut cluster = cluster(&["", ""]);
    let only = |node: &str| {
        json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
        ]}]}}})
    };
    bound(&mut cluster, "free", json!({}), json!({}));
    bound(&mut cluster, "at-b", json!({}), only("b"));
    bound(&mut cluster, "nowhere", json!({}), only("z"));
    assert!(place(&mut cluster, pod("1", &["free"], json!({}))).is_ok());
    assert_eq!(place(&mut cluster, pod("2", &["free", "at-b"], json!({}))), placed("b"));
    assert_eq!(
        place(&mut cluster, pod("3", &["at-b", "nowhere"], json!({}))),
        refused("2 node(s) didn't match PersistentVolume's node affinity", 2)
    );
    cluster.snapshot_mut().volumes.set_volume("free", None);
    assert_eq!(
        place(&mut cluster, pod("4", &["free", "at-b"], json!({}))),
        Err("0/2 nodes are available: persistentvolume \"free\" not found.".to_owned())
    );
    let without_zones = Profile::kubernetes("default-scheduler").without("VolumeZone");
    let mut other = Simulator::new(without_zones, 1);
    other.set_node(object(json!({
        "metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}},
    })));
    bound(&mut other, "free", json!({}), json!({}));
    other.snapshot_mut().volumes.set_volume("free", None);
    assert_eq!(
        place(&mut other, pod("4", &["free"], json!({}))),
        refused("1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)", 1)
    );
}

#[test]
fn waiting_claims_go_where_a_volume_is() {
    const NONE: &str = "node(s) didn't find available persistent volumes to bind";
    let mut cluster = cluster(&["", "", ""]);
    class(&mut cluster, "local", json!({}));
    claim(&mut cluster, "c", "local", "5Gi");
    claim(&mut cluster, "d", "local", "5Gi");
    assert_eq!(place(&mut cluster, pod("1", &["c"], json!({}))), refused(&format!("3 {NONE}"), 3));
    volume(&mut cluster, "small", "local", "4Gi", Some("a"));
    volume(&mut cluster, "other", "other", "9Gi", Some("a"));
    assert_eq!(place(&mut cluster, pod("1", &["c"], json!({}))), refused(&format!("3 {NONE}"), 3));
    volume(&mut cluster, "at-b", "local", "6Gi", Some("b"));
    assert_eq!(place(&mut cluster, pod("1", &["c"], json!({}))), placed("b"));
    // Two claims want two volumes of one node.
    assert_eq!(place(&mut cluster, pod("2", &["c", "d"], json!({}))), refused(&format!("3 {NONE}"), 3));
    volume(&mut cluster, "at-c", "local", "6Gi", Some("c"));
    volume(&mut cluster, "at-c-too", "local", "6Gi", Some("c"));
    claim(&mut cluster, "e", "local", "5Gi");
    claim(&mut cluster, "f", "local", "5Gi");
    assert_eq!(place(&mut cluster, pod("3", &["e", "f"], json!({}))), placed("c"));
    // A volume kept for the claim is taken, or none.
    claim(&mut cluster, "kept", "local", "5Gi");
    set_volume(
        &mut cluster,
        json!({
            "metadata": {"name": "kept"},
            "spec": {
                "capacity": {"storage": "50Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "claimRef": {"namespace": "default", "name": "kept"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]},
                ]}]}},
            },
            "status": {"phase": "Available"},
        }),
    );
    assert_eq!(place(&mut cluster, pod("4", &["kept"], json!({}))), placed("a"));
}

#[test]
fn volumes_are_provided_where_the_class_allows_and_there_is_room() {
    let mut cluster = cluster(&["x", "y", "y"]);
    let topologies = json!([{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["y"]}]}]);
    class(&mut cluster, "in-y", json!({"provisioner": "x.csi", "allowedTopologies": topologies}));
    for name in ["1", "2", "3", "4"] {
        claim(&mut cluster, name, "in-y", "5Gi");
    }
    let only_a = json!({"nodeSelector": {"kubernetes.io/hostname": "a"}});
    let said = place(&mut cluster, pod("1", &["1"], only_a)).unwrap_err();
    assert!(said.contains("1 node(s) didn't find available persistent volumes to bind"), "{said}");
    assert_ne!(place(&mut cluster, pod("2", &["2"], json!({}))), placed("a"));
    // The driver tells of its room.
    let driver = json!({"metadata": {"name": "x.csi"}, "spec": {"storageCapacity": true}});
    cluster.snapshot_mut().volumes.set_csi_driver("x.csi", Some(&object::<CSIDriver>(driver)));
    assert_eq!(
        place(&mut cluster, pod("3", &["3"], json!({}))),
        refused(
            "1 node(s) didn't find available persistent volumes to bind, 2 node(s) did not have enough free storage",
            3
        )
    );
    let capacity = |name: &str, node: &str, capacity: &str, largest: Option<&str>| {
        object::<CSIStorageCapacity>(json!({
            "metadata": {"namespace": "default", "name": name}, "storageClassName": "in-y", "capacity": capacity,
            "maximumVolumeSize": largest, "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": node}},
        }))
    };
    let volumes = &mut cluster.snapshot_mut().volumes;
    volumes.set_capacity("default", "b", Some(&capacity("b", "b", "9Gi", Some("4Gi"))));
    volumes.set_capacity("default", "c", Some(&capacity("c", "c", "5Gi", None)));
    assert_eq!(place(&mut cluster, pod("4", &["4"], json!({}))), placed("c"));
    // A node was chosen for it.
    let chosen = json!({
        "metadata": {
            "namespace": "default", "name": "c", "uid": "c",
            "annotations": {"volume.kubernetes.io/selected-node": "b"},
        },
        "spec": {"storageClassName": SC, "resources": {"requests": {"storage": "1Ki"}}},
    });
    set_claim(&mut cluster, "c", chosen);
    cluster.snapshot_mut().volumes.set_csi_driver("x.csi", None);
    assert_eq!(place(&mut cluster, pod("5", &["c"], json!({}))), placed("b"));
}

#[test]
fn pods_are_in_the_zones_of_their_volumes() {
    const NO_ZONE: &str = "node(s) had no available volume zone";
    let mut cluster = cluster(&["x", "y", ""]);
    let elsewhere = json!({"nodeSelector": {"kubernetes.io/hostname": "a"}});
    bound(&mut cluster, "y", json!({"failure-domain.beta.kubernetes.io/zone": "y"}), json!({}));
    bound(&mut cluster, "xy", json!({"topology.kubernetes.io/zone": "x__y"}), json!({}));
    bound(&mut cluster, "r", json!({"topology.kubernetes.io/region": "r"}), json!({}));
    let said = place(&mut cluster, pod("1", &["y"], elsewhere.clone())).unwrap_err();
    assert!(said.contains(&format!("1 {NO_ZONE}")), "{said}");
    assert_eq!(place(&mut cluster, pod("2", &["xy"], elsewhere)), placed("a"));
    // Zones but no region, and neither: only the last may be anywhere.
    assert_eq!(place(&mut cluster, pod("3", &["r"], json!({}))), placed("c"));
}

#[test]
fn a_node_takes_as_many_volumes_as_its_driver_says() {
    const FULL: &str = "node(s) exceed max volume count";
    let mut cluster = cluster(&["", ""]);
    csi_node(&mut cluster, "a", "x.csi", Some(2), "");
    csi_node(&mut cluster, "b", "x.csi", Some(0), "");
    for name in ["1", "2", "3", "4"] {
        bound(&mut cluster, name, json!({}), json!({"csi": {"driver": "x.csi", "volumeHandle": name}}));
    }
    bound(&mut cluster, "other", json!({}), json!({"csi": {"driver": "y.csi", "volumeHandle": "1"}}));
    claim(&mut cluster, "new", SC, "1Gi");
    let full = || refused(&format!("2 {FULL}"), 2);
    assert_eq!(place(&mut cluster, pod("three", &["1", "2", "3"], json!({}))), full());
    assert_eq!(place(&mut cluster, pod("two", &["1", "2"], json!({}))), placed("a"));
    // What another pod uses there costs nothing more; other drivers have their own counts; a claim without a volume counts for its
    // class's driver.
    assert_eq!(place(&mut cluster, pod("shared", &["2"], json!({}))), placed("a"));
    assert!(place(&mut cluster, pod("else", &["other"], json!({}))).is_ok());
    assert_eq!(place(&mut cluster, pod("third", &["3"], json!({}))), full());
    assert_eq!(place(&mut cluster, pod("new", &["new"], json!({}))), full());
    cluster.remove_pod("two");
    assert_eq!(place(&mut cluster, pod("third", &["3"], json!({}))), placed("a"));
    // What is attached counts though no pod uses it.
    cluster.remove_pod("third");
    let attachment = json!({
        "metadata": {"name": "at"},
        "spec": {"attacher": "x.csi", "nodeName": "a", "source": {"persistentVolumeName": "3"}},
    });
    cluster.snapshot_mut().volumes.set_attachment("at", Some(&object::<VolumeAttachment>(attachment)));
    assert_eq!(place(&mut cluster, pod("fourth", &["4"], json!({}))), full());
    cluster.snapshot_mut().volumes.set_attachment("at", None);
    assert_eq!(place(&mut cluster, pod("fourth", &["4"], json!({}))), placed("a"));
    // Less important pods make room.
    let important = json!({"priority": 5});
    assert_eq!(place(&mut cluster, pod("important", &["3"], important)), placed("a"));
    assert_eq!(cluster.take_evicted().len(), 1);
    // No count and no CSINode are no limit.
    csi_node(&mut cluster, "b", "x.csi", None, "");
    assert_eq!(place(&mut cluster, pod("free", &["1", "2", "3", "4"], json!({}))), placed("b"));
}

#[test]
fn in_tree_volumes_count_where_there_are_csi_drivers() {
    let mut cluster = cluster(&["", ""]);
    // The annotation of what is migrated says nothing of limits any more; node b has no CSINode.
    csi_node(&mut cluster, "a", "ebs.csi.aws.com", Some(1), "");
    let ebs = |id: &str| json!({"awsElasticBlockStore": {"volumeID": id}});
    bound(&mut cluster, "1", json!({}), ebs("aws://zone/1"));
    bound(&mut cluster, "2", json!({}), ebs("2"));
    bound(&mut cluster, "3", json!({}), ebs("3"));
    bound(&mut cluster, "csi-1", json!({}), json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "1"}}));
    cluster.schedule(pod("there", &["1"], on("a"))).unwrap();
    assert_eq!(place(&mut cluster, pod("two", &["2", "3"], json!({}))), placed("b"));
    let at_a = json!({"nodeSelector": {"kubernetes.io/hostname": "a"}});
    let said = place(&mut cluster, pod("one", &["2"], at_a.clone())).unwrap_err();
    assert!(said.contains("1 node(s) exceed max volume count"), "{said}");
    let inline = json!([{"name": "v", "awsElasticBlockStore": {"volumeID": "9"}}]);
    let said = place(&mut cluster, pod_with("inline", inline, at_a.clone())).unwrap_err();
    assert!(said.contains("1 node(s) exceed max volume count"), "{said}");
    // The same volume by both names.
    assert_eq!(place(&mut cluster, pod("same", &["csi-1"], at_a)), placed("a"));
}

#[test]
fn a_disk_is_one_pods_on_a_node_unless_all_only_read_it() {
    let disks = |kind: &str, reads: bool| match kind {
        "gce" => json!([{"name": "v", "gcePersistentDisk": {"pdName": "d", "readOnly": reads}}]),
        "aws" => json!([{"name": "v", "awsElasticBlockStore": {"volumeID": "d", "readOnly": reads}}]),
        "iscsi" => json!([{"name": "v", "iscsi": {
            "targetPortal": "t", "iqn": "i", "lun": 0, "readOnly": reads,
        }}]),
        "rbd" => json!([{"name": "v", "rbd": {"monitors": ["m", "n"], "image": "i", "readOnly": reads}}]),
        _ => json!([{"name": "v", "rbd": {"monitors": ["o"], "image": "i", "readOnly": reads}}]),
    };
    for (kind, held, wanted, fits) in [
        ("gce", false, false, false),
        ("gce", true, false, false),
        ("gce", true, true, true),
        ("aws", true, true, false),
        ("iscsi", false, true, false),
        ("iscsi", true, true, true),
        ("rbd", false, false, false),
        ("rbd", true, true, true),
        ("other monitors", false, false, true),
    ] {
        let mut cluster = cluster(&[""]);
        let first = if kind == "other monitors" { "rbd" } else { kind };
        cluster.schedule(pod_with("there", disks(first, held), on("a"))).unwrap();
        let said = place(&mut cluster, pod_with("new", disks(kind, wanted), json!({})));
        let expected = if fits { placed("a") } else { refused("1 node(s) had no available disk", 1) };
        assert_eq!(said, expected, "{kind}, {held}, {wanted}");
    }
}

#[test]
fn a_claim_for_one_pod_is_one_pods() {
    let mut cluster = cluster(&["", ""]);
    claim_with(&mut cluster, "c", json!({"accessModes": ["ReadWriteOncePod"], "storageClassName": SC}));
    assert!(place(&mut cluster, pod("first", &["c"], json!({"priority": 1}))).is_ok());
    assert_eq!(
        place(&mut cluster, pod("second", &["c"], json!({"priority": 1}))),
        refused(
            "2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by \
             another pod",
            2
        )
    );
    // A more important pod takes it from the other, on the other's node.
    assert!(place(&mut cluster, pod("third", &["c"], json!({"priority": 2}))).is_ok());
    let evicted: Vec<String> = cluster.take_evicted().iter().map(|pod| pod.name.to_string()).collect();
    assert_eq!(evicted, ["first"]);
    cluster.remove_pod("third");
    assert!(place(&mut cluster, pod("fourth", &["c"], json!({}))).is_ok());
}
