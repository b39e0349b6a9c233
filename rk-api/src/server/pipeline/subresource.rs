//! Posts to subresources: `binding` (see [`Core::bind`]), `eviction`, and questions that the kind's strategy answers (`token`).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};

use super::{Call, Change, Core, Outcome, admit, delete::check_preconditions, meta};
use crate::{
    DeleteOptions, Error, Object, Preconditions, StatusExt, WriteOptions,
    server::{Operation, UserInfo, WriteContext},
    status,
};

/// Seconds after which an eviction is worth another try whose budget has not been looked at since it changed.
const RETRY_EVICTION: i32 = 10;

/// A `Status` that says all went well.
pub(super) fn success() -> Result<Outcome, Error> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Outcome::created(Object::from_value(&status)?.into()))
}

impl Core {
    /// Answers a post to a subresource.
    pub(super) async fn create_subresource(
        &self,
        call: &Call,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Outcome, Error> {
        match call.subresource.as_str() {
            "binding" => self.bind(call, body, options).await,
            "eviction" => self.evict(call, body, options).await,
            _ => self.ask_about(call, body, options).await,
        }
    }

    /// A question about an object, such as a TokenRequest.
    async fn ask_about(&self, call: &Call, mut body: Value, options: &WriteOptions) -> Result<Outcome, Error> {
        self.get(call, "").await?;
        let metadata = meta::fields(&mut body)?;
        metadata.insert("name".to_owned(), call.name.as_str().into());
        metadata.insert("namespace".to_owned(), call.namespace.as_str().into());
        let admission = admit::write_options("CreateOptions", options);
        let mut request = admit::request(call, "create", Operation::Create, Some(body), None, admission);
        self.mutate(&mut request, call).await?;
        self.admit(&request, call).await?;
        let body = request.object.take().unwrap_or_default();
        let context =
            WriteContext { user: &call.user, subresource: &call.subresource, dry_run: options.dry_run, reader: self };
        let answer = call.served.row.strategy.answer(body, &context).await?;
        Ok(Outcome::created(Object::from_value(&answer)?.into()))
    }

    /// Deletes a pod if its disruption budgets allow it.
    async fn evict(&self, call: &Call, mut body: Value, options: &WriteOptions) -> Result<Outcome, Error> {
        let named = meta::text(&body, "name");
        if !named.is_empty() && named != call.name {
            return Err(status::bad_request("name in URL does not match name in Eviction object").into());
        }
        let pod = self.get(call, "").await?;
        let asked = body["deleteOptions"].take();
        let admission = admit::write_options("CreateOptions", options);
        let mut request = admit::request(call, "create", Operation::Create, Some(body), None, admission);
        self.mutate(&mut request, call).await?;
        self.admit(&request, call).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut delete = DeleteOptions {
            dry_run: options.dry_run || asked["dryRun"].as_array().is_some_and(|asked| !asked.is_empty()),
            grace_period_seconds: asked["gracePeriodSeconds"].as_i64(),
            propagation: None,
            preconditions: Preconditions {
                uid: text(&asked["preconditions"]["uid"]),
                resource_version: text(&asked["preconditions"]["resourceVersion"]),
            },
        };
        check_preconditions(call, &delete, &pod)?;
        let state = pod.value()?;
        let phase = state["status"]["phase"].as_str().unwrap_or_default();
        let ended = matches!(phase, "Succeeded" | "Failed") || pod.meta().deletion_timestamp.is_some();
        // No budget pays for one that is not ready. It must not have become so when it ends.
        let unpaid =
            !ended && (phase == "Pending" || !self.take_disruption(call, &pod, &state, delete.dry_run).await?);
        let guarded = unpaid && delete.preconditions.resource_version.is_none();
        if guarded {
            delete.preconditions.resource_version = Some(pod.meta().resource_version.clone());
        }
        match self.end_evicted(call, delete).await {
            Err(error) if guarded && error.is_conflict() => {
                Err(disrupted("The pod has changed while it was evicted.".to_owned())
                    .retry_after(RETRY_EVICTION)
                    .into())
            }
            ended => ended.and_then(|()| success()),
        }
    }

    /// Deletes a pod, which says before why it ends: that decides for a Job whether it counts as a failure.
    async fn end_evicted(&self, call: &Call, mut delete: DeleteOptions) -> Result<(), Error> {
        if !delete.dry_run {
            let evicted = |pod: &Value| {
                // The pod of this name may be another one by now.
                check_preconditions(call, &delete, &Object::from_value(pod)?)?;
                let mut pod = pod.clone();
                set_condition(
                    &mut pod["status"],
                    "DisruptionTarget",
                    "EvictionByEvictionAPI",
                    "Eviction API: evicting",
                );
                Ok(pod)
            };
            let status =
                Call { user: Arc::new(UserInfo::loopback()), ..call.about(&call.namespace, &call.name, "status") };
            let written = self.set(&status, &evicted, &WriteOptions::default()).await?;
            if let Some(version) = &mut delete.preconditions.resource_version {
                version.clone_from(&written.meta().resource_version);
            }
        }
        // Of a deletion nobody is asked once more: an eviction was admitted as such.
        self.delete_admitted(&call.about(&call.namespace, &call.name, ""), &delete).await.map(drop)
    }

    /// Takes one disruption from the pod's budget, if it has one; false if that was not necessary, as the pod is not ready.
    ///
    /// # Errors
    /// 429 if none is left, 500 if there is more than one budget.
    async fn take_disruption(&self, call: &Call, pod: &Object, state: &Value, dry_run: bool) -> Result<bool, Error> {
        let budgets = self.cache.collection("policy/poddisruptionbudgets");
        let mut found = Vec::new();
        for budget in budgets.select(&call.namespace, &crate::LabelSelector::everything()) {
            let value = budget.value()?;
            let Ok(spec) = serde_json::from_value(value["spec"]["selector"].clone()) else { continue };
            let selector = crate::LabelSelector::from_spec(&spec).map_err(status::internal)?;
            // In policy/v1 an absent selector matches nothing and an empty one everything.
            if value["spec"]["selector"].is_object() && selector.matches(&pod.meta().labels) {
                found.push((budget, value));
            }
        }
        let (budget, value) = match found.len() {
            0 => return Ok(true),
            1 => found.remove(0),
            _ => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(status::failure(500, "", why).into());
            }
        };
        let ready = state["status"]["conditions"]
            .as_array()
            .is_some_and(|conditions| conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        let (healthy, desired) = (&value["status"]["currentHealthy"], &value["status"]["desiredHealthy"]);
        let enough =
            healthy.as_i64().unwrap_or(0) >= desired.as_i64().unwrap_or(0) && desired.as_i64().unwrap_or(0) > 0;
        if !ready && (value["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || enough) {
            return Ok(false);
        }
        let name = budget.meta().name.clone();
        let catalog = self.catalog.load();
        let Some(served) = catalog.any_version("policy", "poddisruptionbudgets") else { return Ok(true) };
        let budget_call = Call {
            user: Arc::new(UserInfo::loopback()),
            served: Arc::clone(served),
            ..call.about(&call.namespace, &name, "status")
        };
        let change = |budget: &Value| -> Result<Value, Error> {
            let status = &budget["status"];
            let observed = status["observedGeneration"].as_i64().unwrap_or(0);
            if observed < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
                let cause = format!("The disruption budget {name} is still being processed by the server.");
                return Err(disrupted(cause).retry_after(RETRY_EVICTION).into());
            }
            let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
            if allowed <= 0 {
                let cause = format!(
                    "The disruption budget {name} needs {} healthy pods and has {} currently",
                    status["desiredHealthy"].as_i64().unwrap_or(0),
                    status["currentHealthy"].as_i64().unwrap_or(0)
                );
                return Err(disrupted(cause).into());
            }
            let mut budget = budget.clone();
            budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
            budget["status"]["disruptedPods"][&call.name] = meta::now().into();
            Ok(budget)
        };
        let options = WriteOptions { dry_run, ..WriteOptions::default() };
        self.update(&budget_call, Change::With(&change), &options).await.map(|_| true)
    }
}

/// An eviction that is not possible now.
fn disrupted(cause: String) -> Status {
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    status::failure(429, "TooManyRequests", why).cause("DisruptionBudget", "", &cause)
}

/// Sets a condition in a pod's status to `True`.
pub(super) fn set_condition(status: &mut Value, kind: &str, reason: &str, message: &str) {
    let mut condition =
        json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": meta::now()});
    for (field, text) in [("reason", reason), ("message", message)] {
        if !text.is_empty() {
            condition[field] = text.into();
        }
    }
    let conditions = &mut status["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(found) => {
            // It says since when it is so.
            if found["status"] == condition["status"] {
                condition["lastTransitionTime"] = found["lastTransitionTime"].take();
            }
            *found = condition;
        }
        None => list.push(condition),
    }
}
