//! The objects that parametrize a policy: its `paramKind`, as a binding's `paramRef` chooses among them.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Spec;
use serde_json::Value;

use super::super::text;
use crate::{
    LabelSelector, Object,
    server::{AdmissionRequest, Reader},
};

/// The params of a binding for a write; one that is null where the policy or the binding asks for none.
///
/// # Errors
/// Why there are none though there have to be.
pub(super) async fn params(
    kind: &Value,
    binding: &Value,
    request: &AdmissionRequest,
    reader: &dyn Reader,
) -> Result<Vec<Value>, String> {
    let reference = &binding["spec"]["paramRef"];
    if kind.is_null() || reference.is_null() {
        return Ok(vec![Value::Null]);
    }
    let (api_version, name) = (text(&kind["apiVersion"]), text(&kind["kind"]));
    let resource = reader
        .resource_of(api_version, name)
        .ok_or_else(|| format!("failed to find resource referenced by paramKind: '{api_version}, Kind={name}'"))?;
    let namespace = match (resource.namespaced, text(&reference["namespace"]), request.attributes.namespace.as_str()) {
        (false, "", _) => "",
        (false, ..) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "", _) if !request.resource.namespaced => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        (true, "", own) => own,
        (true, other, _) => other,
    };
    let failed = |error: crate::Error| error.to_string();
    let found: Vec<Arc<Object>> = match text(&reference["name"]) {
        "" => {
            let spec: Spec =
                serde_json::from_value(reference["selector"].clone()).map_err(|error| error.to_string())?;
            let selector = LabelSelector::from_spec(&spec).map_err(|error| error.to_string())?;
            reader.list(&resource.group, &resource.plural, namespace, &selector).await.map_err(failed)?
        }
        name => {
            let found = reader.get(&resource.group, &resource.plural, namespace, name).await.map_err(failed)?;
            found.into_iter().collect()
        }
    };
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    found.iter().map(|object| object.value().map_err(failed)).collect()
}
