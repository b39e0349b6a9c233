//! The `scale` subresource: an `autoscaling/v1` Scale that shows, and sets, an object's replicas.

use serde_json::{Value, json};

use super::meta;
use crate::{
    Error,
    server::{apply, catalog::ScalePaths},
    status,
};

/// What a dotted path (with or without a leading dot) leads to.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|part| !part.is_empty()).fold(object, |value, part| &value[part])
}

/// A label selector as text: it may be kept as text or as an object.
fn selector(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    if value.get("matchLabels").is_none() && value.get("matchExpressions").is_none() {
        // A ReplicationController's plain map.
        let pairs = value.as_object().into_iter().flatten();
        return pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",");
    }
    serde_json::from_value(value.clone())
        .ok()
        .and_then(|spec| crate::LabelSelector::from_spec(&spec).ok())
        .map(|selector| selector.to_string())
        .unwrap_or_default()
}

/// The Scale of an object, with who owns the replicas: for an apply.
pub(super) fn owned_scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let mut scale = scale_of(object, paths);
    if let Some(managers) = apply::scale::of_scale(object, &paths.spec_replicas) {
        scale["metadata"]["managedFields"] = managers;
    }
    scale
}

/// Has the managers of a Scale own the replicas of its object of this version.
///
/// # Errors
/// 400 if the object has no metadata.
pub(super) fn own(object: &mut Value, scale: &Value, paths: &ScalePaths, api_version: &str) -> Result<(), Error> {
    let managers = apply::scale::of_object(object, scale, &paths.spec_replicas, api_version);
    let metadata = meta::fields(object)?;
    match managers {
        Some(managers) => metadata.insert("managedFields".to_owned(), managers),
        None => metadata.remove("managedFields"),
    };
    Ok(())
}

/// The Scale of an object.
pub(super) fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0)});
    if !paths.selector.is_empty() {
        status["selector"] = selector(at(object, &paths.selector)).into();
    }
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
        "spec": {"replicas": at(object, &paths.spec_replicas).as_i64().unwrap_or(0)}, "status": status,
    })
}

/// The object with a Scale's replicas, and with the version that the Scale names.
///
/// # Errors
/// 422 for negative replicas, 500 if the object (a custom one) is not as the path of its replicas says.
pub(super) fn apply_scale(object: &Value, scale: &Value, paths: &ScalePaths) -> Result<Value, Error> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        use crate::StatusExt;
        return Err(status::failure(
            422,
            "Invalid",
            format!("Scale.autoscaling {name:?} is invalid: spec.replicas: {message}"),
        )
        .about("autoscaling", "Scale", name)
        .cause("FieldValueInvalid", "spec.replicas", &message)
        .into());
    }
    let mut changed = object.clone();
    let mut target = &mut changed;
    for part in paths.spec_replicas.split('.').filter(|part| !part.is_empty()) {
        if target.is_null() {
            *target = json!({});
        }
        let wrong = || status::internal(format!("{} of the object leads through no object", paths.spec_replicas));
        target = target.as_object_mut().ok_or_else(wrong)?.entry(part).or_insert(Value::Null);
    }
    *target = replicas.into();
    changed["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_set_where_the_path_leads() {
        let paths = ScalePaths {
            spec_replicas: ".spec.size.count".to_owned(),
            status_replicas: String::new(),
            selector: String::new(),
        };
        let scale = json!({"spec": {"replicas": 3}});
        let set = |object: Value| apply_scale(&object, &scale, &paths);
        assert_eq!(set(json!({"spec": {}})).unwrap()["spec"]["size"]["count"], 3);
        for odd in [json!({"spec": "x"}), json!({"spec": {"size": [1]}})] {
            assert_eq!(set(odd).unwrap_err().code(), 500);
        }
    }
}
