//! The rules of resource requests and limits.

use serde_json::Value;

use crate::{
    Quantity,
    server::kinds::{
        field::{Errors, Path},
        names,
        value::Peek,
    },
};

/// The resources that are Kubernetes' own and may be named without a domain.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage", "storage"];

/// The rules of the resources of a container.
pub fn validate(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let limits_path = path.child("limits");
    let requests_path = path.child("requests");
    for (name, limit) in resources.entries("limits") {
        let path = limits_path.key(name);
        resource_name(name, &path, errors);
        if let Some(limit) = quantity(limit, &path, errors) {
            amount(name, &limit, &path, errors);
        }
    }
    for (name, request) in resources.entries("requests") {
        let path = requests_path.key(name);
        resource_name(name, &path, errors);
        let Some(request) = quantity(request, &path, errors) else { continue };
        amount(name, &request, &path, errors);
        let limit =
            resources.at("limits").get(name).and_then(Value::as_str).and_then(|text| text.parse::<Quantity>().ok());
        let broken = match limit {
            Some(limit) if may_overcommit(name) => (request > limit).then_some((limit, "less than or equal to")),
            Some(limit) => (request != limit).then_some((limit, "equal to")),
            None => {
                if !may_overcommit(name) {
                    errors.required(&limits_path, "Limit must be set for non overcommitable resources");
                }
                None
            }
        };
        if let Some((limit, how)) = broken {
            errors.invalid(&requests_path, &request.to_string(), &format!("must be {how} {name} limit of {limit}"));
        }
    }
    huge_pages(resources, path, errors);
}

/// Huge pages are of no use alone.
fn huge_pages(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let any = |rule: fn(&str) -> bool| {
        ["limits", "requests"].iter().flat_map(|list| resources.entries(list)).any(|(name, _)| rule(name))
    };
    if any(|name| name.starts_with("hugepages-")) && !any(|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// The rules of the resources of a pod as a whole: cpu, memory and huge pages, at least what its containers request.
pub fn validate_pod(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let resources = spec.at("resources");
    if resources.is_null() {
        return;
    }
    for list in ["limits", "requests"] {
        let list_path = path.child(list);
        for (name, _) in resources.entries(list) {
            if !matches!(name.as_str(), "cpu" | "memory") && !name.starts_with("hugepages-") {
                errors.not_supported(&list_path.key(name), name, &["cpu", "hugepages-", "memory"]);
            }
        }
    }
    validate(resources, path, errors);
    let requests_path = path.child("requests");
    for (name, request) in resources.entries("requests") {
        let Some(request) = request.as_str().and_then(|text| text.parse::<Quantity>().ok()) else { continue };
        let containers = spec.list("containers").iter();
        let sum: Quantity = containers
            .filter_map(|container| container.at("resources.requests").get(name)?.as_str()?.parse::<Quantity>().ok())
            .sum();
        if sum > request {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&requests_path.key(name), &request.to_string(), &detail);
        }
    }
}

/// Reads a quantity that must not be negative.
pub fn quantity(value: &Value, path: &Path<'_>, errors: &mut Errors) -> Option<Quantity> {
    let parsed = match value {
        Value::String(text) => text.parse::<Quantity>(),
        other => other.to_string().parse::<Quantity>(),
    };
    match parsed {
        Ok(quantity) => {
            if quantity.signum() < 0 {
                errors.invalid(path, &quantity.to_string(), "must be greater than or equal to 0");
            }
            Some(quantity)
        }
        Err(error) => {
            errors.invalid(path, value, &error.to_string());
            None
        }
    }
}

/// Whole numbers only, but for cpu; cpu in whole thousandths.
fn amount(name: &str, quantity: &Quantity, path: &Path<'_>, errors: &mut Errors) {
    let whole = !STANDARD.contains(&name);
    if whole && !quantity.is_integer() {
        errors.invalid(path, &quantity.to_string(), "must be an integer");
    }
}

/// The syntax of the name of a container's resource.
pub fn resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_all(path, name, names::qualified_name(name));
    if !name.contains('/') && !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-")
    {
        errors.invalid(path, name, "must be a standard resource for containers");
    }
}

/// Whether the limit of a resource may be above its request: only of Kubernetes' own.
fn may_overcommit(name: &str) -> bool {
    STANDARD.contains(&name) || name.split_once('/').is_some_and(|(domain, _)| domain.ends_with("kubernetes.io"))
}
