//! `AdmissionReview` of admission.k8s.io/v1: the question to a webhook, and its answer.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::super::{list, text};
use crate::{
    Status,
    server::{AdmissionRequest, Operation},
};

/// The question about a write.
pub(super) fn question(request: &AdmissionRequest, uid: &str) -> Value {
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
    let target = json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let old = request.old_object.as_ref().and_then(|old| old.value().ok());
    let mut review = json!({
        "uid": uid,
        "kind": kind,
        "resource": target,
        "requestKind": kind,
        "requestResource": target,
        "operation": match request.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        },
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
        "object": request.object,
        "oldObject": old,
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
            review[field] = value.as_str().into();
        }
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": review})
}

/// What a webhook answered.
#[derive(Debug)]
pub(super) struct Answer {
    allowed: bool,
    status: Option<Status>,
    pub patch: Option<json_patch::Patch>,
    pub warnings: Vec<String>,
}

impl Answer {
    /// Reads the answer to the question with this uid.
    pub fn read(review: &Value, uid: &str) -> Result<Self, String> {
        if (text(&review["apiVersion"]), text(&review["kind"])) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview".to_owned());
        }
        let response = &review["response"];
        if response.is_null() {
            return Err("webhook response was absent".to_owned());
        }
        if text(&response["uid"]) != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"])));
        }
        let patch = match (text(&response["patch"]), text(&response["patchType"])) {
            ("", "") => None,
            (patch, "JSONPatch") if !patch.is_empty() => {
                let bytes = STANDARD.decode(patch).map_err(|error| format!("response.patch: {error}"))?;
                Some(serde_json::from_slice(&bytes).map_err(|error| format!("response.patch: {error}"))?)
            }
            ("", kind) => return Err(format!("webhook returned response.patchType {kind:?} but not response.patch")),
            (_, kind) => return Err(format!("invalid response.patchType {kind:?}: must be JSONPatch")),
        };
        let status: Option<Status> =
            serde_json::from_value(response["status"].clone()).map_err(|error| format!("response.status: {error}"))?;
        let warnings = list(&response["warnings"]).iter().map(|warning| text(warning).to_owned()).collect();
        Ok(Self { allowed: response["allowed"] == true, status, patch, warnings })
    }

    /// The answer, or the refusal in Kubernetes' words (apiserver's `webhook/errors.ToStatusErr`).
    pub fn allowed(self, webhook: &str) -> Result<Self, Status> {
        if self.allowed {
            return Ok(self);
        }
        let mut status = self.status.unwrap_or_default();
        status.code = Some(status.code.unwrap_or(0).max(400));
        status.status = Some("Failure".to_owned());
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let denied = format!("admission webhook {webhook:?} denied the request");
        status.message = Some(match some(&status.message).or_else(|| some(&status.reason)) {
            Some(why) => format!("{denied}: {why}"),
            None => format!("{denied} without explanation"),
        });
        Err(status)
    }
}
