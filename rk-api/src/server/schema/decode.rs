//! A request's body to an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;

use super::{Parsed, Schema, parse_json, parse_protobuf, parse_yaml};
use crate::{Resource, status};

/// The media type of Kubernetes' protobuf.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Reads the object in a request's body: JSON or, with `application/yaml`, YAML.
///
/// A missing `apiVersion` or `kind` is that of the resource, if that is built in. Unknown and doubled fields are dropped; besides they are
/// errors with `field_validation` `Strict`, nothing with `Ignore`, and warnings (the second part of the answer) else.
///
/// # Errors
/// 400 if the body is no such object, 415 for another media type.
pub fn decode(
    body: &[u8],
    media_type: &str,
    resource: &Resource,
    schema: Option<&Schema>,
    field_validation: &str,
) -> Result<(Value, Vec<String>), Status> {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let parsed = match essence {
        "" | "application/json" | "text/json" => parse_json(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => parse_yaml(body),
        PROTOBUF => {
            return match parse_protobuf(body) {
                Ok(value) => decode_value(value, resource, schema, field_validation),
                Err(error) => Err(status::bad_request(error.to_string())),
            };
        }
        _ => return Err(unsupported_media_type(&["application/json", "application/yaml", PROTOBUF])),
    };
    let unrecognized = |why: &str| {
        let kind = &resource.kind;
        status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(body)
        ))
    };
    let unreadable = |why: &dyn std::fmt::Display| format!("couldn't get version/kind; json parse error: {why}");
    let Parsed { mut value, duplicates } = parsed.map_err(|error| unrecognized(&unreadable(&error)))?;
    if let Some(error) = head_error(&value) {
        return Err(unrecognized(&unreadable(&error)));
    }
    // What is no built-in kind has to say what it is.
    if schema.is_some_and(Schema::is_custom) {
        if value["kind"].as_str().is_none_or(str::is_empty) {
            let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body));
            return Err(unrecognized(&why));
        }
        if value["apiVersion"].as_str().is_none_or(str::is_empty) {
            return Err(wrong_version("", resource));
        }
    }
    set_kind(&mut value, resource)?;
    check(&mut value, &duplicates, schema, field_validation)
        .map(|warnings| (value, warnings))
        .map_err(|error| unhandled(resource, &error))
}

/// As [`decode`], for an object that is already a tree.
///
/// # Errors
/// 400 if it has wrong types or, strictly, unknown fields.
pub fn decode_value(
    mut value: Value,
    resource: &Resource,
    schema: Option<&Schema>,
    field_validation: &str,
) -> Result<(Value, Vec<String>), Status> {
    if let Some(error) = head_error(&value) {
        return Err(unhandled(resource, &error));
    }
    set_kind(&mut value, resource)?;
    check(&mut value, &[], schema, field_validation)
        .map(|warnings| (value, warnings))
        .map_err(|error| unhandled(resource, &error))
}

/// 415: the body is in a format that the server does not read.
pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Status {
    let accepted = accepted.join(", ");
    status::failure(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
    )
}

/// Normalizes the object and judges what was found; answers the warnings.
pub(crate) fn check(
    value: &mut Value,
    duplicates: &[String],
    schema: Option<&Schema>,
    field_validation: &str,
) -> Result<Vec<String>, String> {
    let found = schema.map(|schema| schema.normalize(value)).unwrap_or_default();
    if let Some(error) = found.error {
        return Err(error);
    }
    if field_validation == "Ignore" {
        return Ok(Vec::new());
    }
    let warnings: Vec<String> = found
        .unknown
        .iter()
        .map(|path| format!("unknown field {path:?}"))
        .chain(duplicates.iter().map(|path| format!("duplicate field {path:?}")))
        .collect();
    match field_validation {
        "Strict" if !warnings.is_empty() => Err(format!("strict decoding error: {}", warnings.join(", "))),
        _ => Ok(warnings),
    }
}

fn unhandled(resource: &Resource, why: &str) -> Status {
    let Resource { kind, version, .. } = resource;
    status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

/// What Go says where it can't read `apiVersion` and `kind`.
fn head_error(value: &Value) -> Option<String> {
    const HEAD: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let name = |value: &Value| match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        _ => "object",
    };
    let Value::Object(map) = value else {
        return Some(format!("json: cannot unmarshal {} into Go value of type {HEAD}", name(value)));
    };
    ["apiVersion", "kind"].into_iter().find_map(|field| match map.get(field) {
        None | Some(Value::Null | Value::String(_)) => None,
        Some(other) => {
            Some(format!("json: cannot unmarshal {} into Go struct field .{field} of type string", name(other)))
        }
    })
}

fn wrong_version(found: &str, resource: &Resource) -> Status {
    let expected = resource.api_version();
    let why = format!("the API version in the data ({found}) does not match the expected API version ({expected})");
    status::bad_request(why)
}

/// Fills in `apiVersion` and `kind`, and refuses others than the resource's.
fn set_kind(value: &mut Value, resource: &Resource) -> Result<(), Status> {
    let expected = resource.api_version();
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (found, kind) = (text("apiVersion"), text("kind"));
    let same_version = found.is_empty() || found == expected;
    let same_kind = kind.is_empty() || *kind == *resource.kind;
    if same_version && same_kind {
        value["apiVersion"] = expected.into();
        value["kind"] = resource.kind.as_ref().into();
        return Ok(());
    }
    if same_kind && !same_version {
        return Err(wrong_version(&found, resource));
    }
    let api_version = if found.is_empty() { &expected } else { &found };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let why = if Schema::builtin(group, version, &kind).is_some() {
        let package = group.split('.').next().filter(|package| !package.is_empty()).unwrap_or("core");
        format!("converting ({version}.{kind}) to ({package}.{}): unknown conversion", resource.kind)
    } else {
        format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    Err(status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", resource.kind)))
}

/// The start of a body, for messages.
fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    let (start, rest) = body.split_at(body.len().min(MAX));
    let more = if rest.is_empty() { "" } else { " ..." };
    match start.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => {
            let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;
    use proptest::prelude::*;
    use serde_json::json;

    fn deployments() -> Resource {
        Resource::new("apps", "v1", "Deployment", "deployments", true)
    }

    fn decoded(body: &str, field_validation: &str) -> Result<(Value, Vec<String>), Status> {
        let schema = Schema::builtin("apps", "v1", "Deployment");
        decode(body.as_bytes(), "application/json", &deployments(), schema.as_deref(), field_validation)
    }

    #[test]
    fn unknown_and_doubled_fields_follow_the_directive() {
        let body = r#"{"metadata":{"name":"a"},"spec":{"foo":1,"replicas":1,"replicas":2}}"#;
        let (object, warnings) = decoded(body, "Warn").unwrap();
        assert_eq!(
            object,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": 2}})
        );
        assert_eq!(warnings, [r#"unknown field "spec.foo""#, r#"duplicate field "spec.replicas""#]);
        assert!(decoded(body, "Ignore").unwrap().1.is_empty());
        let status = decoded(body, "Strict").unwrap_err();
        assert_eq!((status.code, status.reason.as_deref()), (Some(400), Some("BadRequest")));
        assert_eq!(
            status.message.unwrap(),
            r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.foo", duplicate field "spec.replicas""#
        );
    }

    #[test]
    fn bad_bodies_are_bad_requests() {
        for (body, message) in [
            (
                r#"{"spec":{"replicas":"x"}}"#,
                r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#,
            ),
            (
                r#"{"kind":"#,
                r#"the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: unexpected end of JSON input ({"kind":)"#,
            ),
            (
                "",
                "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
            ),
            (
                "xyz",
                "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value (78797a)",
            ),
            (
                r#"{"kind":"Deployment","apiVersion":"apps/v1beta1"}"#,
                "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)",
            ),
            (
                r#"{"kind":"Foo","apiVersion":"apps/v1"}"#,
                r#"Foo in version "v1" cannot be handled as a Deployment: no kind "Foo" is registered for version "apps/v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
        ] {
            let status = decoded(body, "").unwrap_err();
            assert_eq!((status.code, status.message.as_deref()), (Some(400), Some(message)), "{body}");
        }
        assert!(decoded("[]", "").unwrap_err().message.unwrap().contains("cannot unmarshal array into Go value"));
        assert!(
            decoded(r#"{"kind":5}"#, "").unwrap_err().message.unwrap().contains("Go struct field .kind of type string")
        );
    }

    #[test]
    fn yaml_is_read_and_other_formats_are_not() {
        let read = |media| decode(b"spec: {replicas: 2}\n", media, &deployments(), None, "");
        assert_eq!(read("application/yaml").unwrap().0["spec"]["replicas"], 2);
        let status = read("application/cbor").unwrap_err();
        assert_eq!((status.code, status.reason.as_deref()), (Some(415), Some("UnsupportedMediaType")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), yaml: bool) {
            let schema = Schema::builtin("apps", "v1", "Deployment");
            let media = if yaml { "application/yaml" } else { "application/json" };
            let _ = decode(&bytes, media, &deployments(), schema.as_deref(), "Strict");
        }

        #[test]
        fn arbitrary_shapes_never_panic(
            key in "(metadata|spec|status)",
            inner in "(labels|template|selector|replicas|strategy|creationTimestamp)",
            value in prop_oneof![
                Just(json!(null)), Just(json!(1)), Just(json!("x")), Just(json!([null])), Just(json!({"a": null})), Just(json!({"spec": {"containers": [null]}})),
            ],
        ) {
            let body = json!({key: {inner: value}}).to_string();
            let schema = Schema::builtin("apps", "v1", "Deployment");
            let _ = decode(body.as_bytes(), "", &deployments(), schema.as_deref(), "Strict");
        }
    }
}
