//! The form in which Kubernetes stores what it was given.
//!
//! For built-in kinds this is what decoding into Go's types and encoding again does: unknown fields and nulls go,
//! quantities and times become canonical, and a value of a wrong type is an error. For custom resources unknown fields
//! and the nulls that are no values go; wrong types are left to validation.

use base64::Engine;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value, json};

use super::{Schema, Shape, parse::Path};
use crate::Quantity;

/// What normalizing found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Normalized {
    /// Paths of the unknown fields, which are gone.
    pub unknown: Vec<String>,
    /// The first wrong type, in the words of Go's decoder; the object is then half done.
    pub error: Option<String>,
}

pub(super) fn normalize(schema: &Schema, object: &mut Value) -> Normalized {
    let mut unknown = Vec::new();
    let place = Place { path: &Path::Root, owner: "", fields: None };
    let error = walk(schema, object, &place, &mut unknown).err();
    Normalized { unknown, error }
}

/// Where a value is: its path; the Go type that has its field, and the fields on the way, without indices and keys.
struct Place<'a> {
    path: &'a Path<'a>,
    owner: &'a str,
    fields: Option<Fields<'a>>,
}

#[derive(Clone, Copy)]
struct Fields<'a> {
    parent: Option<&'a Fields<'a>>,
    name: &'a str,
}

impl Fields<'_> {
    fn write(&self, text: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(text);
        }
        text.push('.');
        text.push_str(self.name);
    }
}

impl Place<'_> {
    fn wrong_type(&self, found: &str, schema: &Schema) -> String {
        let wanted = go_type(schema);
        match &self.fields {
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
            Some(fields) => {
                let owner = self.owner.rsplit('.').next().unwrap_or_default();
                let mut path = String::new();
                fields.write(&mut path);
                format!("json: cannot unmarshal {found} into Go struct field {owner}{path} of type {wanted}")
            }
        }
    }
}

fn go_type(schema: &Schema) -> String {
    let resolved = schema.resolve();
    if let Some(name) = &resolved.go_name {
        return name.to_string();
    }
    match &resolved.shape {
        Shape::Any => "interface {}".to_owned(),
        Shape::Bool => "bool".to_owned(),
        Shape::Integer { wide: true } => "int64".to_owned(),
        Shape::Integer { wide: false } => "int32".to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::List(items) => format!("[]{}", go_type(items)),
        Shape::Object { others: Some(others), .. } => format!("map[string]{}", go_type(others)),
        _ => "string".to_owned(),
    }
}

fn go_value(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn walk(schema: &Schema, value: &mut Value, place: &Place<'_>, unknown: &mut Vec<String>) -> Result<(), String> {
    let resolved = schema.resolve();
    match (&resolved.shape, &mut *value) {
        (Shape::Object { .. }, Value::Object(map)) => return object(schema, map, place, unknown),
        (Shape::List(items), Value::Array(list)) => {
            for (index, item) in list.iter_mut().enumerate() {
                if item.is_null() && items.rules.is_none() {
                    *item = zero(items);
                }
                let path = Path::Item(place.path, index);
                walk(items, item, &Place { path: &path, owner: place.owner, fields: place.fields }, unknown)?;
            }
            return Ok(());
        }
        _ if resolved.rules.is_some() => return Ok(()),
        _ => {}
    }
    match (&resolved.shape, &*value) {
        (Shape::Any, _) | (Shape::Bool, Value::Bool(_)) | (Shape::String, Value::String(_)) => Ok(()),
        (Shape::Number, Value::Number(_)) | (Shape::IntOrString, Value::String(_)) => Ok(()),
        (Shape::Integer { wide }, Value::Number(number)) => match number.as_i64() {
            Some(number) if *wide || i32::try_from(number).is_ok() => Ok(()),
            _ => Err(place.wrong_type(&format!("number {number}"), schema)),
        },
        (Shape::IntOrString, Value::Number(number)) => match number.as_i64() {
            Some(number) if i32::try_from(number).is_ok() => Ok(()),
            _ => Err(format!("json: cannot unmarshal number {number} into Go value of type int32")),
        },
        (Shape::IntOrString, other) => {
            Err(format!("json: cannot unmarshal {} into Go value of type int32", go_value(other)))
        }
        (Shape::Bytes, Value::String(text)) => base64_text(text).map(|canonical| replace(value, canonical)),
        (Shape::Quantity, Value::String(text)) => quantity(text).map(|canonical| replace(value, canonical)),
        (Shape::Quantity, Value::Number(number)) => {
            let text = number.to_string();
            let canonical = quantity(&text)?.unwrap_or(text);
            *value = Value::String(canonical);
            Ok(())
        }
        (Shape::Quantity, _) => Err(crate::QuantityError::Format.to_string()),
        (Shape::Time { micro }, Value::String(text)) => time(text, *micro).map(|canonical| replace(value, canonical)),
        (Shape::Time { .. }, other) => {
            Err(format!("json: cannot unmarshal {} into Go value of type string", go_value(other)))
        }
        (_, other) => Err(place.wrong_type(go_value(other), schema)),
    }
}

/// Puts the canonical text in place, if there is one that differs.
fn replace(value: &mut Value, canonical: Option<String>) {
    if let Some(text) = canonical {
        *value = Value::String(text);
    }
}

fn object(
    schema: &Schema,
    map: &mut Map<String, Value>,
    place: &Place<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let resolved = schema.resolve();
    let Shape::Object { fields, others } = &resolved.shape else { return Ok(()) };
    let custom = resolved.rules.is_some();
    let mut failed = None;
    map.retain(|name, value| {
        if failed.is_some() {
            return true;
        }
        let path = Path::Field(place.path, name);
        let (inner, is_field) = match (fields.get(name.as_str()), others) {
            (Some(field), _) => (field, true),
            (None, Some(others)) => (&**others, false),
            (None, None) if schema.preserves_unknown() => return true,
            (None, None) => {
                unknown.push(path.to_string());
                return false;
            }
        };
        if value.is_null() {
            if custom {
                return inner.nullable || inner.default.is_some();
            }
            if is_field {
                return false;
            }
            *value = zero(inner);
        }
        let go_fields = Fields { parent: place.fields.as_ref(), name };
        let inner_place = match (&resolved.go_name, is_field) {
            (Some(owner), true) => Place { path: &path, owner, fields: Some(go_fields) },
            // A custom resource's own metadata is a field of a type without a name.
            (None, true) => Place { path: &path, owner: "", fields: Some(go_fields) },
            _ => Place { path: &path, owner: place.owner, fields: place.fields },
        };
        failed = walk(inner, value, &inner_place, unknown).err();
        true
    });
    failed.map_or(Ok(()), Err)
}

/// What Go makes of a null in a list or as a value of a map.
fn zero(schema: &Schema) -> Value {
    match &schema.resolve().shape {
        Shape::Any => Value::Null,
        Shape::Bool => Value::Bool(false),
        Shape::Integer { .. } | Shape::Number | Shape::IntOrString => json!(0),
        Shape::String | Shape::Bytes => json!(""),
        Shape::Quantity => json!("0"),
        Shape::Time { micro: false } => json!("0001-01-01T00:00:00Z"),
        Shape::Time { micro: true } => json!("0001-01-01T00:00:00.000000Z"),
        Shape::Object { .. } => json!({}),
        Shape::List(_) => json!([]),
        Shape::Definition(_) => unreachable!("resolved"),
    }
}

fn quantity(text: &str) -> Result<Option<String>, String> {
    let parsed: Quantity = text.trim().parse().map_err(|error: crate::QuantityError| error.to_string())?;
    let canonical = parsed.to_string();
    Ok((canonical != text).then_some(canonical))
}

fn base64_text(text: &str) -> Result<Option<String>, String> {
    let standard = base64::engine::general_purpose::STANDARD;
    match standard.decode(text) {
        Ok(_) => Ok(None),
        Err(_) if text.contains(['\n', '\r']) => {
            let joined: String = text.split(['\n', '\r']).collect();
            standard.decode(&joined).map(|_| Some(joined)).map_err(|error| base64_message(&error, text.len()))
        }
        Err(error) => Err(base64_message(&error, text.len())),
    }
}

fn base64_message(error: &base64::DecodeError, length: usize) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) => *at,
        base64::DecodeError::InvalidLastSymbol { offset, .. } => *offset,
        _ => length - length % 4,
    };
    format!("illegal base64 data at input byte {at}")
}

fn time(text: &str, micro: bool) -> Result<Option<String>, String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let parsed: Timestamp =
        text.parse().map_err(|_| format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))?;
    let canonical = canonical_time(parsed, micro);
    Ok((canonical != text).then_some(canonical))
}

/// RFC 3339 in UTC, with six digits of the second or none.
fn canonical_time(time: Timestamp, micro: bool) -> String {
    let format = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    time.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(group: &str, version: &str, kind: &str, object: Value) -> Option<String> {
        Schema::builtin(group, version, kind).unwrap().type_error(&object)
    }

    #[test]
    fn wrong_types_are_worded_as_go_does() {
        let cases = [
            (
                json!({"spec": {"replicas": "three"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 3_000_000_000_u64}}),
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"image": true}]}}}}),
                "json: cannot unmarshal bool into Go struct field Container.spec.template.spec.containers.image of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": {}}}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({"spec": []}),
                "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
            ),
            (json!([]), "json: cannot unmarshal array into Go value of type v1.Deployment"),
            (
                json!({"metadata": {"creationTimestamp": "now"}}),
                r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
            ),
        ];
        for (object, message) in cases {
            assert_eq!(error("apps", "v1", "Deployment", object.clone()).as_deref(), Some(message), "{object}");
        }
        let secret = json!({"data": {"a": "%%%"}});
        assert_eq!(error("", "v1", "Secret", secret).as_deref(), Some("illegal base64 data at input byte 0"));
        assert_eq!(error("apps", "v1", "Deployment", json!({"spec": {"replicas": 3}})), None);
    }

    #[test]
    fn objects_take_the_form_that_is_stored() {
        let pod = Schema::builtin("", "v1", "Pod").unwrap();
        let mut object = json!({
            "metadata": {"creationTimestamp": null, "labels": {"a": null}, "deletionTimestamp": "2024-01-01T01:00:00.5+01:00"},
            "spec": {
                "foo": 1,
                "containers": [{
                    "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": 0.5}},
                    "livenessProbe": {"httpGet": {"port": "http", "bar": {}}},
                }],
            },
        });
        let found = pod.normalize(&mut object);
        assert_eq!(found.error, None);
        assert_eq!(found.unknown, ["spec.containers[0].livenessProbe.httpGet.bar", "spec.foo"]);
        assert_eq!(
            object,
            json!({
                "metadata": {"labels": {"a": ""}, "deletionTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {"containers": [{
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                    "livenessProbe": {"httpGet": {"port": "http"}},
                }]},
            })
        );
    }

    #[test]
    fn raw_objects_are_kept_whole() {
        let revision = Schema::builtin("apps", "v1", "ControllerRevision").unwrap();
        let mut object = json!({"data": {"spec": {"x": null}}, "revision": 1});
        assert_eq!(revision.normalize(&mut object), Normalized::default());
        assert_eq!(object["data"], json!({"spec": {"x": null}}));
    }

    #[test]
    fn micro_times_have_six_digits() {
        let lease = Schema::builtin("coordination.k8s.io", "v1", "Lease").unwrap();
        let mut object = json!({"spec": {"renewTime": "2024-01-01T00:00:00Z"}});
        lease.normalize(&mut object);
        assert_eq!(object["spec"]["renewTime"], "2024-01-01T00:00:00.000000Z");
    }

    #[test]
    fn custom_resources_are_pruned() {
        let schema = Schema::from_crd(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer"},
                "hint": {"type": "string", "nullable": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object"}}},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
        }}))
        .unwrap();
        let mut object = json!({
            "apiVersion": "e.com/v1", "kind": "E", "metadata": {"name": "a", "bad": 1},
            "spec": {"size": null, "hint": null, "free": {"x": 1, "a": {"b": 1}}, "map": {"k": "v"}, "other": {}},
        });
        let found = schema.normalize(&mut object);
        assert_eq!(found.unknown, ["metadata.bad", "spec.free.a.b", "spec.other"]);
        assert_eq!(object["spec"], json!({"hint": null, "free": {"x": 1, "a": {}}, "map": {"k": "v"}}));
        assert_eq!(
            schema.type_error(&json!({"metadata": {"labels": 1}})).unwrap(),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type map[string]string"
        );
    }
}
