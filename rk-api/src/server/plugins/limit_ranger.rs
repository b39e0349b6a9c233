//! Limit ranges: defaults and bounds for what pods and claims of a namespace ask for.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{forbid, is, list, text};
use crate::{
    LabelSelector, Resource, Status,
    quota::{Amounts, amounts, pod_amounts},
    server::{AdmissionRequest, Admit, Operation, Reader},
    status,
};

/// Gives containers the requests and limits that the namespace's LimitRanges have for default, and refuses pods and
/// claims outside their bounds.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitRanger;

async fn ranges(reader: &dyn Reader, namespace: &str) -> Result<Vec<Value>, Status> {
    let all = reader.list("", "limitranges", namespace, &LabelSelector::everything()).await;
    let mut items = Vec::new();
    for range in all.map_err(status::internal)? {
        let range = range.cached(|| range.value()).map_err(status::internal)?;
        items.extend(list(&range["spec"]["limits"]).iter().cloned());
    }
    Ok(items)
}

/// Sets missing requests and limits of one container; what was set, for the annotation.
fn set_defaults(container: &mut Value, items: &[Value], what: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let name = text(&container["name"]).to_owned();
    for (field, source, word) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
        let mut set = Vec::new();
        for item in items.iter().filter(|item| text(&item["type"]) == "Container") {
            for (resource, amount) in item[source].as_object().into_iter().flatten() {
                if !container["resources"][field][resource].is_null() || !can_hold(container, field) {
                    continue;
                }
                container["resources"][field][resource] = amount.clone();
                set.push(resource.clone());
            }
        }
        set.sort();
        if !set.is_empty() {
            notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
        }
    }
    notes
}

/// Makes `resources.requests` or `resources.limits` a map, if nothing else is there.
fn can_hold(container: &mut Value, field: &str) -> bool {
    if !container.is_object() {
        return false;
    }
    if container["resources"].is_null() {
        container["resources"] = json!({});
    }
    if !container["resources"].is_object() {
        return false;
    }
    if container["resources"][field].is_null() {
        container["resources"][field] = json!({});
    }
    container["resources"][field].is_object()
}

/// The bounds of one item that requests and limits break, in Kubernetes' words.
fn broken(item: &Value, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let kind = text(&item["type"]);
    let claim = kind == "PersistentVolumeClaim";
    let mut errors = Vec::new();
    for (name, min) in amounts(&item["min"]) {
        let bound = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => errors.push(format!("{bound}.  No request is specified")),
            (Some(request), _) if *request < min => errors.push(format!("{bound}, but request is {request}")),
            (_, Some(limit)) if *limit < min => errors.push(format!("{bound}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, max) in amounts(&item["max"]) {
        let bound = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) if claim => errors.push(format!("{bound}.  No request is specified")),
            (Some(request), _) if claim && *request > max => errors.push(format!("{bound}, but request is {request}")),
            _ if claim => {}
            (_, None) => errors.push(format!("{bound}.  No limit is specified")),
            (_, Some(limit)) if *limit > max => errors.push(format!("{bound}, but limit is {limit}")),
            (Some(request), _) if *request > max => errors.push(format!("{bound}, but request is {request}")),
            _ => {}
        }
    }
    for (name, max) in amounts(&item["maxLimitRequestRatio"]) {
        let bound = format!("{name} max limit to request ratio per {kind} is {max}");
        let some = |amounts: &Amounts| amounts.get(&name).copied().filter(|amount| !amount.is_zero());
        match (some(requests), some(limits)) {
            (None, _) => errors.push(format!("{bound}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{bound}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > max.as_f64() {
                    errors.push(format!("{bound}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
    errors
}

#[async_trait]
impl Admit for LimitRanger {
    fn name(&self) -> &str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        subresource.is_empty()
            && match operation {
                Operation::Create => is(resource, "", "pods") || is(resource, "", "persistentvolumeclaims"),
                Operation::Update => is(resource, "", "persistentvolumeclaims"),
                Operation::Delete | Operation::Connect => false,
            }
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        if request.resource.plural != "pods" {
            return Ok(());
        }
        let items = ranges(reader, &request.attributes.namespace).await?;
        let Some(pod) = request.object.as_mut().filter(|_| !items.is_empty()) else { return Ok(()) };
        let mut notes = Vec::new();
        for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
            let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(field)).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                notes.extend(set_defaults(container, &items, what));
            }
        }
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            let meta = pod.get_mut("metadata").and_then(Value::as_object_mut);
            let annotations = meta.map(|meta| meta.entry("annotations").or_insert_with(|| json!({})));
            if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
                annotations.insert("kubernetes.io/limit-ranger".to_owned(), note.into());
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(object) = &request.object else { return Ok(()) };
        let items = ranges(reader, &request.attributes.namespace).await?;
        let spec = &object["spec"];
        let pod = request.resource.plural == "pods";
        let mut errors = Vec::new();
        for item in &items {
            match text(&item["type"]) {
                "Container" if pod => {
                    for field in ["containers", "initContainers"] {
                        for container in list(&spec[field]) {
                            let resources = &container["resources"];
                            let (requests, limits) = (amounts(&resources["requests"]), amounts(&resources["limits"]));
                            errors.extend(broken(item, &requests, &limits));
                        }
                    }
                }
                "Pod" if pod => {
                    errors.extend(broken(item, &pod_amounts(spec, "requests"), &pod_amounts(spec, "limits")));
                }
                "PersistentVolumeClaim" if !pod => {
                    errors.extend(broken(item, &amounts(&spec["resources"]["requests"]), &Amounts::new()));
                }
                _ => {}
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(forbid(request, one)),
            several => Err(forbid(request, &format!("[{}]", several.join(", ")))),
        }
    }
}
