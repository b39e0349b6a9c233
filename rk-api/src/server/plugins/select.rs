//! Which webhooks and policies want to see a write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Spec;
use serde::Deserialize;
use serde_json::Value;

use super::{is, list, text};
use crate::{
    LabelSelector, Resource, Status,
    server::{AdmissionRequest, Operation, Reader},
    status,
};

fn names(listed: &Value, wanted: &str) -> bool {
    list(listed).iter().any(|item| text(item) == "*" || text(item) == wanted)
}

/// Whether a rule's resource (`pods`, `*`, `*/*`, `pods/*`, `*/scale`) names this one.
fn resource_matches(pattern: &str, plural: &str, subresource: &str) -> bool {
    let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    (resource == "*" || resource == plural) && (sub == "*" || sub == subresource)
}

/// An operation as rules and reviews name it.
pub(super) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// Whether a rule is about a write, but for the version.
fn rule_matches(rule: &Value, request: &AdmissionRequest) -> bool {
    let resource = &request.resource;
    let subresource = &request.attributes.subresource;
    // A namespace counts as an object of the cluster, though for the authorizers it lies in itself.
    let scope = match text(&rule["scope"]) {
        "Cluster" => !resource.namespaced,
        "Namespaced" => resource.namespaced,
        _ => true,
    };
    // Rules of policies may name objects.
    let named = list(&rule["resourceNames"]);
    scope
        && (named.is_empty() || named.iter().any(|name| text(name) == request.attributes.name))
        && names(&rule["operations"], operation(request.operation))
        && names(&rule["apiGroups"], &resource.group)
        && list(&rule["resources"]).iter().any(|p| resource_matches(text(p), &resource.plural, subresource))
}

/// The resource as which one of these rules is about a write: its own, or another version of it, unless the match policy
/// is `Exact`.
pub(super) fn matched(
    rules: &Value,
    policy: &Value,
    request: &AdmissionRequest,
    reader: &dyn Reader,
) -> Option<Resource> {
    let near: Vec<&Value> = list(rules).iter().filter(|rule| rule_matches(rule, request)).collect();
    let of_version = |resource: &Resource| near.iter().any(|rule| names(&rule["apiVersions"], &resource.version));
    if near.is_empty() || of_version(&request.resource) {
        return (!near.is_empty()).then(|| request.resource.clone());
    }
    if policy == "Exact" {
        return None;
    }
    reader.other_versions(&request.resource).into_iter().find(of_version)
}

fn selector(spec: &Value) -> Result<LabelSelector, Status> {
    let spec = Option::<Spec>::deserialize(spec).map_err(status::internal)?.unwrap_or_default();
    LabelSelector::from_spec(&spec).map_err(status::internal)
}

fn labels_match(selector: &LabelSelector, object: &Value) -> bool {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| (key.clone(), text(value).to_owned())).collect();
    selector.matches(&labels)
}

/// Whether the namespace of the request, or the namespace that it is about, has such labels.
async fn namespace_matches(
    selector: &LabelSelector,
    request: &AdmissionRequest,
    old: &Value,
    reader: &dyn Reader,
) -> Result<bool, Status> {
    if selector.is_empty() {
        return Ok(true);
    }
    if is(&request.resource, "", "namespaces") {
        return Ok(labels_match(selector, request.object.as_ref().unwrap_or(old)));
    }
    if !request.resource.namespaced {
        return Ok(true);
    }
    let found = reader.get("", "namespaces", "", &request.attributes.namespace).await.map_err(status::internal)?;
    Ok(found.is_some_and(|namespace| selector.matches(&namespace.meta().labels)))
}

/// Whether the labels of namespace and object are those that a webhook or a policy wants to see.
pub(super) async fn labelled(webhook: &Value, request: &AdmissionRequest, reader: &dyn Reader) -> Result<bool, Status> {
    let (namespaces, objects) = (selector(&webhook["namespaceSelector"])?, selector(&webhook["objectSelector"])?);
    // As most are: then nothing is decoded.
    if namespaces.is_empty() && objects.is_empty() {
        return Ok(true);
    }
    let old = request.old_value()?;
    let old = old.unwrap_or_default();
    if !namespace_matches(&namespaces, request, &old, reader).await? {
        return Ok(false);
    }
    let new = request.object.iter().any(|object| labels_match(&objects, object));
    Ok(objects.is_empty() || new || request.old_object.is_some() && labels_match(&objects, &old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_with_their_subresources() {
        for (pattern, plural, subresource, hit) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/*", "pods", "status", true),
            ("*", "pods", "", true),
            ("*", "pods", "status", false),
            ("*/*", "pods", "status", true),
            ("*/scale", "deployments", "scale", true),
            ("*/scale", "deployments", "", false),
        ] {
            assert_eq!(resource_matches(pattern, plural, subresource), hit, "{pattern} {plural}/{subresource}");
        }
    }
}
