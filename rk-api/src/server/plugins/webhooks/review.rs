//! `AdmissionReview` of admission.k8s.io/v1: the question to a webhook, and its answer.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::super::{describe::describe, list, text};
use crate::{
    Resource, Status,
    server::{AdmissionRequest, Notes},
};

/// The question about a write, whose objects are shown in the version of `shown`.
pub(super) fn question(
    request: &AdmissionRequest,
    shown: &Resource,
    (object, old): (Value, Arc<Value>),
    uid: &str,
) -> Value {
    let mut review = describe(request, shown);
    review["uid"] = uid.into();
    (review["object"], review["oldObject"]) = (object, Arc::unwrap_or_clone(old));
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": review})
}

/// What a webhook answered.
#[derive(Debug)]
pub(super) struct Answer {
    allowed: bool,
    status: Option<Status>,
    pub patch: Option<json_patch::Patch>,
    pub warnings: Vec<String>,
    annotations: Vec<(String, String)>,
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
        let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
        let annotations = annotations.map(|(key, value)| (key.clone(), text(value).to_owned())).collect();
        Ok(Self { allowed: response["allowed"] == true, status, patch, warnings, annotations })
    }

    /// Tells the audit log what the webhook says to it.
    pub fn annotate(&self, webhook: &str, notes: &Notes) {
        for (key, value) in &self.annotations {
            notes.annotate(format!("{webhook}/{key}"), value);
        }
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
