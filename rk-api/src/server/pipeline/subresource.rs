//! Posts to subresources: `binding`, `eviction`, and questions that the kind's strategy answers (`token`).

use serde_json::{Value, json};

use super::{Call, Change, Core, Outcome, admit, meta};
use crate::{
    DeleteOptions, Error, Object, Preconditions, StatusExt, WriteOptions,
    server::{Operation, WriteContext},
    status,
};

/// A `Status` that says all went well.
fn success() -> Result<Outcome, Error> {
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

    /// Gives a pod to a node, once.
    pub(super) async fn bind(&self, call: &Call, body: Value, options: &WriteOptions) -> Result<Outcome, Error> {
        let node = body["target"]["name"].as_str().unwrap_or_default().to_owned();
        let kind = body["target"]["kind"].as_str().unwrap_or_default();
        let named = meta::text(&body, "name");
        if !named.is_empty() && named != call.name {
            return Err(status::bad_request("name in URL does not match name in Binding object").into());
        }
        let mut wrong = Vec::new();
        if !matches!(kind, "" | "Node") {
            wrong.push(format!("target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""));
        }
        if node.is_empty() {
            wrong.push("target.name: Required value".to_owned());
        }
        // Kubernetes answers these as failures of its own, with no causes (`BindingREST.Create`).
        match wrong.as_slice() {
            [] => {}
            [one] => return Err(status::failure(500, "", one).into()),
            all => return Err(status::failure(500, "", format!("[{}]", all.join(", "))).into()),
        }
        let uid = meta::text(&body, "uid").to_owned();
        let version = meta::text(&body, "resourceVersion").to_owned();
        let annotations = body["metadata"]["annotations"].clone();
        let conflict = |why: String| Error::from(status::conflict(call.resource(), &call.name, &why));
        let change = |pod: &Value| -> Result<Value, Error> {
            let found = meta::text(pod, "uid");
            if !uid.is_empty() && uid != found {
                return Err(conflict(format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
                )));
            }
            if !version.is_empty() && version != meta::text(pod, "resourceVersion") {
                return Err(conflict(status::MODIFIED.to_owned()));
            }
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", call.name)));
            }
            if let Some(taken) = pod["spec"]["nodeName"].as_str().filter(|taken| !taken.is_empty()) {
                return Err(conflict(format!("pod {} is already assigned to node {taken:?}", call.name)));
            }
            if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
                return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", call.name)));
            }
            let mut pod = pod.clone();
            pod["spec"]["nodeName"] = node.as_str().into();
            for (key, value) in annotations.as_object().into_iter().flatten() {
                pod["metadata"]["annotations"][key] = value.clone();
            }
            scheduled(&mut pod);
            Ok(pod)
        };
        self.update(call, Change::With(&change), options).await?;
        success()
    }

    /// Deletes a pod if its disruption budgets allow it.
    async fn evict(&self, call: &Call, mut body: Value, options: &WriteOptions) -> Result<Outcome, Error> {
        let pod = self.get(call, "").await?;
        let asked = body["deleteOptions"].take();
        let admission = admit::write_options("CreateOptions", options);
        let mut request = admit::request(call, "create", Operation::Create, Some(body), None, admission);
        self.mutate(&mut request, call).await?;
        self.admit(&request, call).await?;
        let state = pod.value()?;
        let phase = state["status"]["phase"].as_str().unwrap_or_default();
        let counts = !matches!(phase, "Succeeded" | "Failed" | "Pending") && pod.meta().deletion_timestamp.is_none();
        let dry_run = options.dry_run || !asked["dryRun"].is_null();
        if counts {
            self.take_disruption(call, &pod, &state, dry_run).await?;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let preconditions = Preconditions {
            uid: text(&asked["preconditions"]["uid"]),
            resource_version: text(&asked["preconditions"]["resourceVersion"]),
        };
        let delete = DeleteOptions {
            dry_run,
            grace_period_seconds: asked["gracePeriodSeconds"].as_i64(),
            propagation: None,
            preconditions,
        };
        let pod_call = Call {
            user: std::sync::Arc::clone(&call.user),
            served: std::sync::Arc::clone(&call.served),
            namespace: call.namespace.clone(),
            name: call.name.clone(),
            subresource: String::new(),
            warnings: parking_lot::Mutex::default(),
        };
        self.delete(&pod_call, &delete).await?;
        success()
    }

    /// Takes one disruption from the pod's budget.
    ///
    /// # Errors
    /// 429 if none is left, 500 if there is more than one budget.
    async fn take_disruption(&self, call: &Call, pod: &Object, state: &Value, dry_run: bool) -> Result<(), Error> {
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
            0 => return Ok(()),
            1 => found.remove(0),
            _ => {
                return Err(status::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                )
                .into());
            }
        };
        let ready = state["status"]["conditions"]
            .as_array()
            .is_some_and(|conditions| conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        let (healthy, desired) = (&value["status"]["currentHealthy"], &value["status"]["desiredHealthy"]);
        let enough =
            healthy.as_i64().unwrap_or(0) >= desired.as_i64().unwrap_or(0) && desired.as_i64().unwrap_or(0) > 0;
        if !ready && (value["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || enough) {
            return Ok(());
        }
        let name = budget.meta().name.clone();
        let refuse = |cause: String| -> Error {
            status::failure(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
                .cause("DisruptionBudget", "", &cause)
                .into()
        };
        let catalog = self.catalog.load();
        let Some(served) = catalog.any_version("policy", "poddisruptionbudgets") else { return Ok(()) };
        let budget_call = Call {
            user: std::sync::Arc::new(crate::server::UserInfo::loopback()),
            served: std::sync::Arc::clone(served),
            namespace: call.namespace.clone(),
            name: name.clone(),
            subresource: "status".to_owned(),
            warnings: parking_lot::Mutex::default(),
        };
        let change = |budget: &Value| -> Result<Value, Error> {
            let status = &budget["status"];
            let observed = status["observedGeneration"].as_i64().unwrap_or(0);
            if observed < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
                return Err(refuse(format!("The disruption budget {name} is still being processed by the server.")));
            }
            let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
            if allowed <= 0 {
                return Err(refuse(format!(
                    "The disruption budget {name} needs {} healthy pods and has {} currently",
                    status["desiredHealthy"].as_i64().unwrap_or(0),
                    status["currentHealthy"].as_i64().unwrap_or(0)
                )));
            }
            let mut budget = budget.clone();
            budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
            budget["status"]["disruptedPods"][&call.name] = meta::now().into();
            Ok(budget)
        };
        let options = WriteOptions { dry_run, ..WriteOptions::default() };
        self.update(&budget_call, Change::With(&change), &options).await.map(|_| ())
    }
}

/// Sets the condition `PodScheduled`.
fn scheduled(pod: &mut Value) {
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": meta::now()});
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(found) => *found = condition,
        None => list.push(condition),
    }
}
