//! What a change leaves as it is: metadata that is the server's, and what another subresource owns.

use serde_json::{Map, Value};

use super::{Call, meta};
use crate::Error;

/// Puts back what this write may not change: metadata that is the server's, and what another subresource owns.
pub(super) fn keep(new: &mut Value, old: &Value, call: &Call) -> Result<(), Error> {
    let old_meta = &old["metadata"];
    let restore = |metadata: &mut Map<String, Value>, names: &[&str]| {
        for &name in names {
            match old_meta.get(name) {
                Some(value) => metadata.insert(name.to_owned(), value.clone()),
                None => metadata.remove(name),
            };
        }
    };
    let metadata = meta::fields(new)?;
    restore(metadata, &SERVER_META);
    metadata.remove("selfLink");
    if !matches!(call.subresource.as_str(), "" | "scale") {
        restore(metadata, &["finalizers", "ownerReferences"]);
        // Kubelets set annotations and labels through the status of their own objects.
        if !(call.subresource == "status" && matches!(call.resource().kind.as_ref(), "Pod" | "Node")) {
            restore(metadata, &["labels", "annotations"]);
        }
    }
    match call.subresource.as_str() {
        "" if call.served.has("status") => set(new, "status", old.get("status").cloned()),
        "status" => only(new, old, &["status"]),
        "approval" => {
            let conditions = new["status"]["conditions"].take();
            only(new, old, &[]);
            new["status"]["conditions"] = conditions;
        }
        "finalize" => {
            let finalizers = new["spec"]["finalizers"].take();
            only(new, old, &[]);
            new["spec"]["finalizers"] = finalizers;
        }
        "ephemeralcontainers" => {
            let containers = new["spec"]["ephemeralContainers"].take();
            only(new, old, &[]);
            new["spec"]["ephemeralContainers"] = containers;
        }
        "resize" => only_resources(new, old),
        _ => {}
    }
    Ok(())
}

/// Metadata that only the server sets.
const SERVER_META: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "generateName",
    "resourceVersion",
];

/// Leaves of a change its metadata and the named fields; all else is as it was.
fn only(new: &mut Value, old: &Value, names: &[&str]) {
    let mut changed = std::mem::replace(new, old.clone());
    new["metadata"] = changed["metadata"].take();
    for name in names {
        set(new, name, changed.as_object_mut().and_then(|fields| fields.remove(*name)));
    }
}

/// Leaves of a change of a pod its metadata and the resources of it and its containers. With other containers, or in another order, all of
/// it is left to the validation, which refuses it (apiserver's `dropNonResizeUpdates`).
fn only_resources(new: &mut Value, old: &Value) {
    let lists = ["initContainers", "containers"];
    let same = |list: &&str| names(&new["spec"][*list]).eq(names(&old["spec"][*list]));
    if !lists.iter().all(same) {
        return set(new, "status", old.get("status").cloned());
    }
    let wanted = new["spec"].take();
    only(new, old, &[]);
    for list in lists {
        let containers = new["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, wanted) in containers.zip(wanted[list].as_array().into_iter().flatten()) {
            for field in ["resources", "resizePolicy"] {
                set(container, field, wanted.get(field).cloned());
            }
        }
    }
    set(&mut new["spec"], "resources", wanted.get("resources").cloned());
}

fn names(containers: &Value) -> impl Iterator<Item = &Value> {
    containers.as_array().into_iter().flatten().map(|container| &container["name"])
}

/// Sets a field, or removes it.
fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}
