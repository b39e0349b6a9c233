//! What the expressions of a ValidatingAdmissionPolicy get wrong about the objects that it is for.
//!
//! Objects have no types when a policy is evaluated, for it may be for many kinds. Here its expressions are compiled once more for each
//! kind that it names, with types from the kind's schema, and what is found is told in the policy's status
//! (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking>). It never keeps the policy from
//! working.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    super::{list, text},
    environment::typed,
};
use crate::{
    Resource,
    server::{
        Reader,
        cel::{Environment, Program, Type, batch},
    },
};

/// So many kinds are looked at.
const MOST: usize = 10;

/// The `status.typeChecking` of a policy.
pub(crate) fn type_check(policy: &Value, reader: &dyn Reader) -> Value {
    let spec = &policy["spec"];
    let params = params(spec, reader);
    let kinds: Vec<(String, Type)> = kinds(spec, reader)
        .into_iter()
        .filter_map(|(shown, resource)| Some((shown, reader.schema(&resource)?.cel_type(&resource.kind))))
        .collect();
    let warnings = if kinds.is_empty() { Vec::new() } else { batch(|| check(spec, &kinds, params.as_ref())) };
    if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) }
}

/// The kinds that the rules name without a wildcard, sorted, each with its group, version and kind as Go writes them.
fn kinds(spec: &Value, reader: &dyn Reader) -> BTreeMap<String, Resource> {
    let mut kinds = BTreeMap::new();
    for rule in list(&spec["matchConstraints"]["resourceRules"]) {
        let names = |field: &str| -> Vec<&str> { list(&rule[field]).iter().map(text).collect() };
        let (groups, versions) = (names("apiGroups"), names("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let resources = names("resources").into_iter().filter(|name| !name.contains(['*', '/']));
        for plural in resources {
            for (group, version) in groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version)))
            {
                if kinds.len() == MOST {
                    return kinds;
                }
                if let Some(resource) = reader.resource(group, version, plural) {
                    kinds.insert(format!("{group}/{version}, Kind={}", resource.kind), resource);
                }
            }
        }
    }
    kinds
}

/// The type of `params`; none where there are none, and any where nobody knows what they look like.
fn params(spec: &Value, reader: &dyn Reader) -> Option<Type> {
    let kind = spec["paramKind"].as_object()?;
    let field = |name: &str| kind.get(name).map(text).unwrap_or_default();
    let resource = reader.resource_of(field("apiVersion"), field("kind"));
    let schema = resource.and_then(|resource| reader.schema(&resource));
    Some(schema.map_or(Type::Dyn, |schema| schema.cel_type(field("kind"))))
}

fn check(spec: &Value, kinds: &[(String, Type)], params: Option<&Type>) -> Vec<Value> {
    let environments: Vec<(&str, Environment)> = kinds
        .iter()
        .map(|(shown, kind)| {
            let mut environment = typed(kind.clone(), params.cloned(), true, false);
            for variable in list(&spec["variables"]) {
                let compiled = Program::checked(text(&variable["expression"]), &environment);
                let kind = compiled.map_or(Type::Dyn, |program| program.kind().clone());
                environment.declare(format!("variables.{}", text(&variable["name"])), kind);
            }
            (shown.as_str(), environment)
        })
        .collect();
    let mut warnings = Vec::new();
    for (i, validation) in list(&spec["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = text(&validation[field]);
            if expression.is_empty() {
                continue;
            }
            let found = environments.iter().filter_map(|(shown, environment)| {
                let error = Program::checked(expression, environment).err()?;
                Some(format!("{shown}: {error}\n"))
            });
            let found: Vec<_> = found.collect();
            if !found.is_empty() {
                let place = format!("spec.validations[{i}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": found.join("\n")}));
            }
        }
    }
    warnings
}
