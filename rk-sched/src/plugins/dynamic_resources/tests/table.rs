//! Cases of the documentation (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>, the API reference of
//! `resource.k8s.io/v1`, and the KEPs named at each).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{DRIVER, Lab, Outcome, shown};

/// A device with attributes.
fn device(name: &str, attributes: Value) -> Value {
    json!({"name": name, "attributes": attributes})
}

fn exactly(name: &str, class: &str, more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": class});
    for (key, value) in more.as_object().unwrap() {
        exactly[key] = value.clone();
    }
    json!({"name": name, "exactly": exactly})
}

/// Two gpus of NUMA node 0, one of NUMA node 1, and a nic of each.
fn mixed() -> Value {
    let of = |name: &str, kind: &str, numa: i64| {
        device(name, json!({"type": {"string": kind}, "example.com/numa": {"int": numa}}))
    };
    json!([
        of("gpu-0", "gpu", 0),
        of("gpu-1", "gpu", 1),
        of("gpu-2", "gpu", 0),
        of("nic-0", "nic", 0),
        of("nic-1", "nic", 1)
    ])
}

/// What a claim of these requests and constraints gets of the devices.
fn allocate(devices: Value, claim: Value) -> Result<Vec<String>, String> {
    let mut lab = Lab::new();
    lab.slice("n", json!({"devices": devices}));
    let claim = lab.claim("c", claim);
    match lab.search(&[claim], "n")? {
        Outcome::Allocated(allocations) => Ok(shown(&allocations)),
        Outcome::Refused(why) => Err(why),
    }
}

const NONE: &str = "cannot allocate all claims";

/// The devices by request, or why there are none.
type Expected = Result<&'static [&'static str], &'static str>;

#[test]
fn requests_get_the_first_devices_that_satisfy_all() {
    let nic = json!({"selectors": [{"cel": {"expression": format!("device.attributes['{DRIVER}'].type == 'nic'")}}]});
    let numa = json!([{"matchAttribute": "example.com/numa"}]);
    let cases: Vec<(&str, Value, Expected)> = vec![
        ("a class selects", json!({"requests": [exactly("r", "gpu", json!({}))]}), Ok(&["r=gpu-0"])),
        ("a request's selector narrows", json!({"requests": [exactly("r", "any", nic.clone())]}), Ok(&["r=nic-0"])),
        ("class and request must both select", json!({"requests": [exactly("r", "gpu", nic.clone())]}), Err(NONE)),
        (
            "several devices",
            json!({"requests": [exactly("r", "gpu", json!({"count": 3}))]}),
            Ok(&["r=gpu-0", "r=gpu-1", "r=gpu-2"]),
        ),
        ("more than there are", json!({"requests": [exactly("r", "gpu", json!({"count": 4}))]}), Err(NONE)),
        (
            "all",
            json!({"requests": [exactly("r", "gpu", json!({"allocationMode": "All"}))]}),
            Ok(&["r=gpu-0", "r=gpu-1", "r=gpu-2"]),
        ),
        (
            "all and then one more",
            json!({"requests": [exactly("a", "gpu", json!({"allocationMode": "All"})), exactly("b", "gpu", json!({}))]}),
            Err(NONE),
        ),
        (
            "two requests share no device",
            json!({"requests": [exactly("a", "gpu", json!({})), exactly("b", "gpu", json!({}))]}),
            Ok(&["a=gpu-0", "b=gpu-1"]),
        ),
        (
            "an attribute that is the same",
            json!({"requests": [exactly("r", "gpu", json!({"count": 2}))], "constraints": numa}),
            Ok(&["r=gpu-0", "r=gpu-2"]),
        ),
        (
            "over several requests",
            json!({
                "requests": [exactly("g", "gpu", json!({})), exactly("n", "any", nic.clone())],
                "constraints": numa,
            }),
            Ok(&["g=gpu-0", "n=nic-0"]),
        ),
        (
            "the same for too many",
            json!({"requests": [exactly("r", "gpu", json!({"count": 3}))], "constraints": numa}),
            Err(NONE),
        ),
        (
            "a constraint of other requests does not count",
            json!({
                "requests": [exactly("r", "gpu", json!({"count": 3})), exactly("n", "any", nic.clone())],
                "constraints": [{"matchAttribute": "example.com/numa", "requests": ["n"]}],
            }),
            Ok(&["r=gpu-0", "r=gpu-1", "r=gpu-2", "n=nic-0"]),
        ),
        (
            "an attribute that differs",
            json!({
                "requests": [exactly("r", "gpu", json!({"count": 2}))],
                "constraints": [{"distinctAttribute": "example.com/numa"}],
            }),
            Ok(&["r=gpu-0", "r=gpu-1"]),
        ),
        (
            "an attribute that no device has",
            json!({
                "requests": [exactly("r", "gpu", json!({}))],
                "constraints": [{"matchAttribute": "example.com/none"}],
            }),
            Err(NONE),
        ),
        (
            "a name without domain is the driver's",
            json!({
                "requests": [exactly("r", "any", json!({"count": 2}))],
                "constraints": [{"matchAttribute": format!("{DRIVER}/type")}],
            }),
            Ok(&["r=gpu-0", "r=gpu-1"]),
        ),
        (
            "the first of alternatives (KEP-4816)",
            json!({"requests": [{"name": "r", "firstAvailable": [
                {"name": "two", "deviceClassName": "gpu", "count": 2}, {"name": "one", "deviceClassName": "gpu"},
            ]}]}),
            Ok(&["r/two=gpu-0", "r/two=gpu-1"]),
        ),
        (
            "the second, where the first can't be had with the rest",
            json!({"requests": [
                {"name": "r", "firstAvailable": [
                    {"name": "three", "deviceClassName": "gpu", "count": 3}, {"name": "one", "deviceClassName": "gpu"},
                ]},
                exactly("s", "gpu", json!({"count": 2})),
            ]}),
            Ok(&["r/one=gpu-0", "s=gpu-1", "s=gpu-2"]),
        ),
        (
            "a missing class",
            json!({"requests": [exactly("r", "none", json!({}))]}),
            Err("request r: device class none does not exist"),
        ),
        (
            "more devices than a claim may have",
            json!({"requests": [exactly("r", "any", json!({"count": 20})), exactly("s", "any", json!({"count": 13}))]}),
            Err("claim default/c: number of requested devices 33 exceeds the claim limit of 32"),
        ),
        ("nothing", json!({}), Ok(&[])),
    ];
    for (case, claim, expected) in cases {
        let found = allocate(mixed(), claim);
        let found = found.as_ref().map(|devices| devices.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found.as_deref().map_err(|why| why.as_str()), expected, "{case}");
    }
}

#[test]
fn expressions_that_fail_say_where() {
    let failing = json!({"selectors": [{"cel": {"expression": format!("device.attributes['{DRIVER}'].none == 1")}}]});
    assert_eq!(
        allocate(mixed(), json!({"requests": [exactly("r", "any", failing)]})),
        Err("claim default/c: selector #0: CEL runtime error: no such key: none".to_owned())
    );
    let wrong = json!({"selectors": [{"cel": {"expression": "device.driver"}}]});
    let said = allocate(mixed(), json!({"requests": [exactly("r", "any", wrong)]})).unwrap_err();
    assert!(said.starts_with("claim default/c: selector #0: CEL compile error: must evaluate to bool"), "{said}");
}

/// KEP-5055.
#[test]
fn tainted_devices_need_tolerations() {
    let devices = |effect: &str| json!([{"name": "bad", "taints": [{"key": "k", "value": "v", "effect": effect}]}, {"name": "good"}]);
    let request = |tolerations: Value| json!({"requests": [exactly("r", "any", json!({"tolerations": tolerations}))]});
    let none = json!([]);
    for (effect, tolerations, expected) in [
        ("NoSchedule", none.clone(), "good"),
        ("NoExecute", none.clone(), "good"),
        ("None", none, "bad"),
        ("NoSchedule", json!([{"key": "k", "operator": "Exists"}]), "bad"),
        ("NoSchedule", json!([{"operator": "Exists"}]), "bad"),
        ("NoSchedule", json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]), "bad"),
        ("NoSchedule", json!([{"key": "k", "value": "w"}]), "good"),
        ("NoExecute", json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]), "good"),
    ] {
        let found = allocate(devices(effect), request(tolerations.clone()));
        assert_eq!(found, Ok(vec![format!("r={expected}")]), "{effect} {tolerations}");
    }
    let all = json!({"requests": [exactly("r", "any", json!({"allocationMode": "All"}))]});
    assert_eq!(allocate(devices("NoSchedule"), all), Err(NONE.to_owned()), "all includes those that can't be had");
}

/// KEP-5018: administrative access takes nothing and is stopped by nothing.
#[test]
fn administrators_see_devices_in_use() {
    let mut lab = Lab::new();
    lab.slice("n", json!({"devices": [{"name": "d"}]}));
    let user = lab.claim("user", json!({"requests": [exactly("r", "any", json!({}))]}));
    let admin = json!({"requests": [exactly("a", "any", json!({"allocationMode": "All", "adminAccess": true}))]});
    let admin = lab.claim("admin", admin);
    let Outcome::Allocated(one) = lab.search(std::slice::from_ref(&user), "n").unwrap() else { panic!("it is free") };
    lab.allocate(&user, one[0].clone());
    let Outcome::Allocated(watched) = lab.search(std::slice::from_ref(&admin), "n").unwrap() else {
        panic!("as admin")
    };
    assert_eq!(watched[0].devices.as_ref().unwrap().results.as_ref().unwrap()[0].admin_access, Some(true));
    lab.allocate(&admin, watched[0].clone());
    let other = lab.claim("other", json!({"requests": [exactly("r", "any", json!({}))]}));
    assert_eq!(lab.search(std::slice::from_ref(&other), "n"), Ok(Outcome::Refused(NONE.to_owned())));
    lab.devices.set_claim("default", "user", None);
    assert!(matches!(lab.search(&[other], "n"), Ok(Outcome::Allocated(_))), "the administrator does not hold it");
}

/// KEP-4815: partitions of a device share its counters, on whichever node they are.
#[test]
fn partitions_take_from_their_counters() {
    let mut lab = Lab::new();
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    let counters = json!([{"name": "gpu", "counters": {"memory": {"value": "8Gi"}}}]);
    lab.slice("n", json!({"pool": pool, "sharedCounters": counters}));
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "gpu", "counters": {"memory": {"value": memory}}}]});
    let devices = json!([part("six", "6Gi"), part("two", "2Gi"), part("other-two", "2Gi")]);
    lab.slice("n", json!({"pool": pool, "devices": devices}));
    let claim = |lab: &mut Lab, name: &str, count: i64| {
        lab.claim(name, json!({"requests": [exactly("r", "any", json!({"count": count}))]}))
    };
    let pair = claim(&mut lab, "pair", 2);
    let Outcome::Allocated(found) = lab.search(std::slice::from_ref(&pair), "n").unwrap() else {
        panic!("six and two")
    };
    assert_eq!(shown(&found), ["r=six", "r=two"]);
    let three = claim(&mut lab, "three", 3);
    assert_eq!(lab.search(&[three], "n"), Ok(Outcome::Refused(NONE.to_owned())), "ten are more than eight");
    lab.allocate(&pair, found[0].clone());
    let late = claim(&mut lab, "late", 1);
    assert_eq!(lab.search(&[late], "n"), Ok(Outcome::Refused(NONE.to_owned())), "nothing is left");
}

/// KEP-5075.
#[test]
fn shared_devices_are_given_until_their_capacity_is_used_up() {
    let mut lab = Lab::new();
    let capacity = json!({"memory": {"value": "10Gi", "requestPolicy": {
        "default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi"},
    }}});
    lab.slice("n", json!({"devices": [{"name": "d", "allowMultipleAllocations": true, "capacity": capacity}]}));
    let wish = |lab: &mut Lab, name: &str, memory: &str| {
        let capacity = json!({"requests": {"memory": memory}});
        lab.claim(name, json!({"requests": [exactly("r", "any", json!({"capacity": capacity}))]}))
    };
    let first = wish(&mut lab, "first", "5500Mi");
    let Outcome::Allocated(found) = lab.search(std::slice::from_ref(&first), "n").unwrap() else {
        panic!("it is free")
    };
    let result = &found[0].devices.as_ref().unwrap().results.as_ref().unwrap()[0];
    assert_eq!(result.consumed_capacity.as_ref().unwrap()["memory"].0, "6Gi", "rounded up to a step");
    assert!(result.share_id.is_some());
    lab.allocate(&first, found[0].clone());
    let large = wish(&mut lab, "large", "5Gi");
    assert_eq!(lab.search(&[large], "n"), Ok(Outcome::Refused(NONE.to_owned())));
    let exact = wish(&mut lab, "exact", "4Gi");
    assert!(matches!(lab.search(&[exact], "n"), Ok(Outcome::Allocated(_))));
    let none = lab.claim("none", json!({"requests": [exactly("r", "any", json!({"count": 4}))]}));
    assert!(matches!(lab.search(&[none], "n"), Ok(Outcome::Allocated(_))), "four shares of the default");
    let unknown = json!({"capacity": {"requests": {"cores": "1"}}});
    let unknown = lab.claim("unknown", json!({"requests": [exactly("r", "any", unknown)]}));
    assert_eq!(lab.search(&[unknown], "n"), Ok(Outcome::Refused(NONE.to_owned())));
}

/// What the API reference says of `capacity` where all devices are asked for.
#[test]
fn all_devices_are_those_that_have_enough_of_a_capacity() {
    let mut lab = Lab::new();
    let sized = |name: &str, memory: &str| json!({"name": name, "allowMultipleAllocations": true, "capacity": {"memory": {"value": memory}}});
    lab.slice("n", json!({"devices": [sized("small", "1Gi"), {"name": "none"}, sized("large", "4Gi")]}));
    let all = |lab: &mut Lab, name: &str, memory: &str| {
        let capacity = json!({"allocationMode": "All", "capacity": {"requests": {"memory": memory}}});
        lab.claim(name, json!({"requests": [exactly("r", "any", capacity)]}))
    };
    let first = all(&mut lab, "first", "3Gi");
    let Outcome::Allocated(found) = lab.search(std::slice::from_ref(&first), "n").unwrap() else {
        panic!("one is large enough")
    };
    assert_eq!(shown(&found), ["r=large"]);
    lab.allocate(&first, found[0].clone());
    let second = all(&mut lab, "second", "1Gi");
    assert!(matches!(lab.search(&[second], "n"), Ok(Outcome::Allocated(_))), "both have as much left");
    let third = all(&mut lab, "third", "2Gi");
    assert_eq!(lab.search(&[third], "n"), Ok(Outcome::Refused(NONE.to_owned())), "the large one has too little left");
    let huge = all(&mut lab, "huge", "8Gi");
    assert_eq!(lab.search(&[huge], "n"), Ok(Outcome::Refused(NONE.to_owned())), "no device is as large");
}

#[test]
fn pools_count_with_their_newest_generation_and_when_they_are_whole() {
    let pool =
        |generation: i64, count: i64| json!({"name": "p", "generation": generation, "resourceSliceCount": count});
    let mut lab = Lab::new();
    lab.slice("n", json!({"pool": pool(1, 1), "devices": [{"name": "old"}]}));
    lab.slice("n", json!({"pool": pool(2, 2), "devices": [{"name": "new"}]}));
    let one = lab.claim("one", json!({"requests": [exactly("r", "any", json!({}))]}));
    let search = |lab: &Lab| lab.search(std::slice::from_ref(&one), "n").unwrap();
    assert_eq!(search(&lab), Outcome::Refused(NONE.to_owned()), "a pool is of use once it is whole");
    let all = lab.claim("all", json!({"requests": [exactly("r", "any", json!({"allocationMode": "All"}))]}));
    let updated = "claim default/all, request r: asks for all devices, but resource pool d.example.com/p is currently being updated";
    assert_eq!(lab.search(std::slice::from_ref(&all), "n"), Ok(Outcome::Refused(updated.to_owned())));
    lab.slice("n", json!({"pool": pool(2, 2), "devices": [{"name": "newer"}]}));
    let Outcome::Allocated(found) = search(&lab) else { panic!("it is whole now") };
    assert_eq!(shown(&found), ["r=new"]);
    for _ in 0..2 {
        lab.slice("n", json!({"pool": pool(3, 2), "devices": [{"name": "same"}]}));
    }
    let invalid = Outcome::Refused("invalid resource pools were encountered".to_owned());
    assert_eq!(search(&lab), invalid, "two devices of one name");
}

#[test]
fn allocations_say_where_they_can_be_used_and_how_they_are_configured() {
    let mut lab = Lab::new();
    let opaque = |text: &str| json!({"opaque": {"driver": DRIVER, "parameters": {"from": text}}});
    lab.class("set-up", json!({"config": [opaque("class")]}));
    lab.slice("n", json!({"devices": [{"name": "local"}]}));
    let zone = json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "Exists"},
    ]}]});
    let fabric = json!({"name": "fabric", "generation": 1, "resourceSliceCount": 1});
    lab.slice("", json!({"nodeName": null, "nodeSelector": zone, "pool": fabric, "devices": [{"name": "remote"}]}));
    let config = json!([
        {"requests": ["a"], "opaque": opaque("claim")["opaque"]}, {"requests": ["none"], "opaque": opaque("x")["opaque"]},
    ]);
    let request = |name: &str| exactly(name, "set-up", json!({}));
    let claim = lab.claim("c", json!({"requests": [request("a"), request("b")], "config": config}));
    let Outcome::Allocated(found) = lab.search(&[claim], "n").unwrap() else { panic!("local and remote") };
    let found = serde_json::to_value(&found[0]).unwrap();
    assert_eq!(
        found["devices"]["config"],
        json!([
            {"source": "FromClass", "requests": ["a", "b"], "opaque": opaque("class")["opaque"]},
            {"source": "FromClaim", "requests": ["a"], "opaque": opaque("claim")["opaque"]},
        ])
    );
    let of_node = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n"]},
    ]}]});
    assert_eq!(found["nodeSelector"], of_node);
    let elsewhere = lab.claim("e", json!({"requests": [request("a")]}));
    let Outcome::Allocated(found) = lab.search(&[elsewhere], "other").unwrap() else { panic!("remote") };
    assert_eq!(serde_json::to_value(&found[0]).unwrap()["nodeSelector"], zone);
}

#[test]
fn searches_end() {
    let of = |at: usize| device(&format!("d-{at}"), json!({"type": {"string": "gpu"}, "pair": {"int": at / 2}}));
    let devices: Vec<Value> = (0..60).map(of).collect();
    // Every set of up to two devices is good, none of three is: that takes a while to find out of many requests.
    let requests: Vec<Value> = (0..8).map(|at| exactly(&format!("r{at}"), "any", json!({"count": 2}))).collect();
    let claim = json!({"requests": requests, "constraints": [
        {"requests": ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"], "distinctAttribute": format!("{DRIVER}/pair")},
        {"requests": ["r7", "r0"], "matchAttribute": format!("{DRIVER}/type")},
        {"requests": ["r7"], "matchAttribute": format!("{DRIVER}/pair")},
    ]});
    assert_eq!(allocate(devices.into(), claim), Err("timed out trying to allocate devices".to_owned()));
}

/// KEP-5007: what can be had at once goes first, and an allocation says what has to be waited for.
#[test]
fn devices_that_have_to_be_made_ready_come_last() {
    let mut lab = Lab::new();
    let slow =
        |name: &str| json!({"name": name, "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]});
    let fabric = json!({"name": "a-fabric", "generation": 1, "resourceSliceCount": 1});
    let mut remote = slow("remote");
    remote["bindsToNode"] = true.into();
    lab.slice("", json!({"nodeName": null, "allNodes": true, "pool": fabric, "devices": [remote]}));
    let two = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
    lab.slice("n", json!({"pool": two, "devices": [slow("slow"), {"name": "beside"}]}));
    lab.slice("n", json!({"pool": two, "devices": [{"name": "quick"}]}));
    let claim = |lab: &mut Lab, count: i64| {
        lab.claim(&format!("c{count}"), json!({"requests": [exactly("r", "any", json!({"count": count}))]}))
    };
    // Of the two slices the one with a device that has to be waited for comes last; the pool with such devices, behind others.
    let one = claim(&mut lab, 1);
    let Outcome::Allocated(found) = lab.search(&[one], "n").unwrap() else { panic!("one of four") };
    assert_eq!(shown(&found), ["r=remote"], "both pools have such devices, so their order stays");
    lab.devices.set_slice("slice-1", None);
    let one = claim(&mut lab, 1);
    let Outcome::Allocated(found) = lab.search(&[one], "n").unwrap() else { panic!("one of three") };
    assert_eq!(shown(&found), ["r=quick"]);
    lab.slice(
        "n",
        json!({"pool": {"name": "z", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "simple"}]}),
    );
    let Outcome::Allocated(found) = {
        let one = claim(&mut lab, 1);
        lab.search(&[one], "n")
    }
    .unwrap() else {
        panic!("one of four")
    };
    assert_eq!(shown(&found), ["r=simple"], "a pool without any goes first");
    let all = claim(&mut lab, 4);
    let Outcome::Allocated(found) = lab.search(&[all], "n").unwrap() else { panic!("all four") };
    let found = serde_json::to_value(&found[0]).unwrap();
    let results = found["devices"]["results"].as_array().unwrap();
    for result in results {
        let conditional = ["slow"].contains(&result["device"].as_str().unwrap());
        let expected = if conditional { json!(["Attached"]) } else { Value::Null };
        assert_eq!(result.get("bindingConditions").cloned().unwrap_or_default(), expected, "{result}");
        let failures = if conditional { json!(["Broken"]) } else { Value::Null };
        assert_eq!(result.get("bindingFailureConditions").cloned().unwrap_or_default(), failures, "{result}");
    }
    // One that binds to the node is used there only, though all nodes have access to it.
    let mut lab = Lab::new();
    let mut remote = slow("remote");
    remote["bindsToNode"] = true.into();
    lab.slice("", json!({"nodeName": null, "allNodes": true, "devices": [remote]}));
    let claim = claim(&mut lab, 1);
    let Outcome::Allocated(found) = lab.search(&[claim], "n").unwrap() else { panic!("it is free") };
    let found = serde_json::to_value(&found[0]).unwrap();
    let names = &found["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"];
    assert_eq!(*names, json!(["n"]));
}

#[test]
fn searches_end_when_their_time_is_over() {
    let mut lab = Lab::new();
    lab.slice("n", json!({"devices": mixed()}));
    let claim = lab.claim("c", json!({"requests": [exactly("r", "gpu", json!({}))]}));
    lab.until = Some(Instant::now());
    let over = Outcome::Refused("timed out trying to allocate devices".to_owned());
    assert_eq!(lab.search(std::slice::from_ref(&claim), "n"), Ok(over));
    lab.until = Some(Instant::now() + Duration::from_secs(3600));
    assert!(matches!(lab.search(&[claim], "n"), Ok(Outcome::Allocated(_))));
}
