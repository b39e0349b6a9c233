//! The rules of metadata that hold for every kind (apiserver's `registry/rest` and `api/validation`).

use std::cell::RefCell;

use rand::RngExt;
use serde_json::{Map, Value};

use super::Call;
use crate::{Error, status};

/// What generated names are made of: no vowels (no words), nothing that is mistaken for something else.
const NAME_CHARS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest `generateName` that is not cut, so that with its suffix it still is a label.
const GENERATE_MAX: usize = 58;

/// Now, as RFC 3339 in whole seconds, written once a second.
pub(crate) fn now() -> String {
    thread_local! {
        static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let now = crate::now();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() {
            (*second, *text) = (now.as_second(), now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        text.clone()
    })
}

/// A name from `metadata.generateName`, or one like it.
pub(crate) fn generate_name(base: &str) -> String {
    let mut cut = base.len().min(GENERATE_MAX);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut rng = rand::rng();
    let suffix = (0..5).map(|_| char::from(NAME_CHARS[rng.random_range(0..NAME_CHARS.len())]));
    base[..cut].chars().chain(suffix).collect()
}

/// Kinds of the API that count `metadata.generation`; custom resources all do.
const GENERATION: [&str; 26] = [
    "Pod",
    "ReplicationController",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "Ingress",
    "IngressClass",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PriorityClass",
    "CustomResourceDefinition",
    "APIService",
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "FlowSchema",
    "PriorityLevelConfiguration",
    "EndpointSlice",
    "DeviceClass",
    "ResourceSlice",
];

pub(super) fn counts_generation(call: &Call) -> bool {
    call.served.custom || GENERATION.contains(&call.resource().kind.as_ref())
}

/// The object's metadata.
///
/// # Errors
/// 400 if there is none where it must be.
pub(super) fn fields(object: &mut Value) -> Result<&mut Map<String, Value>, Error> {
    if !object.is_object() {
        return Err(status::bad_request("the object provided is not a JSON object").into());
    }
    let metadata = &mut object["metadata"];
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().ok_or_else(|| status::bad_request("metadata is not a JSON object").into())
}

/// A text of the metadata, empty if it is not there.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Checks that a body is of the kind and version that its URL says, and sets both where they are absent.
///
/// # Errors
/// 400 if they differ.
pub(super) fn check_kind(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Error> {
    fields(object)?;
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        match object.get(field).and_then(Value::as_str) {
            None | Some("") => object[field] = wanted.into(),
            Some(found) if found == wanted => {}
            Some(found) if field == "apiVersion" => {
                return Err(status::bad_request(format!(
                    "the API version in the data ({found}) does not match the expected API version ({wanted})"
                ))
                .into());
            }
            Some(found) => {
                return Err(status::bad_request(format!(
                    "{found} in version {:?} cannot be handled as a {wanted}: no kind {found:?} is registered for this resource",
                    api_version.rsplit('/').next().unwrap_or_default()
                ))
                .into());
            }
        }
    }
    Ok(())
}

/// Sets the namespace of the URL in a body, or checks that both agree.
///
/// # Errors
/// 400 if they differ.
pub(super) fn check_namespace(object: &mut Value, call: &Call) -> Result<(), Error> {
    let metadata = fields(object)?;
    if call.namespace.is_empty() {
        metadata.remove("namespace");
        return Ok(());
    }
    match metadata.get("namespace").and_then(Value::as_str) {
        None | Some("") => {
            metadata.insert("namespace".to_owned(), call.namespace.as_str().into());
            Ok(())
        }
        Some(found) if found == call.namespace => Ok(()),
        Some(_) => Err(status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )
        .into()),
    }
}

/// Sets what only the server may set on a new object.
pub(super) fn fill(object: &mut Value, call: &Call) -> Result<(), Error> {
    let metadata = fields(object)?;
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
    if counts_generation(call) {
        metadata.insert("generation".to_owned(), 1.into());
    }
    Ok(())
}

/// Whether anything but metadata and status differs: the wanted state.
pub(super) fn spec_differs(new: &Value, old: &Value) -> bool {
    let wanted = |object: &Value| -> usize {
        object
            .as_object()
            .map_or(0, |fields| fields.keys().filter(|key| !matches!(key.as_str(), "metadata" | "status")).count())
    };
    wanted(new) != wanted(old)
        || new
            .as_object()
            .into_iter()
            .flatten()
            .any(|(key, value)| !matches!(key.as_str(), "metadata" | "status") && old.get(key) != Some(value))
}
