//! MutatingAdmissionPolicies.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{
    super::{describe::convert, forbid, list, text},
    Policies,
    compile::{Mutation, Policy},
    evaluate::{Evaluation, Seen, settled},
    matched, params, sees,
};
use crate::{
    Resource, Status,
    server::{
        AdmissionRequest, Admit, Operation, Reader, apply,
        patch::{self, Inapplicable},
        schema::Schema,
    },
};

/// Changes a write as the MutatingAdmissionPolicies that are bound to it say, one after the other, each seeing what those
/// before it changed. One with `reinvocationPolicy: IfNeeded` has another look if others changed the object after it.
#[derive(Debug)]
pub struct MutatingPolicies(Policies);

impl Default for MutatingPolicies {
    fn default() -> Self {
        Self(Policies::new("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"))
    }
}

#[async_trait]
impl Admit for MutatingPolicies {
    fn name(&self) -> &str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && sees(resource)
    }

    async fn mutate(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let set = self.0.current(reader).await?;
        let second = request.reinvocation.is_second();
        for policy in set.0.iter().filter(|policy| !policy.bindings.is_empty() && (policy.again || !second)) {
            let Some(shown) = matched(&policy.resources, request, reader).await? else { continue };
            for binding in &policy.bindings {
                if matched(&binding["spec"]["matchResources"], request, reader).await?.is_some() {
                    // Boxed, so that a write that no policy is about moves little.
                    Box::pin(run(policy, binding, &shown, request, reader)).await?;
                }
            }
        }
        Ok(())
    }
}

/// Lets a policy change the object, shown in the version of `shown`, under a binding.
async fn run(
    policy: &Policy,
    binding: &Value,
    shown: &Resource,
    request: &mut AdmissionRequest,
    reader: &dyn Reader,
) -> Result<(), Status> {
    let failed = |request: &AdmissionRequest, why: &str| {
        if !policy.fail {
            tracing::warn!(policy = policy.name, error = why, "a policy failed and is ignored");
            return Ok(());
        }
        let binding = text(&binding["metadata"]["name"]);
        let message =
            format!("MutatingAdmissionPolicy '{}' with binding '{binding}' denied request: {why}", policy.name);
        Err(forbid(request, &message))
    };
    if let Some(why) = &policy.broken {
        return failed(request, &format!("failed to configure policy: {why}"));
    }
    let params = match params::params(&policy.param_kind, binding, request, reader).await {
        Ok(params) => params,
        Err(why) => return failed(request, &format!("failed to configure binding: {why}")),
    };
    let schema = schema_of(request.object.as_ref().unwrap_or(&Value::Null), shown, reader);
    for param in &params {
        let (meta, bound) = (&param["metadata"], text(&binding["metadata"]["name"]));
        let name = format!("policy {}/{bound}/{}/{}", policy.name, text(&meta["namespace"]), text(&meta["name"]));
        if !request.reinvocation.calls(&name, request.object.as_ref()) {
            continue;
        }
        let (mut seen, mut changed) = (Seen::of(request, shown, reader).await?, false);
        let wanted = settled(request, reader, |answers| {
            Evaluation::new(&seen.inputs(param), &policy.variables, answers)?.all(&policy.conditions)
        });
        match wanted.await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(failure) => {
                failed(request, &failure.to_string())?;
                continue;
            }
        }
        for mutation in &policy.mutations {
            let patch = settled(request, reader, |answers| {
                let mut evaluation = Evaluation::new(&seen.inputs(param), &policy.variables, answers)?;
                evaluation.value(&mutation.program)?.to_json()
            });
            let patch = patch.await.map_err(|failure| failure.to_string());
            match patch.and_then(|patch| patch_with(&seen.object, &patch, mutation, schema.as_deref())) {
                // Later mutations see what this one made.
                Ok(object) => (seen.object, changed) = (object, true),
                // One that is ignored leaves the others (apiserver's `dispatchInvocations`).
                Err(why) => failed(request, &why)?,
            }
        }
        if changed {
            let mutated = Some(convert(seen.object, shown, &request.resource, reader).await?);
            changed = request.object != mutated;
            request.object = mutated;
        }
        request.reinvocation.called(&name, policy.again, changed, request.object.as_ref());
    }
    Ok(())
}

/// What the objects of a write look like: those of the resource, or the bodies of a subresource, which are of other kinds.
fn schema_of(object: &Value, shown: &Resource, reader: &dyn Reader) -> Option<Arc<Schema>> {
    let kind = text(&object["kind"]);
    if kind == shown.kind {
        return reader.schema(shown);
    }
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Schema::builtin(group, version, kind)
}

/// The object after a mutation.
fn patch_with(object: &Value, patch: &Value, mutation: &Mutation, schema: Option<&Schema>) -> Result<Value, String> {
    if !mutation.applies {
        let operations = list(patch).iter().map(|operation| {
            serde_json::from_value(operation.clone()).map_err(|error| format!("a patch is no JSON patch: {error}"))
        });
        let patch = json_patch::Patch(operations.collect::<Result<_, _>>()?);
        let mut patched = object.clone();
        return match patch::operate(&mut patched, &patch) {
            Ok(()) => well_formed(patched, object, schema),
            // It is for other objects.
            Err(Inapplicable::Test(..)) => Ok(object.clone()),
            Err(error) => Err(error.to_string()),
        };
    }
    let metadata = patch["metadata"].as_object();
    for fixed in ["name", "namespace", "uid", "generateName", "managedFields"] {
        if metadata.is_some_and(|fields| fields.contains_key(fixed)) {
            return Err(format!("applyConfiguration may not set metadata.{fixed}"));
        }
    }
    if ["apiVersion", "kind"].iter().any(|field| patch.get(field).is_some_and(|value| *value != object[field])) {
        return Err("applyConfiguration may not change apiVersion or kind".to_owned());
    }
    well_formed(apply::merged(schema, object, patch), object, schema)
}

/// Whether what a policy made still is the object.
fn well_formed(patched: Value, object: &Value, schema: Option<&Schema>) -> Result<Value, String> {
    let same = |field: &str| patched[field] == object[field];
    if !same("apiVersion") || !same("kind") || patched["metadata"]["name"] != object["metadata"]["name"] {
        return Err("a mutation may not change apiVersion, kind or metadata.name".to_owned());
    }
    match schema.and_then(|schema| schema.type_error(&patched)) {
        Some(why) => Err(why),
        None => Ok(patched),
    }
}
