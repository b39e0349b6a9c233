use serde_json::{Value, json};

use super::*;

fn object<K: serde::de::DeserializeOwned>(json: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(json).unwrap())
}

fn claim(version: &str, device: Option<&str>) -> Arc<ResourceClaim> {
    let results = device.map(|device| json!([{"request": "r", "driver": "d", "pool": "p", "device": device}]));
    object(json!({
        "metadata": {"name": "c", "namespace": "default", "uid": "u", "resourceVersion": version},
        "spec": {},
        "status": results.map(|results| json!({"allocation": {"devices": {"results": results}}})),
    }))
}

fn allocation(device: &str) -> AllocationResult {
    allocation_of(&claim("0", Some(device))).unwrap().clone()
}

fn uses(devices: &Devices, device: &str) -> u32 {
    devices.unavailable().of(&PoolId::new("d", "p"), device).map_or(0, |of| of.exclusive)
}

#[test]
fn a_device_is_taken_from_when_it_is_chosen_until_it_is_given_back() {
    let mut devices = Devices::default();
    let unallocated = claim("1", None);
    devices.set_claim("default", "c", Some(Arc::clone(&unallocated)));
    assert!(devices.in_flight().choose(&unallocated, allocation("x")));
    assert!(!devices.in_flight().choose(&unallocated, allocation("y")), "one allocation at a time");
    assert_eq!((uses(&devices, "x"), devices.in_flight().is_pending("u")), (1, true));
    // Written, and heard of after that, or before.
    for heard_first in [false, true] {
        let mut devices = Devices::default();
        devices.set_claim("default", "c", Some(Arc::clone(&unallocated)));
        devices.in_flight().choose(&unallocated, allocation("x"));
        let written = claim("2", Some("x"));
        if heard_first {
            devices.set_claim("default", "c", Some(Arc::clone(&written)));
            assert_eq!(uses(&devices, "x"), 1, "not counted twice");
        }
        devices.in_flight().write(Arc::clone(&written));
        assert_eq!(uses(&devices, "x"), 1);
        assert!(allocation_of(&devices.newest_claim("default", "c").unwrap()).is_some());
        devices.set_claim("default", "c", Some(written));
        assert_eq!(uses(&devices, "x"), 1);
        // Somebody deallocates it.
        devices.set_claim("default", "c", Some(claim("3", None)));
        assert_eq!(uses(&devices, "x"), 0);
        assert!(allocation_of(&devices.newest_claim("default", "c").unwrap()).is_none());
        devices.set_claim("default", "c", None);
        assert_eq!(*devices.unavailable(), Taken::default());
    }
    devices.in_flight().forget("u");
    assert_eq!(uses(&devices, "x"), 0);
}

#[test]
fn what_was_written_to_a_claim_that_is_gone_is_free() {
    let mut devices = Devices::default();
    devices.set_claim("default", "c", Some(claim("1", None)));
    devices.in_flight().write(claim("2", Some("x")));
    assert_eq!(uses(&devices, "x"), 1);
    devices.set_claim("default", "c", None);
    assert_eq!(uses(&devices, "x"), 0);
}

#[test]
fn slices_come_and_go_with_their_pools() {
    let slice = |node: &str, generation: i64, devices: Value| -> Arc<ResourceSlice> {
        object(json!({"metadata": {"name": "s"}, "spec": {
            "driver": "d", "nodeName": node, "devices": devices,
            "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
        }}))
    };
    let none = std::collections::BTreeMap::new();
    let on = |devices: &Devices, node: &str| {
        let names = |(_, found): (&Arc<Pool>, Vec<(&Arc<Slice>, usize)>)| {
            found.into_iter().map(|(slice, at)| slice.devices[at].name.to_string()).collect::<Vec<_>>()
        };
        devices.pools().on_node(node, &none).flat_map(names).collect::<Vec<_>>()
    };
    let mut devices = Devices::default();
    devices.set_slice("s", Some(slice("n", 1, json!([{"name": "x"}]))));
    assert_eq!((on(&devices, "n"), on(&devices, "m")), (vec!["x".to_owned()], Vec::new()));
    devices.set_slice("s", Some(slice("m", 2, json!([{"name": "y"}]))));
    assert_eq!((on(&devices, "n"), on(&devices, "m")), (Vec::new(), vec!["y".to_owned()]));
    devices.set_slice("s", None);
    assert!(on(&devices, "m").is_empty() && devices.pools().pool(&PoolId::new("d", "p")).is_none());
}

#[test]
fn the_newer_claim_for_extended_resources_is_known_when_the_older_one_is_gone() {
    let made = |name: &str| -> Arc<ResourceClaim> {
        object(json!({"spec": {}, "metadata": {
            "name": name, "namespace": "default", "uid": name, "annotations": {CLAIM_ANNOTATION: "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod", "controller": true}],
        }}))
    };
    let mut devices = Devices::default();
    let known = |devices: &Devices| devices.extended_claim("pod").and_then(|claim| claim.metadata.name.clone());
    for name in ["old", "new"] {
        devices.set_claim("default", name, Some(made(name)));
    }
    devices.set_claim("default", "old", None);
    assert_eq!(known(&devices).as_deref(), Some("new"));
    devices.set_claim("default", "new", None);
    assert_eq!(known(&devices), None);
}
