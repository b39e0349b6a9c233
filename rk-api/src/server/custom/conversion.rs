//! Conversion of custom resources between versions by a webhook
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion>).

use std::sync::Weak;

use serde_json::{Value, json};

use crate::{Error, server::Reader, status};

/// How the objects of a definition are converted.
pub(crate) struct Converter {
    client: Value,
    /// `example.com` and `Kind`, for errors.
    group: String,
    kind: String,
    reader: Weak<dyn Reader>,
}

impl Converter {
    /// The converter of a definition; `None` if versions differ in nothing but their name.
    pub(super) fn of(spec: &Value, reader: &Weak<dyn Reader>) -> Option<Self> {
        let conversion = &spec["conversion"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (conversion["strategy"] == "Webhook").then(|| Self {
            client: conversion["webhook"]["clientConfig"].clone(),
            group: text(&spec["group"]),
            kind: text(&spec["names"]["kind"]),
            reader: Weak::clone(reader),
        })
    }

    /// Objects in the version `to`, in the same order.
    ///
    /// # Errors
    /// 500: the webhook can't be asked, or answers something else.
    pub(crate) async fn convert(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, Error> {
        let found = objects.first().map(|object| object["apiVersion"].as_str().unwrap_or_default().to_owned());
        let converted = self.ask(objects, to).await;
        converted.map_err(|why| {
            let from = found.unwrap_or_default();
            let version = from.rsplit('/').next().unwrap_or_default();
            let kind = format!("{}/{version}, Kind={}", self.group, self.kind);
            status::failure(500, "InternalError", format!("conversion webhook for {kind} failed: {why}")).into()
        })
    }

    async fn ask(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects}});
        let mut answer = self.call(&review).await?;
        let response = answer["response"].take();
        if response["uid"] != uid {
            return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
        }
        if response["result"]["status"] != "Success" {
            return Err(response["result"]["message"].as_str().unwrap_or("the conversion did not succeed").to_owned());
        }
        let converted = response["convertedObjects"].as_array().cloned().unwrap_or_default();
        if converted.len() != objects.len() {
            return Err(format!("expected {} converted objects, got {}", objects.len(), converted.len()));
        }
        objects.iter().zip(converted).map(|(object, converted)| self.checked(object, converted, to)).collect()
    }

    /// A converted object: of the right kind, with the metadata that a conversion may not change.
    fn checked(&self, object: &Value, mut converted: Value, to: &str) -> Result<Value, String> {
        if converted["apiVersion"] != to || converted["kind"] != object["kind"] {
            return Err(format!(
                "a converted object is of {} {}, expected {to}",
                converted["apiVersion"], converted["kind"]
            ));
        }
        let metadata = converted["metadata"].as_object_mut().ok_or("a converted object has no metadata")?;
        for field in ["name", "namespace", "uid"] {
            if metadata.get(field) != object["metadata"].get(field) {
                return Err(format!("a converted object has another metadata.{field}"));
            }
        }
        let changed = ["labels", "annotations"].map(|field| (field, metadata.remove(field)));
        *metadata = object["metadata"].as_object().cloned().unwrap_or_default();
        for (field, value) in changed {
            match value {
                Some(value) => metadata.insert(field.to_owned(), value),
                None => metadata.remove(field),
            };
        }
        Ok(converted)
    }

    #[cfg(feature = "serve")]
    async fn call(&self, review: &Value) -> Result<Value, String> {
        /// How long a conversion may take (apiextensions' conversion webhooks).
        const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
        let reader = self.reader.upgrade().ok_or("the server has ended")?;
        let asked = crate::server::plugins::call_webhook(&self.client, review, &*reader);
        tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| "no answer in time".to_owned())?
    }

    #[cfg(not(feature = "serve"))]
    async fn call(&self, _review: &Value) -> Result<Value, String> {
        let _ = (&self.client, &self.reader);
        Err("this server was built without what calls webhooks".to_owned())
    }
}
