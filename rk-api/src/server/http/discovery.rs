//! Discovery: which groups, versions and resources there are, in the old form and in the aggregated one.

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderValue, Response, header, request::Parts};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    answer::{self, Style},
    body::{self, Body},
    negotiate::{Shape, negotiate},
};
use crate::{
    Error, Resource,
    server::{
        Subresource,
        catalog::{Catalog, Served, Versions},
        pipeline::Core,
    },
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The aggregated documents of a catalog, made once: body and entity tag.
pub(crate) struct Documents {
    core: (Bytes, String),
    groups: (Bytes, String),
}

impl Documents {
    pub(crate) fn of(catalog: &Catalog) -> Self {
        let document = |core: bool| {
            let groups = catalog.groups().iter().filter(|(group, _)| group.is_empty() == core);
            let items: Vec<Value> = groups.map(|(group, versions)| aggregated(group, versions)).collect();
            #[cfg(feature = "serve")]
            let items = if core { items } else { with_remote(items, catalog) };
            let value = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
            let bytes = value.to_string();
            let hash = Sha256::digest(bytes.as_bytes());
            let tag: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
            (Bytes::from(bytes), format!("\"{tag}\""))
        };
        Self { core: document(true), groups: document(false) }
    }
}

/// The groups, and those of servers behind this one.
#[cfg(feature = "serve")]
fn with_remote(mut items: Vec<Value>, catalog: &Catalog) -> Vec<Value> {
    for remote in catalog.remote() {
        let version = json!({"version": remote.version, "resources": remote.resources, "freshness": "Current"});
        let group = items.iter_mut().find(|item| item["metadata"]["name"] == remote.group.as_str());
        match group.and_then(|group| group["versions"].as_array_mut()) {
            Some(versions) => versions.push(version),
            None => items.push(json!({"metadata": {"name": remote.group, "creationTimestamp": null},
                "versions": [version]})),
        }
    }
    items
}

fn aggregated(group: &str, versions: &Versions) -> Value {
    let versions = versions.iter().map(|(version, rows)| {
        let resources: Vec<Value> = rows.iter().map(|row| aggregated_resource(row)).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    });
    let versions: Vec<Value> = versions.collect();
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(served: &Served) -> Value {
    let row = &served.row;
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let resource = &row.resource;
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    for (field, list) in [("shortNames", &row.short_names), ("categories", &row.categories)] {
        if !list.is_empty() {
            value[field] = json!(list);
        }
    }
    if !row.subresources.is_empty() {
        let subresources = row.subresources.iter().map(|sub| {
            let body = body_of(resource, sub);
            json!({"subresource": sub.name, "responseKind": kind(&body.group, &body.version, &body.kind), "verbs": sub.verbs})
        });
        value["subresources"] = subresources.collect();
    }
    value
}

/// The kind of a subresource's bodies.
pub(crate) fn body_of(resource: &Resource, sub: &Subresource) -> Resource {
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let foreign = !sub.version.is_empty();
    let group = if foreign { sub.group.clone() } else { resource.group.to_string() };
    Resource::new(&group, &or(&sub.version, &resource.version), &sub.kind, &resource.plural, resource.namespaced)
}

/// Answers a discovery path; `None` if it is none.
pub(super) fn answer(core: &Core, parts: &Parts) -> Result<Option<Response<Body>>, Error> {
    let catalog = core.catalog.load();
    let path = parts.uri.path().trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if matches!(segments.as_slice(), ["api" | "apis"]) {
        let wanted = negotiate(&parts.headers, &[Shape::Discovery], false).map(|accepted| accepted.shape);
        if wanted == Some(Shape::Discovery) {
            let documents = catalog.documents();
            let document = if segments == ["api"] { &documents.core } else { &documents.groups };
            return Ok(Some(tagged(document, parts)));
        }
    }
    let value = match segments.as_slice() {
        [] | [""] => paths(&catalog),
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host(parts)}],
        }),
        ["apis"] => {
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(&catalog)})
        }
        ["apis", name] => match groups(&catalog).into_iter().find(|group| group["name"] == **name) {
            Some(mut group) => {
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                group
            }
            None => return Ok(None),
        },
        ["api", version] => match resources(&catalog, "", version) {
            Some(list) => list,
            None => return Ok(None),
        },
        ["apis", group, version] => match resources(&catalog, group, version) {
            Some(list) => list,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let accepted = negotiate(&parts.headers, &[], false).unwrap_or(super::negotiate::Accepted::JSON);
    let style = Style { accepted, gzip: answer::takes_gzip(&parts.headers), ..Style::PLAIN };
    Ok(Some(answer::tree(200, &value, &style)))
}

fn host(parts: &Parts) -> &str {
    parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn known(parts: &Parts) -> Option<&str> {
    parts.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok())
}

/// An answer that the client may have already.
fn tagged((bytes, tag): &(Bytes, String), parts: &Parts) -> Response<Body> {
    let mut response = if known(parts) == Some(tag.as_str()) {
        answer::respond(304, AGGREGATED, body::empty())
    } else {
        answer::respond(200, AGGREGATED, body::full(bytes.clone()))
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Every group but the core, with its versions.
fn groups(catalog: &Catalog) -> Vec<Value> {
    let version =
        |group: &str, version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let mut groups = Vec::new();
    for (name, versions) in catalog.groups().iter().filter(|(name, _)| !name.is_empty()) {
        let listed: Vec<Value> = versions.iter().map(|(v, _)| version(name, v)).collect();
        let Some(preferred) = listed.first().cloned() else { continue };
        groups.push(json!({"name": name, "versions": listed, "preferredVersion": preferred}));
    }
    #[cfg(feature = "serve")]
    for remote in catalog.remote() {
        let own = version(&remote.group, &remote.version);
        let known = groups.iter_mut().find(|group| group["name"] == remote.group.as_str());
        match known.and_then(|group| group["versions"].as_array_mut()) {
            Some(versions) => versions.push(own),
            None => groups.push(json!({"name": remote.group, "versions": [own], "preferredVersion": own})),
        }
    }
    groups
}

fn resources(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let (_, versions) = catalog.groups().iter().find(|(name, _)| name == group)?;
    let (_, rows) = versions.iter().find(|(name, _)| name == version)?;
    let mut list = Vec::new();
    for served in rows {
        let row = &served.row;
        let resource = &row.resource;
        let mut value = json!({
            "name": resource.plural, "singularName": row.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": row.verbs,
        });
        for (field, names) in [("shortNames", &row.short_names), ("categories", &row.categories)] {
            if !names.is_empty() {
                value[field] = json!(names);
            }
        }
        // What can't be made is not stored either (ComponentStatus).
        if row.stored && served.allows("", "create") {
            let kubernetes = STORED_IN_KUBERNETES.iter().find(|(kind, _)| *kind == resource.kind && !served.custom);
            let stored_as = kubernetes.map_or(&*served.stored_as, |(_, version)| *version);
            value["storageVersionHash"] = storage_version_hash(stored_as, &resource.kind).into();
        }
        list.push(value);
        for sub in &row.subresources {
            let mut value = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if !sub.version.is_empty() {
                value["group"] = sub.group.as_str().into();
                value["version"] = sub.version.as_str().into();
            }
            list.push(value);
        }
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list}))
}

/// Kinds that kube-apiserver 1.36 stores in an older version than the one that is served. This server stores what is served; but a hash says
/// nothing else to clients than that it is another one than before, so these have the hash that clients know.
const STORED_IN_KUBERNETES: [(&str, &str); 3] = [
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1beta1"),
    ("MutatingAdmissionPolicy", "admissionregistration.k8s.io/v1beta1"),
    ("MutatingAdmissionPolicyBinding", "admissionregistration.k8s.io/v1beta1"),
];

/// What tells clients that a resource's storage version changed: a hash of its group, version and kind, of which the core group is
/// the empty one (apiserver's `discovery.StorageVersionHash`).
fn storage_version_hash(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let hash = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

/// The index at `/`.
fn paths(catalog: &Catalog) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for (group, versions) in catalog.groups().iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|(version, _)| format!("/apis/{group}/{version}")));
    }
    for path in ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"] {
        paths.push(path.to_owned());
    }
    json!({"paths": paths})
}
