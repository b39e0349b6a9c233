//! The rules of environment variables and their sources.

use serde_json::Value;

use crate::server::kinds::{
    field::{Errors, Path},
    names,
    value::Peek,
};

/// The fields of a pod that a variable may take.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The resources of a container that a variable or a file may take.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// The rules of `env` and `envFrom` of a container.
pub fn validate(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("env");
    for (i, variable) in container.list("env").iter().enumerate() {
        let path = list.index(i);
        let name = variable.text("name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), name, names::env_name(name));
        }
        if variable.has("valueFrom") {
            value_from(variable, &path.child("valueFrom"), errors);
        }
    }
    let list = path.child("envFrom");
    for (i, source) in container.list("envFrom").iter().enumerate() {
        let path = list.index(i);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            errors.invalid_all(&path.child("prefix"), prefix, names::env_name(prefix));
        }
        let refs: Vec<_> = ["configMapRef", "secretRef"].into_iter().filter(|name| source.has(name)).collect();
        for name in &refs {
            object_name(source.at(name), &path.child(name), errors);
        }
        match refs.len() {
            0 => errors.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(variable: &Value, path: &Path<'_>, errors: &mut Errors) {
    let from = variable.at("valueFrom");
    let mut count = 0;
    if from.has("fieldRef") {
        count += 1;
        field_ref(from.at("fieldRef"), ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if from.has("resourceFieldRef") {
        count += 1;
        resource_ref(from.at("resourceFieldRef"), false, &path.child("resourceFieldRef"), errors);
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if from.has(source) {
            count += 1;
            key_ref(from.at(source), &path.child(source), errors);
        }
    }
    if from.has("fileKeyRef") {
        count += 1;
        file_ref(from.at("fileKeyRef"), &path.child("fileKeyRef"), errors);
    }
    if count == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef`, or `fileKeyRef`";
        errors.invalid(path, "", detail);
    }
    if !variable.text("value").is_empty() && count > 0 {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_ref(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    object_name(source, path, errors);
    let key = source.text("key");
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.invalid_all(&path.child("key"), key, names::config_key(key));
    }
}

fn file_ref(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["key", "volumeName", "path"] {
        if source.text(field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
}

fn object_name(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = source.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), name, names::dns_subdomain(name));
    }
}

/// A reference to a field of the pod, of which `fields` may be taken, and its labels and annotations by key.
pub fn field_ref(source: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let field = source.text("fieldPath");
    let version = source.text("apiVersion");
    if version.is_empty() {
        errors.required(&path.child("apiVersion"), "");
        return;
    }
    if field.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    let path = path.child("fieldPath");
    if version != "v1" {
        errors.invalid(&path, field, &format!("error converting fieldPath: unsupported pod version: {version}"));
        return;
    }
    if let Some((head, key)) = field.strip_suffix("']").and_then(|field| field.split_once("['")) {
        match head {
            "metadata.annotations" => {
                errors.invalid_all(&path, field, names::qualified_name(&key.to_ascii_lowercase()));
            }
            "metadata.labels" => errors.invalid_all(&path, field, names::qualified_name(key)),
            _ => errors.invalid(&path, field, &format!("{head:?} does not support subscript")),
        }
        return;
    }
    if !fields.contains(&field) {
        let known = super::SELECTABLE.contains(&field) || matches!(field, "metadata.labels" | "metadata.annotations");
        if known {
            errors.not_supported(&path, field, fields);
        } else {
            errors.invalid(&path, field, &format!("error converting fieldPath: field label not supported: {field}"));
        }
    }
}

/// A reference to a container's resource. In a volume it must name the container.
pub fn resource_ref(source: &Value, in_volume: bool, path: &Path<'_>, errors: &mut Errors) {
    let resource = source.text("resource");
    if in_volume && source.text("containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource)
        && !["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix))
    {
        errors.not_supported(&path.child("resource"), resource, RESOURCES);
    }
    let divisor = source.text("divisor");
    if !divisor.is_empty() && divisor != "0" {
        let allowed: &[&str] = if resource.ends_with(".cpu") {
            &["1m", "1"]
        } else {
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
        };
        let what = if resource.ends_with(".cpu") {
            "only divisor's values 1m and 1 are supported with the cpu resource"
        } else {
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory, \
             ephemeral-storage and hugepages resources"
        };
        if !allowed.contains(&divisor) {
            errors.invalid(&path.child("divisor"), divisor, what);
        }
    }
}
