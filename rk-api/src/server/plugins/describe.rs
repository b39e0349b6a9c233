//! A write as webhooks and policies see it: the `AdmissionRequest` of admission.k8s.io/v1.

use std::sync::Arc;

use serde_json::{Value, json};

use super::select::operation;
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Reader},
    status,
};

/// The object and the old object of a write in the version of `to`; null where there is none.
pub(super) async fn objects(
    request: &AdmissionRequest,
    reader: &dyn Reader,
    to: &Resource,
) -> Result<(Value, Arc<Value>), Status> {
    let object = request.object.clone().unwrap_or_default();
    let object = convert(object, &request.resource, to, reader).await?;
    let old = match request.old_value()? {
        None => Arc::default(),
        Some(old) if shown_so(&old, &request.resource, to) => old,
        Some(old) => Arc::new(convert(Value::clone(&old), &request.resource, to, reader).await?),
    };
    Ok((object, old))
}

/// Whether an object of one version of a resource is shown in the other as it is. Bodies of subresources always are.
fn shown_so(object: &Value, from: &Resource, to: &Resource) -> bool {
    from.version == to.version || object["kind"] != *from.kind
}

/// An object of one version of a resource in another.
pub(super) async fn convert(
    object: Value,
    from: &Resource,
    to: &Resource,
    reader: &dyn Reader,
) -> Result<Value, Status> {
    if shown_so(&object, from, to) {
        return Ok(object);
    }
    reader.convert(object, from, to).await.map_err(status::internal)
}

/// The request without the objects, which are shown in the version of `shown`.
pub(super) fn describe(request: &AdmissionRequest, shown: &Resource) -> Value {
    let resource = &request.resource;
    let user = &request.attributes.user;
    // A subresource may have a kind of its own, which its body names.
    let body = request.object.as_ref();
    let named = body.and_then(|body| Some((body["apiVersion"].as_str()?, body["kind"].as_str()?)));
    let kind = match named {
        Some((api_version, kind)) => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            json!({"group": group, "version": version, "kind": kind})
        }
        None => json!({"group": resource.group, "version": resource.version, "kind": resource.kind}),
    };
    let target = |resource: &Resource| json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let mut shown_kind = kind.clone();
    if kind["kind"] == *resource.kind {
        shown_kind["version"] = shown.version.as_ref().into();
    }
    let mut described = json!({
        "kind": shown_kind,
        "resource": target(shown),
        "requestKind": kind,
        "requestResource": target(resource),
        "operation": operation(request.operation),
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
        "dryRun": request.dry_run,
        "options": request.options,
    });
    let attributes = &request.attributes;
    for (field, value) in [
        ("name", &attributes.name),
        ("namespace", &attributes.namespace),
        ("subResource", &attributes.subresource),
        ("requestSubResource", &attributes.subresource),
    ] {
        if !value.is_empty() {
            described[field] = value.as_str().into();
        }
    }
    described
}
