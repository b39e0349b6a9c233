//! From the JSON that people write to objects as an API server would store them, as far as scheduling can tell.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_api::Object;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// An object that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?}: {reason}")]
pub struct BadObject {
    /// Its kind, `object` if it has none.
    pub kind: String,
    /// Its name, as far as it has one.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// Reads YAML of any size: it is the user's own.
pub(super) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut options = serde_saphyr::Options::default();
    options.budget = None;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn bad(value: &Value, reason: impl ToString) -> BadObject {
    let kind = Some(text(value, "/kind")).filter(|kind| !kind.is_empty()).unwrap_or("object");
    let name = [text(value, "/metadata/name"), text(value, "/metadata/generateName")];
    let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    BadObject { kind: kind.to_owned(), name: name.to_owned(), reason: reason.to_string() }
}

/// Whether it has a name to be known by.
///
/// # Errors
/// It has none.
pub(super) fn has_name(value: &Value) -> Result<(), BadObject> {
    if text(value, "/metadata/name").is_empty() { Err(bad(value, "it has no name")) } else { Ok(()) }
}

fn decoded<K: DeserializeOwned>(value: &Value) -> Result<K, BadObject> {
    K::deserialize(value).map_err(|error| bad(value, error))
}

/// Amounts may be written as numbers; on the wire they are texts.
fn quantities(list: Option<&mut Value>) {
    for amount in list.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if amount.is_number() {
            *amount = Value::String(amount.to_string());
        }
    }
}

/// Makes the amounts of a container texts, and requests of its limits where it has none of its own.
fn resources(container: &mut Value) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    quantities(resources.get_mut("limits"));
    quantities(resources.get_mut("requests"));
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

/// Sets a field of the metadata where it is not set yet.
fn default_meta(value: &mut Value, field: &str, default: &str) {
    let Some(object) = value.as_object_mut() else { return };
    if let Some(meta) = object.entry("metadata").or_insert_with(|| json!({})).as_object_mut() {
        let known = meta.entry(field).or_insert(Value::Null);
        if known.as_str().unwrap_or_default().is_empty() {
            *known = default.into();
        }
    }
}

/// A pod with the defaults of the API (namespace, requests from limits) and an identity.
///
/// # Errors
/// It is no pod.
pub fn pod(mut value: Value, name: &str, namespace: &str) -> Result<Pod, BadObject> {
    default_meta(&mut value, "name", name);
    default_meta(&mut value, "namespace", namespace);
    let uid = format!("{}/{}", text(&value, "/metadata/namespace"), text(&value, "/metadata/name"));
    default_meta(&mut value, "uid", &uid);
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        for list in ["containers", "initContainers"] {
            spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(resources);
        }
        quantities(spec.get_mut("overhead"));
        for list in ["limits", "requests"] {
            quantities(spec.get_mut("resources").and_then(|resources| resources.get_mut(list)));
        }
    }
    decoded(&value)
}

/// A node with the defaults of the API (allocatable from capacity) and of the kubelet (the label of its name).
///
/// # Errors
/// It is no node.
pub fn node(mut value: Value, name: &str) -> Result<Node, BadObject> {
    default_meta(&mut value, "name", name);
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        quantities(status.get_mut("capacity"));
        quantities(status.get_mut("allocatable"));
        if let Some(capacity) = status.get("capacity").cloned() {
            status.entry("allocatable").or_insert(capacity);
        }
    }
    let mut node: Node = decoded(&value)?;
    let name = node.metadata.name.clone().unwrap_or_default();
    node.metadata.labels.get_or_insert_default().entry("kubernetes.io/hostname".to_owned()).or_insert(name);
    Ok(node)
}

/// An object of another kind, with an identity and a version, and a volume with the phase that its controller would give it.
///
/// # Errors
/// Its metadata is none, or it has no kind.
pub fn other(mut value: Value, name: &str, namespace: Option<&str>) -> Result<Arc<Object>, BadObject> {
    default_meta(&mut value, "name", name);
    if let Some(namespace) = namespace {
        default_meta(&mut value, "namespace", namespace);
    }
    if let Some(spec) = value.get_mut("spec") {
        quantities(spec.get_mut("capacity"));
        quantities(spec.pointer_mut("/resources/requests"));
    }
    let kind = text(&value, "/kind").to_owned();
    if kind.is_empty() {
        return Err(bad(&value, "it has no kind"));
    }
    let uid = [&kind, text(&value, "/metadata/namespace"), text(&value, "/metadata/name")].join("/");
    default_meta(&mut value, "uid", &uid);
    default_meta(&mut value, "resourceVersion", "1");
    if kind == "PersistentVolume" && text(&value, "/status/phase").is_empty() {
        let phase = if value["spec"]["claimRef"].is_object() { "Bound" } else { "Available" };
        value["status"]["phase"] = phase.into();
    }
    Object::from_value(&value).map(Arc::new).map_err(|error| bad(&value, error))
}

/// Whether objects of a kind that scheduling looks at are in no namespace.
pub fn cluster_scoped(kind: &str) -> bool {
    matches!(
        kind,
        "Node"
            | "Namespace"
            | "PersistentVolume"
            | "StorageClass"
            | "CSINode"
            | "CSIDriver"
            | "VolumeAttachment"
            | "ResourceSlice"
            | "DeviceClass"
            | "DeviceTaintRule"
            | "PriorityClass"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_the_defaults_of_the_api() {
        let container =
            json!({"name": "c", "resources": {"limits": {"cpu": 2, "memory": "1Gi"}, "requests": {"cpu": 0.5}}});
        let pod = pod(json!({"kind": "Pod", "spec": {"containers": [container]}}), "p-0", "work").unwrap();
        assert_eq!(pod.metadata.uid.as_deref(), Some("work/p-0"));
        let requests = crate::model::pod_requests(pod.spec.as_ref().unwrap());
        assert_eq!((requests.milli_cpu, requests.memory), (500, 1 << 30));
    }

    #[test]
    fn nodes_get_allocatable_and_their_name_as_a_label() {
        let node = node(json!({"metadata": {}, "status": {"capacity": {"pods": 5}}}), "n-1").unwrap();
        assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/hostname"], "n-1");
        assert_eq!(node.status.unwrap().allocatable.unwrap()["pods"].0, "5");
    }

    #[test]
    fn what_is_no_pod_is_told_by_name() {
        let error = pod(json!({"kind": "Pod", "spec": {"containers": "none"}}), "p", "default").unwrap_err();
        assert!(error.to_string().starts_with("Pod \"p\": invalid type"), "{error}");
    }
}
