//! Services of clusters with one family of addresses and with two, as
//! <https://kubernetes.io/docs/concepts/services-networking/dual-stack/> describes them and KEP-563 has it.

use serde_json::{Value, json};

use super::{Cluster, cause};

const V4: &str = "10.0.0.0/24";
const V6: &str = "fd00::/120";
const V4_V6: &str = "10.0.0.0/24,fd00::/120";
const V6_V4: &str = "fd00::/120,10.0.0.0/24";

fn cluster(range: &str) -> Cluster {
    Cluster::with(range, 30_000..=32_767)
}

fn with_port(mut spec: Value) -> Value {
    spec["ports"] = json!([{"port": 80}]);
    spec
}

/// The policy of a Service, its families and those of its cluster IPs.
fn shown(service: &Value) -> String {
    let spec = &service["spec"];
    let list = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
    let families: Vec<_> = list("ipFamilies").iter().map(|family| family.as_str().unwrap().to_owned()).collect();
    let ips: Vec<_> = list("clusterIPs")
        .into_iter()
        .map(|ip| match ip.as_str().unwrap() {
            "None" => "None",
            ip if ip.starts_with("10.0.0.") => "IPv4",
            ip if ip.starts_with("fd00::") => "IPv6",
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(spec["clusterIP"], list("clusterIPs")[0], "the first is the one");
    format!("{} {} {}", spec["ipFamilyPolicy"].as_str().unwrap(), families.join("+"), ips.join("+"))
}

const NOT_DUAL: &str =
    "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services";
const NO_V6: &str = "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster";

#[tokio::test]
async fn new_services_have_the_families_that_they_ask_for_and_the_cluster_has() {
    let selector = json!({"app": "a"});
    for (range, spec, wanted) in [
        // Whoever asks for nothing has one address, of the first family.
        (V4, json!({}), Ok("SingleStack IPv4 IPv4")),
        (V6, json!({}), Ok("SingleStack IPv6 IPv6")),
        (V4_V6, json!({}), Ok("SingleStack IPv4 IPv4")),
        (V6_V4, json!({}), Ok("SingleStack IPv6 IPv6")),
        (V4_V6, json!({"ipFamilyPolicy": "SingleStack"}), Ok("SingleStack IPv4 IPv4")),
        // Or of the one that is named.
        (V4_V6, json!({"ipFamilies": ["IPv6"]}), Ok("SingleStack IPv6 IPv6")),
        (V6_V4, json!({"ipFamilies": ["IPv4"]}), Ok("SingleStack IPv4 IPv4")),
        (V4, json!({"ipFamilies": ["IPv6"]}), Err(NO_V6)),
        (V4_V6, json!({"clusterIP": "fd00::9"}), Ok("SingleStack IPv6 IPv6")),
        (V4_V6, json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"]}), Ok("SingleStack IPv4 IPv4")),
        (
            V4,
            json!({"clusterIP": "fd00::9"}),
            Err("spec.clusterIPs[0]: Invalid value: [\"fd00::9\"]: IPv6 is not configured on this cluster"),
        ),
        // Two where that is possible, in the order of the cluster or of the Service.
        (V4, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv4 IPv4")),
        (V6, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv6 IPv6")),
        (V4_V6, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv4+IPv6 IPv4+IPv6")),
        (V6_V4, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv6+IPv4 IPv6+IPv4")),
        (
            V4_V6,
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
            Ok("PreferDualStack IPv6+IPv4 IPv6+IPv4"),
        ),
        (
            V4_V6,
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}),
            Ok("PreferDualStack IPv6+IPv4 IPv6+IPv4"),
        ),
        (V4, json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}), Err(NO_V6)),
        // Two or none.
        (V4, json!({"ipFamilyPolicy": "RequireDualStack"}), Err(NOT_DUAL)),
        (V4_V6, json!({"ipFamilyPolicy": "RequireDualStack"}), Ok("RequireDualStack IPv4+IPv6 IPv4+IPv6")),
        (
            V4_V6,
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "fd00::9"}),
            Ok("RequireDualStack IPv6+IPv4 IPv6+IPv4"),
        ),
        (
            V4_V6,
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "fd00::9", "clusterIPs": ["fd00::9", "10.0.0.9"]}),
            Ok("RequireDualStack IPv6+IPv4 IPv6+IPv4"),
        ),
        // Headless ones have families for their endpoints.
        (V4, json!({"clusterIP": "None", "selector": selector}), Ok("SingleStack IPv4 None")),
        (
            V4_V6,
            json!({"clusterIP": "None", "selector": selector, "ipFamilyPolicy": "PreferDualStack"}),
            Ok("PreferDualStack IPv4+IPv6 None"),
        ),
        (V4, json!({"clusterIP": "None", "selector": selector, "ipFamilyPolicy": "RequireDualStack"}), Err(NOT_DUAL)),
        // Without a selector it is not the cluster that gives them.
        (V4, json!({"clusterIP": "None"}), Ok("RequireDualStack IPv4+IPv6 None")),
        (V6_V4, json!({"clusterIP": "None"}), Ok("RequireDualStack IPv6+IPv4 None")),
        (V4, json!({"clusterIP": "None", "ipFamilyPolicy": "SingleStack"}), Ok("SingleStack IPv4 None")),
        (V4, json!({"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv4+IPv6 None")),
        (
            V4,
            json!({"clusterIP": "None", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}),
            Ok("SingleStack IPv6 None"),
        ),
    ] {
        let created = cluster(range).create("a", with_port(spec.clone())).await;
        let created = created.map(|service| shown(&service)).map_err(|status| cause(&status));
        assert_eq!(created.as_deref().map_err(String::as_str), wanted, "{spec} with {range}");
    }
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let multiple = |what: &str| {
        format!(
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple \
             {what} are specified"
        )
    };
    let list = |ips: &str, why: &str| format!("spec.clusterIPs: Invalid value: {ips}: {why}");
    for (spec, wanted) in [
        (json!({"ipFamilies": ["IPv4", "IPv6"]}), multiple("IP families")),
        (
            json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9", "fd00::9"]}),
            multiple("cluster IPs"),
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv4"]}),
            "spec.ipFamilies[1]: Duplicate value: \"IPv4\"".to_owned(),
        ),
        (
            json!({"ipFamilies": ["IPv5"]}),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"".to_owned(),
        ),
        (
            json!({"ipFamilyPolicy": "Both"}),
            "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \"RequireDualStack\", \
             \"SingleStack\""
                .to_owned(),
        ),
        (
            json!({"clusterIP": "10.0.0.9", "ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.9\": expected an IPv6 value as indicated by `ipFamilies[0]`".to_owned(),
        ),
        (
            json!({"clusterIPs": ["10.0.0.9"]}),
            list("[\"10.0.0.9\"]", "must be empty when `clusterIP` is not specified"),
        ),
        (
            json!({"clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.9"]}),
            list("[\"10.0.0.9\"]", "first value must match `clusterIP`"),
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None", "fd00::9"]}),
            list("[\"None\",\"fd00::9\"]", "'None' must be the first and only value"),
        ),
        (
            json!({"clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.8", "10.0.0.9"], "ipFamilyPolicy": "RequireDualStack"}),
            list("[\"10.0.0.8\",\"10.0.0.9\"]", "may specify no more than one IP for each IP family"),
        ),
        (
            json!({"clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.8", "fd00::8", "fd00::9"], "ipFamilyPolicy": "RequireDualStack"}),
            list("[\"10.0.0.8\",\"fd00::8\",\"fd00::9\"]", "may only hold up to 2 values"),
        ),
        (
            json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9", "fd01::9"], "ipFamilyPolicy": "RequireDualStack"}),
            list(
                "[\"10.0.0.9\",\"fd01::9\"]",
                "failed to allocate IP fd01::9: the provided network does not match the current range",
            ),
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.example.com", "ipFamilyPolicy": "SingleStack"}),
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services".to_owned(),
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.example.com", "ipFamilies": ["IPv4"]}),
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services".to_owned(),
        ),
    ] {
        let refused = cluster(V4_V6).create("a", with_port(spec.clone())).await.unwrap_err();
        assert_eq!(cause(&refused), wanted, "{spec}");
    }
}

#[tokio::test]
async fn services_gain_and_lose_their_second_family() {
    let dual = json!({"ipFamilyPolicy": "RequireDualStack"});
    let released = |what: &str| {
        format!(
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary {what}"
        )
    };
    let changed = |field: &str, shown: &str| format!("spec.{field}: Invalid value: {shown}: may not change once set");
    for (before, change, wanted) in [
        // Up: the first stays what it was.
        (json!({}), dual.clone(), Ok("RequireDualStack IPv4+IPv6 IPv4+IPv6")),
        (json!({}), json!({"ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv4+IPv6 IPv4+IPv6")),
        (json!({"ipFamilies": ["IPv6"]}), dual.clone(), Ok("RequireDualStack IPv6+IPv4 IPv6+IPv4")),
        (
            json!({"clusterIP": "10.0.0.9"}),
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.0.0.9", "fd00::9"]}),
            Ok("RequireDualStack IPv4+IPv6 IPv4+IPv6"),
        ),
        // Down, by the policy alone or by what goes too.
        (dual.clone(), json!({"ipFamilyPolicy": "SingleStack"}), Ok("SingleStack IPv4 IPv4")),
        (
            dual.clone(),
            json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}),
            Ok("SingleStack IPv4 IPv4"),
        ),
        (dual.clone(), json!({"ipFamilies": ["IPv4"]}), Err(released("IP family"))),
        (
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.0.0.9"}),
            json!({"clusterIPs": ["10.0.0.9"]}),
            Err(released("cluster IP")),
        ),
        // Nobody has to say it all.
        (dual.clone(), json!({"ipFamilies": null, "clusterIP": null, "clusterIPs": null, "ipFamilyPolicy": null}), Ok("RequireDualStack IPv4+IPv6 IPv4+IPv6")),
        (json!({"ipFamilies": ["IPv6"]}), json!({"ipFamilies": null, "ipFamilyPolicy": null}), Ok("SingleStack IPv6 IPv6")),
        // The primary ones never change.
        (json!({"clusterIP": "10.0.0.9"}), json!({"clusterIP": "10.0.0.8"}), Err(changed("clusterIPs[0]", "[\"10.0.0.8\"]"))),
        (
            json!({"clusterIP": "10.0.0.9"}),
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}),
            Err("spec.clusterIPs[0]: Invalid value: \"10.0.0.9\": expected an IPv6 value as indicated by `ipFamilies[0]`".to_owned()),
        ),
        (json!({"clusterIP": "10.0.0.9"}), json!({"clusterIP": "None"}), Err(changed("clusterIPs[0]", "[\"None\"]"))),
        // Headless ones may change their families.
        (
            json!({"clusterIP": "None", "selector": {"app": "a"}}),
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}),
            Ok("RequireDualStack IPv6+IPv4 None"),
        ),
        // From a name to addresses.
        (
            json!({"type": "ExternalName", "externalName": "a.example.com"}),
            json!({"type": "ClusterIP", "externalName": null, "ipFamilyPolicy": "PreferDualStack"}),
            Ok("PreferDualStack IPv4+IPv6 IPv4+IPv6"),
        ),
    ] {
        let cluster = cluster(V4_V6);
        let old = cluster.create("a", with_port(before.clone())).await.unwrap();
        let new = cluster.change(&old, change.clone()).await;
        let kept = new.as_ref().map(|new| new["spec"]["clusterIPs"][0] == old["spec"]["clusterIPs"][0]);
        assert!(kept.unwrap_or(true) || old["spec"]["type"] == "ExternalName", "the primary address stays");
        let new = new.map(|service| shown(&service)).map_err(|status| cause(&status));
        assert_eq!(new.as_deref(), wanted.as_deref(), "{before} becomes {change}");
    }
}

#[tokio::test]
async fn whoever_prefers_two_families_keeps_what_it_has_when_the_cluster_changes() {
    let single = cluster(V4);
    let service = single.create("a", with_port(json!({"ipFamilyPolicy": "PreferDualStack"}))).await.unwrap();
    let dual = Cluster { objects: single.objects.clone(), ..cluster(V4_V6) };
    let labelled = dual.change(&service, json!({"sessionAffinity": "ClientIP"})).await.unwrap();
    assert_eq!(shown(&labelled), "PreferDualStack IPv4 IPv4");
    let asked = dual.change(&service, json!({"ipFamilies": ["IPv4", "IPv6"]})).await.unwrap();
    assert_eq!(shown(&asked), "PreferDualStack IPv4+IPv6 IPv4+IPv6");
    // The other way round.
    let both = dual.create("b", with_port(json!({"ipFamilyPolicy": "PreferDualStack"}))).await.unwrap();
    let kept = single.change(&both, json!({"sessionAffinity": "ClientIP"})).await.unwrap();
    assert_eq!(kept["spec"]["clusterIPs"], both["spec"]["clusterIPs"]);
    assert_eq!(
        shown(&single.change(&both, json!({"ipFamilyPolicy": "SingleStack"})).await.unwrap()),
        "SingleStack IPv4 IPv4"
    );
}

#[tokio::test]
async fn a_name_has_neither_addresses_nor_families() {
    let cluster = cluster(V4_V6);
    let old = cluster.create("a", with_port(json!({"ipFamilyPolicy": "RequireDualStack"}))).await.unwrap();
    let new = cluster.change(&old, json!({"type": "ExternalName", "externalName": "a.example.com"})).await.unwrap();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(new["spec"][field], Value::Null, "{field}");
    }
    assert_eq!(cluster.services.companions(&old).len(), 2);
    assert_eq!(cluster.services.companions(&new).len(), 0);
}

#[tokio::test]
async fn each_family_has_ranges_of_its_own() {
    let cluster = cluster("10.0.0.0/30,fd00::/126");
    let dual = || with_port(json!({"ipFamilyPolicy": "RequireDualStack"}));
    let first = cluster.create("a", dual()).await.unwrap();
    // Of IPv4 one is left beside that of the API; of IPv6 three are there.
    assert_eq!(first["spec"]["clusterIP"], "10.0.0.2");
    let full = cluster.create("b", dual()).await.unwrap_err();
    assert_eq!(full.message.unwrap(), "Internal error occurred: failed to allocate a serviceIP: range is full");
    for name in ["b", "c"] {
        cluster.create(name, with_port(json!({"ipFamilies": ["IPv6"]}))).await.unwrap();
    }
    assert!(cluster.create("d", with_port(json!({"ipFamilies": ["IPv6"]}))).await.is_err());
    // A ServiceCIDR may have a network of each.
    let more = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.0.0.8/29", "fd00::8/125"]}});
    cluster.objects.put("servicecidrs", more);
    let both = cluster.create("e", dual()).await.unwrap();
    assert_eq!(shown(&both), "RequireDualStack IPv4+IPv6 IPv4+IPv6");
    let companions: Vec<_> = cluster.services.companions(&both).into_iter().map(|(_, address)| address).collect();
    let labels: Vec<_> =
        companions.iter().map(|a| &a["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"]).collect();
    assert_eq!(labels, ["IPv4", "IPv6"]);
    assert_eq!(companions[1]["metadata"]["name"], both["spec"]["clusterIPs"][1]);
}
