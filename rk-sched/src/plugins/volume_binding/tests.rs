//! The volume that is found for a claim, against a naive search through all volumes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{PodClaims, VolumeBinding};
use crate::{
    framework::{CycleState, Filter, PreFilter, Reserve},
    model::{NodeInfo, PodInfo, Snapshot},
};

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// What a random volume is made of: size, where it can be used, and what may be in a claim's way.
type Parts = (i64, u8, u8);

fn volume(number: usize, (size, place, flaw): Parts) -> PersistentVolume {
    let term = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let terms = match place % 6 {
        0 => None,
        1 => Some(vec![term("kubernetes.io/hostname", "In", &["n0"])]),
        2 => Some(vec![term("kubernetes.io/hostname", "In", &["n1", "n2"])]),
        3 => Some(vec![term("zone", "In", &["b"]), term("kubernetes.io/hostname", "In", &["n0"])]),
        4 => Some(vec![term("zone", "NotIn", &["a"])]),
        _ => Some(Vec::new()),
    };
    let mut volume = json!({
        "metadata": {"name": format!("v{number:02}"), "labels": {"disk": "ssd"}},
        "spec": {
            "capacity": {"storage": format!("{size}Gi")}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "storageClassName": "local",
        },
        "status": {"phase": "Available"},
    });
    if let Some(terms) = terms {
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": terms}});
    }
    match flaw {
        0 => volume["status"]["phase"] = "Released".into(),
        1 => volume["spec"]["storageClassName"] = "other".into(),
        2 => volume["spec"]["accessModes"] = json!(["ReadOnlyMany"]),
        3 => volume["spec"]["volumeMode"] = "Block".into(),
        4 => volume["metadata"]["labels"] = json!({"disk": "hdd"}),
        5 => volume["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
        6 => volume["spec"]["claimRef"] = json!({"namespace": "d", "name": "another"}),
        7 => volume["spec"]["claimRef"] = json!({"namespace": "d", "name": "c"}),
        _ => {}
    }
    object(volume)
}

fn claim() -> PersistentVolumeClaim {
    object(json!({
        "metadata": {"namespace": "d", "name": "c", "uid": "u"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": {"storage": "3Gi"}},
            "selector": {"matchLabels": {"disk": "ssd"}},
        },
    }))
}

fn node(number: usize) -> NodeInfo {
    let zone = ["a", "b", "b"][number];
    let name = format!("n{number}");
    NodeInfo::new(Arc::new(object(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": zone}},
    }))))
}

/// The volume that Kubernetes' rules choose, by looking at each.
fn naive(volumes: &[Parts], node: usize) -> Option<usize> {
    let usable = |place: u8| match place % 6 {
        0 => true,
        1 => node == 0,
        2 => node > 0,
        3 => true,
        4 => node > 0,
        _ => false,
    };
    let all = || volumes.iter().enumerate().filter(|(_, (size, ..))| *size >= 3);
    if let Some((number, (_, place, _))) = all().find(|(_, (_, _, flaw))| *flaw == 7) {
        return usable(*place).then_some(number);
    }
    let fit = all().filter(|(_, (_, place, flaw))| *flaw > 7 && usable(*place));
    fit.min_by_key(|(number, (size, ..))| (*size, *number)).map(|(number, _)| number)
}

fn pod(name: &str) -> Arc<PodInfo> {
    let pod: Pod = object(json!({
        "metadata": {"namespace": "d", "name": name, "uid": name},
        "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
    }));
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn cluster(volumes: &[Parts]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (number, parts) in volumes.iter().enumerate() {
        let volume = volume(number, *parts);
        let name = volume.metadata.name.clone().unwrap();
        snapshot.volumes.set_volume(&name, Some(Arc::new(volume)));
    }
    snapshot.volumes.set_claim("d", "c", Some(Arc::new(claim())));
    let class = json!({
        "metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    snapshot.volumes.set_class("local", Some(Arc::new(object(class))));
    snapshot
}

proptest! {
    #[test]
    fn the_smallest_volume_that_will_do_is_found(
        volumes in proptest::collection::vec((1_i64..8, 0_u8..6, 0_u8..24), 0..14),
    ) {
        let snapshot = cluster(&volumes);
        let plugin = VolumeBinding::default();
        let pod = pod("p");
        let mut state = CycleState::default();
        plugin.pre_filter(&mut state, &pod, &snapshot).unwrap();
        for number in 0..3 {
            let node = node(number);
            let status = plugin.filter(&state, &pod, &node);
            let claims = state.get::<PodClaims>().unwrap();
            let found = claims.found.lock().get(&node.name).and_then(|found| found.volumes.first().cloned());
            let expected = naive(&volumes, number).map(|number| format!("v{number:02}"));
            prop_assert_eq!(found.map(|(_, volume)| volume.name.to_string()), expected.clone());
            prop_assert_eq!(status.is_success(), expected.is_some());
            if !status.is_success() {
                prop_assert_eq!(status.message(), "node(s) didn't find available persistent volumes to bind");
            }
        }
    }
}

#[test]
fn a_reserved_volume_is_no_other_claims_until_it_is_given_back() {
    let mut snapshot = cluster(&[(3, 0, 9)]);
    let mut second = claim();
    second.metadata.name = Some("c2".to_owned());
    second.metadata.uid = Some("u2".to_owned());
    snapshot.volumes.set_claim("d", "c2", Some(Arc::new(second)));
    let plugin = VolumeBinding::default();
    let node = node(0);
    let begin = |pod: &PodInfo| {
        let mut state = CycleState::default();
        plugin.pre_filter(&mut state, pod, &snapshot).unwrap();
        let status = plugin.filter(&state, pod, &node);
        (state, status.is_success())
    };
    let other: Pod = object(json!({
        "metadata": {"namespace": "d", "name": "q", "uid": "q"},
        "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c2"}}]},
    }));
    let (first, sharing, other) = (pod("p"), pod("p2"), PodInfo::new(Arc::new(other)));
    // Both were filtered before one of them is reserved: the second one is too late.
    let (mut state, (mut late, fits)) = (begin(&first).0, begin(&other));
    assert!(fits);
    assert!(plugin.reserve(&mut state, &first, "n0").is_success());
    assert!(!plugin.reserve(&mut late, &other, "n0").is_success());
    assert!(!begin(&other).1);
    // A pod that shares the claim takes what is promised to it, and gives nothing back of it.
    let (mut shared, fits) = begin(&sharing);
    assert!(fits && plugin.reserve(&mut shared, &sharing, "n0").is_success());
    plugin.unreserve(&shared, &sharing, "n0");
    assert!(!begin(&other).1);
    plugin.unreserve(&state, &first, "n0");
    assert!(begin(&other).1);
}
