//! The served discovery documents beside the published ones, of which `data/discovery.json` is a copy.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::{Api, JSON};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The groups in the order of kube-apiserver's `/apis`.
const GROUPS: [&str; 20] = [
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Hashes of kube-apiserver: of the core group, of another one, and of a resource that is stored in another version or group than it
/// is served in.
const HASHES: [(&str, &str, &str); 6] = [
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", "jfWCUB31mvA="),
    ("v1", "pods", "xPOwRZ+Yhw8="),
    ("v1", "nodes", "XwShjMxG9Fs="),
    ("apps/v1", "deployments", "8aSe+NMegvE="),
    ("autoscaling/v1", "horizontalpodautoscalers", "qwQve8ut294="),
    ("events.k8s.io/v1", "events", "r2yiGXH7wu8="),
];

/// A line for each resource of the published documents, in their order.
fn published() -> Vec<Value> {
    serde_json::from_str(include_str!("../../data/discovery.json")).unwrap()
}

/// The group and version of a line as one.
fn version(line: &Value) -> String {
    let text = |field: &str| line[field].as_str().unwrap();
    if text("group").is_empty() { text("version").to_owned() } else { format!("{}/{}", text("group"), text("version")) }
}

/// The entries that a line makes in an `APIResourceList`.
fn listed(line: &Value) -> Vec<Value> {
    let mut resource = json!({"name": line["plural"], "singularName": line["singular"], "namespaced": line["namespaced"],
        "kind": line["kind"], "verbs": line["verbs"]});
    for field in ["shortNames", "categories", "storageVersionHash"] {
        if let Some(value) = line.get(field) {
            resource[field] = value.clone();
        }
    }
    let below = line["subresources"].as_array().into_iter().flatten().map(|sub| {
        let name = format!("{}/{}", line["plural"].as_str().unwrap(), sub["name"].as_str().unwrap());
        let mut below = json!({"name": name, "singularName": "", "namespaced": line["namespaced"],
            "kind": sub["kind"], "verbs": sub["verbs"]});
        for field in ["group", "version"] {
            if sub[field] != "" {
                below[field] = sub[field].clone();
            }
        }
        below
    });
    let below: Vec<_> = below.collect();
    [vec![resource], below].concat()
}

/// What is served is what is published: names, kinds, verbs, short names, categories, subresources, hashes of storage versions, and the
/// order of all that.
pub async fn is_as_published(api: &Api) {
    let mut wanted: Vec<(String, Vec<Value>)> = Vec::new();
    for line in published() {
        let version = version(&line);
        match wanted.last_mut() {
            Some((same, resources)) if *same == version => resources.extend(listed(&line)),
            _ => wanted.push((version, listed(&line))),
        }
    }
    let served = api.discovery().await;
    let versions: Vec<_> = served.iter().map(|list| list["groupVersion"].as_str().unwrap()).collect();
    assert_eq!(versions, wanted.iter().map(|(version, _)| version.as_str()).collect::<Vec<_>>());
    for (list, (version, wanted)) in served.into_iter().zip(wanted) {
        assert_eq!(list["resources"].as_array().unwrap(), &wanted, "{version}");
    }
}

/// The groups come in Kubernetes' order in both forms of `/apis`, and hashes are those that its clients know. They are told here once more, for the
/// server has its own from `data/discovery.json`, too.
pub async fn is_as_in_kubernetes(api: &Api) {
    let groups = api.get("/apis").await.is(200, "groups");
    let names = groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), GROUPS);
    let document = api.raw("GET", "/apis", AGGREGATED, JSON, Bytes::new()).await.is(200, "aggregated");
    let items = document["items"].as_array().unwrap().iter();
    assert_eq!(items.map(|group| group["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>(), GROUPS);
    for (version, name, hash) in HASHES {
        let root = if version.contains('/') { "apis" } else { "api" };
        let list = api.get(&format!("/{root}/{version}")).await.is(200, version);
        let listed = list["resources"].as_array().unwrap().iter().find(|resource| resource["name"] == name);
        assert_eq!(listed.unwrap()["storageVersionHash"], hash, "{version} {name}");
    }
}

/// The aggregated documents say the same as the lists.
pub async fn is_the_same_aggregated(api: &Api) {
    let mut aggregated = BTreeMap::new();
    for path in ["/api", "/apis"] {
        let document = api.raw("GET", path, AGGREGATED, JSON, Bytes::new()).await.is(200, path);
        for group in document["items"].as_array().unwrap() {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in group["versions"].as_array().unwrap() {
                assert_eq!(version["freshness"], "Current");
                for resource in version["resources"].as_array().unwrap() {
                    let key = (name.to_owned(), version["version"].clone(), resource["resource"].clone());
                    aggregated.insert(format!("{key:?}"), resource.clone());
                }
            }
        }
    }
    let lines = published();
    assert_eq!(aggregated.len(), lines.len());
    for line in lines {
        let (group, version) = (line["group"].as_str().unwrap().to_owned(), &line["version"]);
        let key = format!("{:?}", (group.clone(), version, &line["plural"]));
        let resource = aggregated.get(&key).unwrap_or_else(|| panic!("{key} is told of"));
        let kind =
            |group: &Value, version: &Value, kind: &Value| json!({"group": group, "version": version, "kind": kind});
        let mut wanted = json!({"resource": line["plural"], "singularResource": line["singular"], "verbs": line["verbs"],
            "scope": if line["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "responseKind": kind(&line["group"], version, &line["kind"])});
        for field in ["shortNames", "categories"] {
            if let Some(value) = line.get(field) {
                wanted[field] = value.clone();
            }
        }
        if let Some(below) = line["subresources"].as_array() {
            let below = below.iter().map(|sub| {
                let own = sub["version"] == "";
                let (group, version) = if own { (&line["group"], version) } else { (&sub["group"], &sub["version"]) };
                json!({"subresource": sub["name"], "verbs": sub["verbs"], "responseKind": kind(group, version, &sub["kind"])})
            });
            wanted["subresources"] = below.collect();
        }
        assert_eq!(*resource, wanted);
    }
}
