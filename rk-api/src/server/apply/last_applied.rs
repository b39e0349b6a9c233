//! From client-side to server-side apply: the annotation in which `kubectl apply` keeps what it applied last.
//!
//! Whoever used `kubectl apply` and goes over to `kubectl apply --server-side` meets no conflicts with his former self: what
//! the annotation says and the live object still has is his to change (`allowed`). As long as there is an annotation,
//! server-side applies keep it true (`refresh`), so that one may go back. Both are for the manager `kubectl` only; other
//! names opt out (apimachinery's `managedfields/internal/lastapplied{manager,updater}.go`).

use serde_json::Value;

use super::{
    Manager,
    fieldset::FieldSet,
    take_managed_fields,
    typed::{compare, misfit, to_set},
};
use crate::server::{kinds::meta::MAX_ANNOTATIONS, schema::Schema};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The name under which kubectl applies unless told otherwise.
const KUBECTL: &str = "kubectl";

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str().filter(|text| !text.is_empty())
}

/// What this manager may change whoever owns it: the fields that it applied last and that are still so.
pub(super) fn allowed(live: &Value, manager: &Manager<'_>, schema: Option<&Schema>) -> FieldSet {
    let last = annotation(live).filter(|_| manager.name == KUBECTL).and_then(|text| serde_json::from_str(text).ok());
    // A configuration of another version names its fields otherwise.
    let last = last.filter(|last: &Value| last["apiVersion"] == manager.api_version && misfit(schema, last).is_none());
    let Some(last) = last else { return FieldSet::default() };
    let mut fields = to_set(schema, &last);
    let difference = compare(schema, &last, live);
    fields.subtract(&difference.changed);
    fields.subtract(&difference.removed);
    fields
}

/// Notes in `new`, where the annotation is, what was applied just now; it goes if the annotations grow too large.
pub(super) fn refresh(new: &mut Value, applied: &Value, manager: &Manager<'_>) {
    if manager.name != KUBECTL || annotation(new).is_none() {
        return;
    }
    let mut applied = applied.clone();
    take_managed_fields(&mut applied);
    if let Some(annotations) = applied["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = new["metadata"]["annotations"].as_object_mut() else { return };
    // Go's encoder ends with a new line.
    annotations.insert(ANNOTATION.to_owned(), format!("{applied}\n").into());
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Error,
        server::apply::{
            self,
            tests::{One, done},
        },
    };

    const CLIENT_SIDE: &str = "kubectl-client-side-apply";

    fn manager(name: &str) -> Manager<'_> {
        Manager { name, subresource: "", api_version: "v1", now: "2024-01-01T00:00:00Z", force: false }
    }

    fn server_side_apply(
        live: Option<&Value>,
        applied: &Value,
        manager: &Manager<'_>,
        schema: Option<&Schema>,
    ) -> Result<Value, Error> {
        done(apply::server_side_apply(live, applied, manager, schema, &One))
    }

    fn track_update(old: Option<&Value>, new: &mut Value, manager: &Manager<'_>, schema: Option<&Schema>) {
        done(apply::track_update(old, new, manager, schema, &One));
    }

    fn config(a: &str, b: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": a, "b": b}})
    }

    /// As `kubectl apply` leaves it, after which somebody changed `b`.
    fn live() -> (std::sync::Arc<Schema>, Value) {
        let schema = Schema::builtin("", "v1", "ConfigMap").unwrap();
        let mut applied = config("1", "1");
        applied["metadata"]["annotations"] = json!({ANNOTATION: format!("{}\n", config("1", "1"))});
        track_update(None, &mut applied, &manager(CLIENT_SIDE), Some(&schema));
        let mut edited = applied.clone();
        edited["data"]["b"] = json!("2");
        track_update(Some(&applied), &mut edited, &manager("kubectl-edit"), Some(&schema));
        (schema, edited)
    }

    #[test]
    fn kubectl_may_change_what_it_applied_on_the_client_side() {
        let (schema, live) = live();
        let new = server_side_apply(Some(&live), &config("9", "2"), &manager(KUBECTL), Some(&schema)).unwrap();
        assert_eq!(new["data"], json!({"a": "9", "b": "2"}));
        assert_eq!(annotation(&new), Some(format!("{}\n", config("9", "2")).as_str()));
    }

    #[test]
    fn what_others_changed_since_stays_in_conflict() {
        let (schema, live) = live();
        let refused = server_side_apply(Some(&live), &config("9", "9"), &manager(KUBECTL), Some(&schema)).unwrap_err();
        let message = refused.to_string();
        assert_eq!(message, "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.b");
    }

    #[test]
    fn another_manager_opts_out() {
        let (schema, live) = live();
        let refused = server_side_apply(Some(&live), &config("9", "2"), &manager("me"), Some(&schema)).unwrap_err();
        assert!(refused.to_string().contains(CLIENT_SIDE));
        let forced = Manager { force: true, ..manager("me") };
        let new = server_side_apply(Some(&live), &config("9", "2"), &forced, Some(&schema)).unwrap();
        assert_eq!(annotation(&new), annotation(&live));
    }

    #[test]
    fn an_annotation_that_grows_too_large_goes() {
        let (schema, live) = live();
        let large = config(&"9".repeat(MAX_ANNOTATIONS), "2");
        let new = server_side_apply(Some(&live), &large, &manager(KUBECTL), Some(&schema)).unwrap();
        assert_eq!(annotation(&new), None);
    }
}
