//! Who owns the replicas of an object, as its Scale shows it: the object's managers under the Scale's name of the field, and back
//! (apimachinery's `managedfields.ScaleHandler`).

use serde_json::Value;

use super::{
    fieldset::FieldSet,
    managers::{self, Entry},
};

/// The version of all Scales.
pub(crate) const VERSION: &str = "autoscaling/v1";

/// The elements of a dotted path (with or without a leading dot).
fn elements(path: &str) -> Vec<Box<str>> {
    path.split('.').filter(|part| !part.is_empty()).map(|part| format!("f:{part}").into()).collect()
}

fn only(path: &str) -> FieldSet {
    let mut set = FieldSet::default();
    set.insert(&elements(path));
    set
}

fn decode(object: &Value) -> Vec<Entry> {
    managers::decode(&object["metadata"]["managedFields"]).unwrap_or_default()
}

/// The `managedFields` of an object's Scale, where `replicas` leads to the replicas in the object.
pub(crate) fn of_scale(object: &Value, replicas: &str) -> Option<Value> {
    let path = elements(replicas);
    let mut entries = decode(object);
    entries.retain(|entry| entry.fields.has(&path));
    for entry in &mut entries {
        entry.fields = only("spec.replicas");
        VERSION.clone_into(&mut entry.api_version);
    }
    managers::encode(entries)
}

/// The `managedFields` of an object of this version once its Scale has become `scale`: who owns the replicas there owns them
/// here, and nobody else does.
pub(crate) fn of_object(object: &Value, scale: &Value, replicas: &str, api_version: &str) -> Option<Value> {
    let own = only(replicas);
    let mut entries = decode(object);
    let mut owners = decode(scale);
    owners.retain(|owner| owner.fields.has(&elements("spec.replicas")));
    for entry in entries.iter_mut().filter(|entry| entry.fields.has(&elements(replicas))) {
        let same = |owner: &Entry| {
            (&owner.name, &owner.subresource, owner.applies) == (&entry.name, &entry.subresource, entry.applies)
        };
        match owners.iter().position(same) {
            Some(at) => entry.time = owners.remove(at).time,
            None => entry.fields.subtract(&own),
        }
    }
    for owner in owners {
        entries.push(Entry { api_version: api_version.to_owned(), fields: own.clone(), ..owner });
    }
    managers::encode(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, version: &str, subresource: &str, fields: Value) -> Value {
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": version,
            "fieldsType": "FieldsV1", "fieldsV1": fields});
        if !subresource.is_empty() {
            entry["subresource"] = subresource.into();
        }
        entry
    }

    fn object(entries: Vec<Value>) -> Value {
        json!({"metadata": {"managedFields": entries}})
    }

    #[test]
    fn managers_of_replicas_come_and_go_through_the_scale() {
        let both = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        let paused = json!({"f:spec": {"f:paused": {}}});
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let parent = object(vec![
            entry("a", "Apply", "apps/v1", "", both.clone()),
            entry("b", "Update", "apps/v1", "", paused.clone()),
        ]);
        let shown = of_scale(&parent, ".spec.replicas").unwrap();
        assert_eq!(shown, json!([entry("a", "Apply", "autoscaling/v1", "", replicas.clone())]));

        // Who stays owns both still; who comes is named in the object's version.
        let hpa = entry("hpa", "Apply", "autoscaling/v1", "scale", replicas.clone());
        let shared = object(vec![shown[0].clone(), hpa.clone()]);
        let here = entry("hpa", "Apply", "apps/v1", "scale", replicas);
        let wanted = json!([parent["metadata"]["managedFields"][0], here, parent["metadata"]["managedFields"][1]]);
        assert_eq!(of_object(&parent, &shared, ".spec.replicas", "apps/v1").unwrap(), wanted);
        let forced = object(vec![hpa]);
        let wanted = json!([entry("a", "Apply", "apps/v1", "", paused), here, parent["metadata"]["managedFields"][1]]);
        assert_eq!(of_object(&parent, &forced, ".spec.replicas", "apps/v1").unwrap(), wanted);
        assert!(of_scale(&object(Vec::new()), "spec.replicas").is_none());
    }
}
