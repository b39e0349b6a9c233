//! What a server behind this one serves, in the forms of this server's own documents.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::tree::text;

/// A group and version that another server serves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RemoteVersion {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Of the group, and of the version in it.
    pub(crate) priority: (i64, i64),
    /// As in aggregated discovery.
    pub(crate) resources: Vec<Value>,
    /// The URL of its OpenAPI document, with the hash.
    pub(crate) openapi: Option<String>,
    /// Its paths and definitions in the older form.
    pub(crate) openapi_v2: Arc<(Map<String, Value>, Map<String, Value>)>,
}

/// The resources of an `APIResourceList` as aggregated discovery shows them.
pub(super) fn resources(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let listed = list["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let kind = |resource: &Value| {
        let or = |field: &str, default: &str| {
            Some(text(&resource[field])).filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": text(&resource["kind"])})
    };
    let mut resources = Vec::new();
    for resource in listed.iter().filter(|resource| !text(&resource["name"]).contains('/')) {
        let name = text(&resource["name"]);
        let mut value = json!({
            "resource": name,
            "responseKind": kind(resource),
            "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "singularResource": text(&resource["singularName"]),
            "verbs": resource["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if resource[field].is_array() {
                value[field] = resource[field].clone();
            }
        }
        let of_it = |sub: &&Value| text(&sub["name"]).split_once('/').is_some_and(|(resource, _)| resource == name);
        let subresources: Vec<Value> = listed
            .iter()
            .filter(of_it)
            .map(|sub| {
                let short = text(&sub["name"]).split_once('/').map_or("", |(_, short)| short);
                json!({"subresource": short, "responseKind": kind(sub), "verbs": sub["verbs"]})
            })
            .collect();
        if !subresources.is_empty() {
            value["subresources"] = subresources.into();
        }
        resources.push(value);
    }
    resources
}

/// The paths below a prefix in an OpenAPI document of the older form, and its definitions.
pub(super) fn part_of(document: &Value, prefix: &str) -> Arc<(Map<String, Value>, Map<String, Value>)> {
    let below = |path: &str| path.starts_with(prefix);
    let paths = document["paths"].as_object().into_iter().flatten();
    let paths: Map<_, _> =
        paths.filter(|(path, _)| below(path)).map(|(path, item)| (path.clone(), item.clone())).collect();
    let definitions = if paths.is_empty() { None } else { document["definitions"].as_object().cloned() };
    Arc::new((paths, definitions.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_aggregated_entries() {
        let list = json!({"resources": [
            {"name": "nodes", "singularName": "node", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get"],
                "shortNames": ["nm"]},
            {"name": "nodes/scale", "singularName": "", "namespaced": false, "kind": "Scale", "group": "autoscaling",
                "version": "v1", "verbs": ["get"]},
        ]});
        let entries = resources(&list, "metrics.k8s.io", "v1beta1");
        assert_eq!(
            entries,
            [json!({"resource": "nodes", "scope": "Cluster", "singularResource": "node", "verbs": ["get"],
                "shortNames": ["nm"],
                "responseKind": {"group": "metrics.k8s.io", "version": "v1beta1", "kind": "NodeMetrics"},
                "subresources": [{"subresource": "scale", "verbs": ["get"],
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]})]
        );
        assert!(resources(&json!("junk"), "g", "v1").is_empty());
    }
}
