//! The patches of the API: JSON patch, merge patch and strategic merge patch.
//!
//! [`apply`] makes the patched object from the current one, [`check`] decodes it as a new body would be. Server-side
//! apply is `server::apply`'s.

mod order;
mod strategic;

use json_patch::{PatchOperation, TestOperation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;

use super::schema::{Schema, decode};
use crate::{PatchKind, StatusExt, status};

/// The most operations in a JSON patch.
const MAX_OPERATIONS: usize = 10_000;
/// The most bytes that a JSON patch may copy or move within an object (apiserver's largest request).
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// The levels that an object may have after a JSON patch, as many as the parser reads.
const MAX_DEPTH: usize = 128;

/// Applies a patch to an object.
///
/// # Errors
/// 400 if the patch is malformed, 413 if it has too many operations, 415 for a strategic merge patch where there are no
/// merge rules (custom resources) and for server-side apply, 422 if it can't be applied to the object, 500 (as in
/// Kubernetes) if a list's item lacks its merge key.
pub fn apply(kind: PatchKind, patch: &Value, current: &Value, schema: Option<&Schema>) -> Result<Value, Status> {
    match kind {
        PatchKind::Json => json(patch, current),
        PatchKind::Merge => {
            is_object(patch)?;
            let mut patched = current.clone();
            json_patch::merge(&mut patched, patch);
            Ok(patched)
        }
        PatchKind::Strategic => match schema {
            Some(schema) if !schema.is_custom() => {
                is_object(patch)?;
                strategic::apply(patch, current, schema)
            }
            _ => Err(unsupported()),
        },
        PatchKind::Apply => Err(unsupported()),
    }
}

/// Decodes an object that `patch` made by the rules of [`decode`](fn@super::schema::decode); answers it with the
/// warnings.
///
/// # Errors
/// 422 if it has wrong types or, with `Strict`, unknown fields. As in Kubernetes it shows a strategic merge patch itself,
/// as Go prints it, and of the other kinds of patches what they made.
pub fn check(
    kind: PatchKind,
    patch: &Value,
    mut patched: Value,
    schema: Option<&Schema>,
    field_validation: &str,
) -> Result<(Value, Vec<String>), Status> {
    let before = patched.clone();
    match decode::check(&mut patched, &[], schema, field_validation) {
        Ok(warnings) => Ok((patched, warnings)),
        Err(why) => {
            let shown = match kind {
                PatchKind::Strategic => strategic::go_format(patch),
                _ => before.to_string(),
            };
            let cause = format!("Invalid value: {shown:?}: {why}");
            let message = format!(" \"\" is invalid: patch: {cause}");
            Err(status::failure(422, "Invalid", message).cause("FieldValueInvalid", "patch", &cause))
        }
    }
}

fn unsupported() -> Status {
    let accepted = [PatchKind::Json, PatchKind::Merge, PatchKind::Apply].map(PatchKind::content_type);
    decode::unsupported_media_type(&accepted)
}

fn is_object(patch: &Value) -> Result<(), Status> {
    let found = match patch {
        Value::Object(_) | Value::Null => return Ok(()),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    let why = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
    Err(status::bad_request(format!("error decoding patch: {why}")))
}

fn json(patch: &Value, current: &Value) -> Result<Value, Status> {
    let Some(operations) = patch.as_array().filter(|list| list.iter().all(Value::is_object)) else {
        let found = if patch.is_object() { "object" } else { "value" };
        let why = format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Patch");
        return Err(status::bad_request(why));
    };
    if operations.len() > MAX_OPERATIONS {
        let message =
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.len());
        return Err(status::failure(413, "RequestEntityTooLarge", format!("Request entity is too large: {message}")));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|_| rejected())?;
    let mut patched = current.clone();
    operate(&mut patched, &operations).map_err(|_| rejected())?;
    Ok(patched)
}

/// Why a JSON patch can't be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Inapplicable {
    /// A `test` does not hold: which operation, and of which path.
    #[error("operation '/{0}' failed at path '{1}': value did not match")]
    Test(usize, String),
    /// Another operation is not for this object, or would make it too large.
    #[error("{0}")]
    Other(String),
}

/// Applies the operations of a JSON patch. What a failure leaves is to be dropped.
///
/// # Errors
/// Why an operation can't be applied.
pub(crate) fn operate(object: &mut Value, patch: &json_patch::Patch) -> Result<(), Inapplicable> {
    let mut copied = 0;
    for (index, operation) in patch.0.iter().enumerate() {
        let (part, from) = match operation {
            PatchOperation::Add(add) => (Some(&add.value), false),
            PatchOperation::Replace(replace) => (Some(&replace.value), false),
            PatchOperation::Copy(copy) => (object.pointer(copy.from.as_str()), true),
            PatchOperation::Move(moved) => (object.pointer(moved.from.as_str()), true),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, false),
        };
        // A copy may double the object, and both may nest it.
        copied += part.filter(|_| from).map_or(0, |part| part.to_string().len());
        if copied > MAX_COPIED {
            let why = format!("a JSON patch copies or moves more than {MAX_COPIED} bytes");
            return Err(Inapplicable::Other(why));
        }
        let outside = operation.path().as_str().matches('/').count();
        if part.is_some_and(|part| outside + depth(part) > MAX_DEPTH) {
            let why = format!("a JSON patch nests an object deeper than {MAX_DEPTH} levels");
            return Err(Inapplicable::Other(why));
        }
        if let PatchOperation::Test(test) = operation
            && let Some(found) = tested(object, test)
        {
            if *found != test.value {
                return Err(Inapplicable::Test(index, test.path.to_string()));
            }
            continue;
        }
        // Without undoing what was done before a failure: to undo some moves the crate panics.
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            Inapplicable::Other(error.to_string())
        })?;
    }
    Ok(())
}

/// What a `test` is about; `None` if nothing can be there. A field that an object lacks is null, as in the library of Kubernetes.
fn tested<'a>(object: &'a Value, test: &TestOperation) -> Option<&'a Value> {
    let path = test.path.as_str();
    object.pointer(path).or_else(|| {
        let (parent, _) = path.rsplit_once('/')?;
        object.pointer(parent).filter(|parent| parent.is_object()).map(|_| &Value::Null)
    })
}

/// Levels of a tree.
fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        _ => None,
    };
    1 + inner.unwrap_or_default()
}

/// The patch is well formed, but not for this object.
fn rejected() -> Status {
    status::failure(422, "Invalid", "the server rejected our request due to an error in our request")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn json_patches_change_what_they_name() {
        let current = json!({"spec": {"replicas": 1, "list": ["a", "b"]}});
        let patch = json!([
            {"op": "test", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": "/spec/replicas", "value": 2},
            {"op": "add", "path": "/spec/list/-", "value": "c"},
            {"op": "remove", "path": "/spec/list/0"},
        ]);
        let patched = apply(PatchKind::Json, &patch, &current, None).unwrap();
        assert_eq!(patched, json!({"spec": {"replicas": 2, "list": ["b", "c"]}}));
    }

    #[test]
    fn bad_patches_have_their_codes() {
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": {}}); MAX_OPERATIONS + 1]);
        for (kind, patch, code, reason) in [
            (PatchKind::Json, json!({}), 400, "BadRequest"),
            (PatchKind::Json, json!([1]), 400, "BadRequest"),
            (PatchKind::Json, json!([{"op": "jump", "path": "/a"}]), 422, "Invalid"),
            (PatchKind::Json, json!([{"op": "remove", "path": "/missing"}]), 422, "Invalid"),
            (PatchKind::Json, json!([{"op": "test", "path": "/a", "value": 2}]), 422, "Invalid"),
            (PatchKind::Json, many, 413, "RequestEntityTooLarge"),
            (PatchKind::Merge, json!([]), 400, "BadRequest"),
            (PatchKind::Strategic, json!({}), 415, "UnsupportedMediaType"),
            (PatchKind::Apply, json!({}), 415, "UnsupportedMediaType"),
        ] {
            let status = apply(kind, &patch, &json!({"a": 1}), None).unwrap_err();
            assert_eq!((status.code, status.reason.as_deref()), (Some(code), Some(reason)), "{kind:?}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_tested_as_null() {
        let test = |path: &str, value: Value| json!([{"op": "test", "path": path, "value": value}]);
        let object = json!({"a": {"b": null}, "list": [1]});
        for (path, value, holds) in [
            ("/a/b", json!(null), true),
            ("/a/c", json!(null), true),
            ("/a/c", json!(1), false),
            ("/a/c/d", json!(null), false),
            ("/list/1", json!(null), false),
        ] {
            assert_eq!(apply(PatchKind::Json, &test(path, value), &object, None).is_ok(), holds, "{path}");
        }
    }

    #[test]
    fn a_value_is_not_moved_into_itself() {
        let patch =
            json!([{"op": "add", "path": "/data/x", "value": "1"}, {"op": "move", "from": "/data", "path": "/data/k"}]);
        let refused = super::json(&patch, &json!({"data": {"k": "v"}})).unwrap_err();
        assert!(refused.code.is_some_and(|code| code < 500));
    }

    #[test]
    fn a_patch_grows_and_nests_an_object_within_bounds() {
        let small = json!({"data": {"k": "v"}});
        let big = json!({"data": {"k": "v".repeat(100_000)}});
        let copy = |to: String| json!({"op": "copy", "from": "/data/k", "path": to});
        let copies = |count: usize| Value::Array((0..count).map(|i| copy(format!("/data/k{i}"))).collect());
        let double = |i| json!({"op": "copy", "from": "/data", "path": format!("/data/x{i}")});
        let doubled = (0..60).map(double).collect();
        let wrap = [
            json!({"op": "add", "path": "/new", "value": {}}),
            json!({"op": "move", "from": "/data", "path": "/new/data"}),
            json!({"op": "move", "from": "/new", "path": "/data"}),
        ];
        let wrapped = (0..1000).flat_map(|_| wrap.clone()).collect();
        for (patch, object) in [(Value::Array(doubled), &small), (Value::Array(wrapped), &small), (copies(60), &big)] {
            assert_eq!(super::json(&patch, object).unwrap_err().code, Some(422));
        }
        assert!(super::json(&copies(20), &big).is_ok());
    }

    #[test]
    fn a_patched_object_is_decoded() {
        let schema = Schema::builtin("apps", "v1", "Deployment");
        let check = |kind, patched, validation| {
            let patch = json!({"spec": {"replicas": "x", "paused": null}});
            super::check(kind, &patch, patched, schema.as_deref(), validation)
        };
        for (kind, shown) in [
            (PatchKind::Merge, r#""{\"spec\":{\"replicas\":\"x\"}}""#),
            (PatchKind::Strategic, r#""map[spec:map[paused:<nil> replicas:x]]""#),
        ] {
            let status = check(kind, json!({"spec": {"replicas": "x"}}), "").unwrap_err();
            assert_eq!(status.code, Some(422));
            let why = "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32";
            assert_eq!(status.message.unwrap(), format!(r#" "" is invalid: patch: Invalid value: {shown}: {why}"#));
        }
        let (object, warnings) = check(PatchKind::Merge, json!({"spec": {"foo": 1}}), "Warn").unwrap();
        assert_eq!((object, warnings), (json!({"spec": {}}), vec![r#"unknown field "spec.foo""#.to_owned()]));
        assert!(
            check(PatchKind::Merge, json!({"spec": {"foo": 1}}), "Strict")
                .unwrap_err()
                .message
                .unwrap()
                .contains("strict decoding error")
        );
    }

    /// The merge patch from one object to another; neither holds nulls.
    fn diff(from: &Value, to: &Value) -> Value {
        let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
        let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
        let changed = to
            .iter()
            .filter(|(key, value)| from.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), from.get(key).map_or_else(|| value.clone(), |old| diff(old, value))));
        Value::Object(gone.chain(changed).collect())
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..5).prop_map(Value::from),
            "[a-c]".prop_map(Value::from)
        ];
        let inner = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_merge_patch_leads_from_one_object_to_the_other(from in tree(), to in tree()) {
            let patch = diff(&from, &to);
            prop_assert_eq!(apply(PatchKind::Merge, &patch, &from, None).unwrap(), to);
        }

        #[test]
        fn a_json_patch_leads_from_one_object_to_the_other(from in tree(), to in tree()) {
            let patch = serde_json::to_value(json_patch::diff(&from, &to)).unwrap();
            prop_assert_eq!(apply(PatchKind::Json, &patch, &from, None).unwrap(), to);
        }
    }
}
