//! Server-side apply and the ownership of fields (KEP-555).
//!
//! Every object carries in `metadata.managedFields` which manager owns which fields. [`track_update`] keeps that up to
//! date on every create, update and patch; [`server_side_apply`] merges what a manager wants into the object, refuses to
//! change what others own, and removes what the manager applied before and nobody owns now:
//!
//! ```text
//! applied -> fits the schema? -> merge into live -> prune what was applied last -> compare with live
//!         -> conflicts with the sets of others -> new sets
//! ```
//! Fields have other names in other versions: what a write changes for managers that wrote in one is found there ([`Versions`]).

mod fieldset;
mod last_applied;
mod managers;
mod merge;
pub(crate) mod scale;
mod typed;
mod versions;

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};

use self::{
    fieldset::FieldSet,
    managers::Entry,
    typed::{Comparison, compare, to_set},
    versions::Changes,
};
use super::schema::Schema;
use crate::{Error, StatusExt, status};

pub use versions::Versions;

/// Who writes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Manager<'a> {
    /// Name of the field manager.
    pub name: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// Version in which the fields are named: `apps/v1`.
    pub api_version: &'a str,
    /// RFC 3339.
    pub now: &'a str,
    /// Conflicts are won.
    pub force: bool,
}

/// An object with what a configuration applies to it, whoever owns it.
pub(crate) fn merged(schema: Option<&Schema>, live: &Value, applied: &Value) -> Value {
    merge::merge(schema, live, applied)
}

/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The object after an apply, with its `managedFields`; `live` is `None` where the apply creates it.
///
/// `applied` must not name fields that the written (sub)resource does not own; the status of a built-in kind is taken out
/// here. If the result differs from `live` in `managedFields` only, just ownership changed.
///
/// # Errors
/// 400 if `applied` has `managedFields`; 409 with a cause per field that another manager owns and this one would change,
/// unless `force`; 500 (as in Kubernetes) if `applied` does not fit the schema; whatever a conversion to another manager's version says.
pub async fn server_side_apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &Manager<'_>,
    schema: Option<&Schema>,
    versions: &dyn Versions,
) -> Result<Value, Error> {
    if applied["metadata"]
        .get("managedFields")
        .is_some_and(|entries| entries.as_array().is_none_or(|list| !list.is_empty()))
    {
        return Err(status::bad_request("metadata.managedFields must be nil").into());
    }
    let configuration = applied;
    if let Some(why) = typed::misfit(schema, applied) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&applied["metadata"]["namespace"]), text(&applied["metadata"]["name"]));
        let (api_version, kind) = (manager.api_version, text(&applied["kind"]));
        let message =
            format!("failed to create typed patch object ({namespace}/{name}; {api_version}, Kind={kind}): {why}");
        return Err(status::failure(500, "", message).into());
    }
    let mut applied = applied.clone();
    if let Some(schema) = schema
        && let Some(why) = schema.normalize(&mut applied).error
    {
        return Err(status::bad_request(why).into());
    }
    take_managed_fields(&mut applied);
    reset_fields(&mut applied, manager, schema);

    let mut old = live.cloned().unwrap_or_else(|| zero(schema));
    let mut entries = managers::decode(&take_managed_fields(&mut old)).unwrap_or_default();
    if live.is_some() && entries.is_empty() {
        let before = Manager { name: BEFORE_FIRST_APPLY, subresource: "", ..*manager };
        let mut fields = compare(schema, &zero(schema), &old).changed;
        managers::strip(&mut fields);
        entries.push(Entry::new(&before, false, fields));
    }

    versions::forget(&mut entries, manager, versions);

    let own = entries.iter().position(|entry| entry.is_of(manager, true)).map(|at| entries.remove(at));
    let mut set = to_set(schema, &applied);
    managers::strip(&mut set);
    let mut new = if live.is_some() { merge::merge(schema, &old, &applied) } else { applied };
    if let Some(own) = &own {
        new = versions::prune(new, own, (&set, &entries), (manager, schema), versions).await?;
    }

    let comparison = difference(schema, &old, &new, manager);
    let is_same = comparison.is_same();
    if !is_same {
        let before = live.map(|_| &old);
        let changes = Changes::of(comparison, (before, &new), &entries, manager, versions).await?;
        if !manager.force {
            refuse_conflicts(&entries, &changes, &last_applied::allowed(&old, manager, schema))?;
        }
        take_from_others(&mut entries, &changes);
    }
    let same = own.as_ref().is_some_and(|own| own.fields == set && own.api_version == manager.api_version);
    let mut entry = Entry::new(manager, true, set);
    if let Some(own) = own
        && same
        && is_same
    {
        entry.time = own.time;
    }
    entries.push(entry);
    put_managed_fields(&mut new, entries);
    last_applied::refresh(&mut new, configuration, manager);
    Ok(new)
}

/// Records in `new` who owns what after a create (`old` is `None`), an update or a patch.
///
/// Managed fields that `new` brings along replace the old ones, so that a client may hand over fields; `[{}]` resets them
/// (the object is then not tracked until the next apply), an empty list keeps the old ones. What did not change keeps its
/// manager and its time. Where the object can't be converted to the version of a manager, nobody owns anything any more, as in
/// Kubernetes: what was known might be wrong.
pub async fn track_update(
    old: Option<&Value>,
    new: &mut Value,
    manager: &Manager<'_>,
    schema: Option<&Schema>,
    versions: &dyn Versions,
) {
    let given = take_managed_fields(new);
    let live = old.map_or(&Value::Null, |old| &old["metadata"]["managedFields"]);
    let is_reset = given.as_array().is_some_and(|list| list.len() == 1 && list[0] == json!({}));
    if is_reset && manager.subresource.is_empty() {
        return;
    }
    let usable = |entries: &Value| entries.as_array().is_some_and(|list| !list.is_empty());
    let current = if manager.subresource.is_empty() && usable(&given) && managers::decode(&given).is_some() {
        Cow::Owned(given)
    } else {
        Cow::Borrowed(live)
    };
    if old.is_some() && !usable(&current) {
        return;
    }

    let comparison = match old {
        Some(old) => difference(schema, old, new, manager),
        None => difference(schema, &zero(schema), new, manager),
    };
    if comparison.is_same() {
        set_managed_fields(new, usable(&current).then(|| current.into_owned()));
        return;
    }
    let mut entries = managers::decode(&current).unwrap_or_default();
    versions::forget(&mut entries, manager, versions);
    let changes = match Changes::of(comparison, (old, new), &entries, manager, versions).await {
        Ok(changes) => changes,
        Err(error) => {
            tracing::warn!(%error, "can't tell who owns the fields of an object");
            return;
        }
    };
    take_from_others(&mut entries, &changes);
    let changed = changes.into_written().changed;
    if !changed.is_empty() {
        match entries.iter_mut().find(|entry| entry.is_of(manager, false)) {
            Some(entry) => {
                entry.fields.union(&changed);
                entry.time = manager.now.to_owned();
            }
            None => entries.push(Entry::new(manager, false, changed)),
        }
    }
    put_managed_fields(new, entries);
}

/// What differs between two versions of an object that this (sub)resource may change and somebody may own. That `new` has no
/// `managedFields` any more is no change.
fn difference(schema: Option<&Schema>, old: &Value, new: &Value, manager: &Manager<'_>) -> Comparison {
    let mut comparison = compare(schema, old, new);
    comparison.removed.remove_below(&["f:metadata", "f:managedFields"]);
    managers::strip(&mut comparison.changed);
    if manager.subresource.is_empty() && has_status(schema) {
        comparison.changed.children.remove("f:status");
    }
    comparison
}

/// What Go's type is before anything is set: the objects in it that are no pointers.
fn zero(schema: Option<&Schema>) -> Value {
    let mut object = json!({"metadata": {}});
    if let Some(schema) = schema.filter(|schema| !schema.is_custom()) {
        schema.apply_defaults(&mut object);
    }
    object
}

/// Whether the status is owned by its subresource: so it is for all built-in kinds.
fn has_status(schema: Option<&Schema>) -> bool {
    schema.is_some_and(|schema| !schema.is_custom() && schema.field("status").is_some())
}

/// Takes out of what is applied the parts that this subresource does not own.
fn reset_fields(applied: &mut Value, manager: &Manager<'_>, schema: Option<&Schema>) {
    let Some(map) = applied.as_object_mut() else { return };
    match manager.subresource {
        "" if has_status(schema) => {
            map.remove("status");
        }
        "status" => map.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status")),
        _ => {}
    }
}

fn take_managed_fields(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.remove("managedFields")).unwrap_or_default()
}

fn put_managed_fields(object: &mut Value, entries: Vec<Entry>) {
    set_managed_fields(object, managers::encode(entries));
}

fn set_managed_fields(object: &mut Value, entries: Option<Value>) {
    if let (Some(entries), Some(metadata)) = (entries, object.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

/// Others lose what was changed or removed.
fn take_from_others(entries: &mut [Entry], changes: &Changes) {
    for entry in entries {
        if let Some(comparison) = changes.to(entry) {
            entry.fields.subtract(&comparison.changed);
            entry.fields.subtract(&comparison.removed);
        }
    }
}

fn refuse_conflicts(entries: &[Entry], changes: &Changes, allowed: &FieldSet) -> Result<(), Status> {
    let disputed = |entry: &Entry| {
        let mut disputed = changes.to(entry)?.changed.clone();
        disputed.subtract(allowed);
        Some((entry.describe(), entry.fields.common(&disputed)))
    };
    let mut conflicts: Vec<(String, Vec<String>)> =
        entries.iter().filter_map(disputed).filter(|(_, paths)| !paths.is_empty()).collect();
    conflicts.sort();
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    if count == 0 {
        return Ok(());
    }
    let message = match conflicts.as_slice() {
        [(manager, paths)] if count == 1 => format!("conflict with {manager}: {}", paths[0]),
        _ => {
            let lines = conflicts.iter().flat_map(|(manager, paths)| {
                std::iter::once(format!("conflicts with {manager}:"))
                    .chain(paths.iter().map(|path| format!("- {path}")))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    let plural = if count == 1 { "" } else { "s" };
    let mut status = status::failure(409, "Conflict", format!("Apply failed with {count} conflict{plural}: {message}"));
    for (manager, paths) in &conflicts {
        for path in paths {
            status = status.cause("FieldManagerConflict", path, &format!("conflict with {manager}"));
        }
    }
    Err(status)
}

#[cfg(test)]
mod tests;
