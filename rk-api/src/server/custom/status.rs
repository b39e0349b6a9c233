//! What a definition's status says: whether its names are free, and that it is served.

use serde_json::{Value, json};

use super::rows::Schemas;
use crate::server::{catalog::Catalog, kinds::Approval, pipeline::now};

/// Whether a condition of a status is true.
pub(super) fn is(status: &Value, kind: &str) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

/// The names that the definition takes, with those that follow from others.
pub(super) fn names(spec: &Value) -> Value {
    let mut names = spec["names"].clone();
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if names["singular"].as_str().unwrap_or_default().is_empty() {
        names["singular"] = kind.to_lowercase().into();
    }
    if names["listKind"].as_str().unwrap_or_default().is_empty() {
        names["listKind"] = format!("{kind}List").into();
    }
    names
}

/// Reason and message of a name that somebody else has in the group.
fn conflict(spec: &Value, names: &Value, catalog: &Catalog) -> Option<(&'static str, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&names["plural"]));
    let others: Vec<_> = catalog
        .rows()
        .filter(|row| {
            row.resource().group == group.as_str() && (!row.custom || row.resource().plural != plural.as_str())
        })
        .collect();
    let taken = |name: &str| {
        others.iter().any(|row| {
            row.resource().plural == name || row.row.singular == name || row.row.short_names.iter().any(|n| n == name)
        })
    };
    let kind_taken = |kind: &str| {
        others.iter().any(|row| row.resource().kind == kind || format!("{}List", row.resource().kind) == kind)
    };
    let in_use = |name: &str| format!("{name:?} is already in use");
    let singular = text(&names["singular"]);
    let short_names = names["shortNames"].as_array().map(Vec::as_slice).unwrap_or_default();
    if taken(&plural) {
        return Some(("PluralConflict", in_use(&plural)));
    }
    if taken(&singular) {
        return Some(("SingularConflict", in_use(&singular)));
    }
    if let Some(short) = short_names.iter().map(text).find(|short| taken(short)) {
        return Some(("ShortNamesConflict", in_use(&short)));
    }
    let (kind, list_kind) = (text(&names["kind"]), text(&names["listKind"]));
    if kind_taken(&kind) {
        return Some(("KindConflict", in_use(&kind)));
    }
    kind_taken(&list_kind).then(|| ("ListKindConflict", in_use(&list_kind)))
}

/// Sets a condition; its time only changes with its status.
fn set(conditions: &mut Vec<Value>, kind: &str, status: bool, reason: &str, message: &str) {
    let status = if status { "True" } else { "False" };
    let known = conditions.iter_mut().find(|c| c["type"] == kind);
    let since = known.as_ref().filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    let condition = json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| now().into())});
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// The status that a definition should have; `schemas` are those of its versions.
pub(super) fn of(definition: &Value, schemas: &Schemas, catalog: &Catalog) -> Value {
    let spec = &definition["spec"];
    let names = names(spec);
    let mut status = definition["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let established = is(&status, "Established");
    match conflict(spec, &names, catalog) {
        None => {
            set(&mut conditions, "NamesAccepted", true, "NoConflicts", "no conflicts found");
            set(&mut conditions, "Established", true, "InitialNamesAccepted", "the initial names have been accepted");
            status["acceptedNames"] = names;
        }
        Some((reason, message)) => {
            set(&mut conditions, "NamesAccepted", false, reason, &message);
            if !established {
                set(&mut conditions, "Established", false, "NotAccepted", "not all names are accepted");
                status["acceptedNames"] = json!({"plural": "", "kind": ""});
            }
        }
    }
    // What is written now is judged before; this is of what was stored before that.
    match schemas.iter().find_map(|schema| schema.as_ref().err()) {
        Some(why) => set(&mut conditions, "NonStructuralSchema", true, "Violations", why),
        None => conditions.retain(|condition| condition["type"] != "NonStructuralSchema"),
    }
    if let Some(approval) = Approval::of(definition) {
        let (conformant, reason, message) = approval.condition();
        set(&mut conditions, "KubernetesAPIApprovalPolicyConformant", conformant, reason, &message);
    }
    if !definition["metadata"]["deletionTimestamp"].is_null() {
        let message = "CustomResource deletion is in progress";
        set(&mut conditions, "Terminating", true, "InstanceDeletionInProgress", message);
    }
    status["conditions"] = conditions.into();
    let stores = |version: &&Value| version["storage"] == true;
    let storage = spec["versions"].as_array().and_then(|versions| versions.iter().find(stores));
    if let Some(name) = storage.map(|version| version["name"].clone()) {
        let mut stored = status["storedVersions"].as_array().cloned().unwrap_or_default();
        if !stored.contains(&name) {
            stored.push(name);
        }
        status["storedVersions"] = stored.into();
    }
    status
}
