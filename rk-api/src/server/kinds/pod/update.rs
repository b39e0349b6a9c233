//! What may change in a pod that is there: images, tolerations (more of them), the deadline (shorter), and while it is gated, where
//! it may run. Subresources change what is theirs.

use std::collections::HashSet;

use serde_json::Value;

use crate::server::kinds::{
    field::{Errors, Path},
    names,
    value::{Peek, object_mut, remove, same, set},
};

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                    `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The rules of a change.
pub fn validate(new: &Value, old: &Value, subresource: &str, errors: &mut Errors) {
    match subresource {
        "" => spec(new, old, errors),
        "status" => status(new, old, errors),
        "ephemeralcontainers" => ephemeral(new, old, errors),
        "resize" => resize(new, old, errors),
        _ => {}
    }
}

fn spec(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old, path) = (new.at("spec"), old.at("spec"), Path::Root.child("spec"));
    // Most updates of pods touch only metadata.
    if same(new, old) {
        return;
    }
    for list in ["containers", "initContainers"] {
        if new.list(list).len() != old.list(list).len() {
            errors.forbidden(&path.child(list), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(new, old, &path.child("activeDeadlineSeconds"), errors);
    tolerations(new, old, &path.child("tolerations"), errors);
    let gated = !old.list("schedulingGates").is_empty();
    gates(new, old, &path.child("schedulingGates"), errors);
    if gated {
        gated_node_rules(new, old, &path, errors);
    }
    // The rest must be as it was: put back what may change and compare.
    let mut rest = new.clone();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put_back(&mut rest, old, field);
    }
    if gated {
        put_back(&mut rest, old, "nodeSelector");
        put_back(&mut rest, old, "affinity");
    }
    if old.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && new.int("terminationGracePeriodSeconds") == Some(1)
    {
        put_back(&mut rest, old, "terminationGracePeriodSeconds");
    }
    for list in ["containers", "initContainers"] {
        if let Some(Value::Array(containers)) = rest.get_mut(list) {
            for (container, before) in containers.iter_mut().zip(old.list(list)) {
                put_back(container, before, "image");
            }
        }
    }
    if !same(&rest, old) {
        errors.forbidden(&path, &format!("{ONLY}\n{}", difference(&rest, old)));
    }
}

fn put_back(value: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(before) => set(value, field, before.clone()),
        None => {
            remove(value, field);
        }
    }
}

/// The fields that differ, each with its new and old value.
fn difference(new: &Value, old: &Value) -> String {
    let fields: HashSet<&String> =
        new.as_object().into_iter().chain(old.as_object()).flat_map(serde_json::Map::keys).collect();
    let mut fields: Vec<_> = fields.into_iter().filter(|field| !same(new.at(field), old.at(field))).collect();
    fields.sort();
    let lines = fields.iter().map(|field| format!("-  {field}: {}\n+  {field}: {}", old.at(field), new.at(field)));
    lines.collect::<Vec<_>>().join("\n")
}

fn deadline(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (new.int("activeDeadlineSeconds"), old.int("activeDeadlineSeconds")) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, &new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => errors.invalid(path, &Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let key = |toleration: &Value| {
        ["key", "operator", "value", "effect"].map(|field| match (field, toleration.text(field)) {
            ("operator", "") => "Equal".to_owned(),
            (_, text) => text.to_owned(),
        })
    };
    for before in old.list("tolerations") {
        let kept = new.list("tolerations").iter().any(|after| key(after) == key(before));
        if !kept {
            errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
            return;
        }
    }
}

fn gates(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    for gate in new.list("schedulingGates") {
        let name = gate.text("name");
        if !old.list("schedulingGates").iter().any(|before| before.text("name") == name) {
            errors.forbidden(path, &format!("only deletion is allowed, but found new scheduling gate '{name}'"));
        }
    }
}

/// While a pod is gated, where it may run can only become narrower.
fn gated_node_rules(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kept = old.entries("nodeSelector").all(|(key, value)| new.at("nodeSelector").get(key) == Some(value));
    if !kept {
        errors.invalid(
            &path.child("nodeSelector"),
            new.at("nodeSelector"),
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
    let required = "nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (before, after) = (old.at("affinity").list(required), new.at("affinity").list(required));
    if before.is_empty() {
        return;
    }
    let path = path.child("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    if before.len() != after.len() {
        errors.invalid(
            &path.child("nodeSelectorTerms"),
            new.at("affinity").at(required),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    let list = path.child("nodeSelectorTerms");
    for (i, (before, after)) in before.iter().zip(after).enumerate() {
        let kept = ["matchExpressions", "matchFields"]
            .iter()
            .all(|field| before.list(field).iter().all(|requirement| after.list(field).contains(requirement)));
        if !kept {
            errors.invalid(&list.index(i), after, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// What nodes report: the node a pod was bound to stays, and a container that ended for good does not run again.
fn status(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::Root.child("status");
    let nominated = new.text("status.nominatedNodeName");
    if !nominated.is_empty() {
        errors.invalid_all(&path.child("nominatedNodeName"), nominated, names::dns_subdomain(nominated));
    }
    if !old.text("status.qosClass").is_empty() && new.text("status.qosClass") != old.text("status.qosClass") {
        errors.invalid(&path.child("qosClass"), new.text("status.qosClass"), "field is immutable");
    }
    for (list, specs) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        let list_path = path.child(list);
        let policy = old.text("spec.restartPolicy");
        for (i, before) in old.at("status").list(list).iter().enumerate() {
            let ended = before.at("state.terminated");
            let spec =
                old.at("spec").list(specs).iter().find(|container| container.text("name") == before.text("name"));
            let own = spec.map_or("", |container| container.text("restartPolicy"));
            let stays =
                own.is_empty() && (policy == "Never" || (policy == "OnFailure" && ended.int("exitCode") == Some(0)));
            let after = new.at("status").list(list).iter().find(|after| after.text("name") == before.text("name"));
            if !ended.is_null() && stays && after.is_some_and(|after| !after.has("state.terminated")) {
                errors.forbidden(&list_path.index(i).child("state"), "may not be transitioned to non-terminated state");
            }
        }
    }
}

/// Ephemeral containers can be added, not changed or removed.
fn ephemeral(new: &Value, old: &Value, errors: &mut Errors) {
    let spec_path = Path::Root.child("spec");
    super::spec::validate(new.at("spec"), &spec_path, errors);
    let path = spec_path.child("ephemeralContainers");
    let (new, old) = (new.list("spec.ephemeralContainers"), old.list("spec.ephemeralContainers"));
    for before in old {
        let name = before.text("name");
        match new.iter().position(|after| after.text("name") == name) {
            None => errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(i) if !same(&new[i], before) => {
                errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// A resize changes cpu and memory of containers, and leaves the pod's quality-of-service class.
fn resize(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::Root.child("spec");
    super::spec::validate(new.at("spec"), &path, errors);
    if super::qos::class(new) != super::qos::class(old) {
        errors.invalid(&path, super::qos::class(new), "Pod QOS Class may not change as a result of resizing");
    }
    let (after, before) = (new.at("spec"), old.at("spec"));
    for list in ["containers", "initContainers"] {
        let list_path = path.child(list);
        for (i, (after, before)) in after.list(list).iter().zip(before.list(list)).enumerate() {
            let container_path = list_path.index(i);
            if after.text("name") != before.text("name") {
                errors.forbidden(&container_path.child("name"), "containers may not be renamed or reordered on resize");
            }
            nothing_removed(after.at("resources"), before.at("resources"), &container_path.child("resources"), errors);
        }
    }
    nothing_removed(after.at("resources"), before.at("resources"), &path.child("resources"), errors);
    let mut rest = after.clone();
    if rest.has("resources") {
        put_back_amounts(&mut rest, before, "requests");
        put_back_amounts(&mut rest, before, "limits");
    }
    for list in ["containers", "initContainers"] {
        if let Some(Value::Array(containers)) = rest.get_mut(list) {
            for (container, before) in containers.iter_mut().zip(before.list(list)) {
                put_back_amounts(container, before, "requests");
                put_back_amounts(container, before, "limits");
            }
        }
    }
    if !same(&rest, before) {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

/// A resize changes amounts; what is requested or limited stays so.
fn nothing_removed(after: &Value, before: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (kind, detail) in
        [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
    {
        if before.entries(kind).any(|(name, _)| after.at(kind).get(name).is_none()) {
            errors.forbidden(&path.child(kind), detail);
        }
    }
}

/// Puts back the cpu and memory of a list of the resources of a container or a pod.
fn put_back_amounts(owner: &mut Value, before: &Value, kind: &str) {
    let Some(resources) = object_mut(owner, "resources") else { return };
    let Some(amounts) = object_mut(resources, kind) else { return };
    for name in ["cpu", "memory"] {
        put_back(amounts, before.at("resources").at(kind), name);
    }
}
