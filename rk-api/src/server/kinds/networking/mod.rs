//! Ingresses, their classes, NetworkPolicies, and the addresses of Services. Endpoints have a file of their own.

mod addresses;
mod ingress;
mod network_policy;

use serde_json::Value;

pub use addresses::{IP_ADDRESS, SERVICE_CIDR};
pub use ingress::{INGRESS, ingress_columns};
pub use network_policy::{NETWORK_POLICY, network_policy_columns};

use super::{
    cells::{AGE, NAME, column, or_none},
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, at_mut, fill},
};
use crate::server::Column;

/// The rules of IngressClasses.
pub const INGRESS_CLASS: Rules = Rules {
    default: |class| {
        if let Some(parameters) = at_mut(class, "spec.parameters") {
            fill(parameters, "scope", "Cluster");
        }
    },
    validate: validate_class,
    validate_change: |new, old, _, errors| {
        errors.immutable(&Path::Root.child("spec.controller"), new.at("spec.controller"), old.at("spec.controller"));
    },
    ..Rules::NONE
};

/// The columns of IngressClasses.
pub fn ingress_class_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Controller", "string", |class| class.text("spec.controller").into()),
        column("Parameters", "string", |class| parameters(class.at("spec.parameters"))),
        AGE,
    ]
}

fn parameters(parameters: &Value) -> Value {
    if parameters.is_null() {
        return or_none("");
    }
    let (kind, name) = (parameters.text("kind"), parameters.text("name"));
    match parameters.text("apiGroup") {
        "" => format!("{kind}/{name}").into(),
        group => format!("{kind}.{group}/{name}").into(),
    }
}

fn validate_class(class: &Value, errors: &mut Errors) {
    let (spec, path) = (class.at("spec"), Path::Root.child("spec"));
    let (controller, controller_path) = (spec.text("controller"), path.child("controller"));
    if controller.is_empty() {
        errors.required(&controller_path, "");
    } else if controller.len() > 250 {
        errors.too_long(&controller_path, 250);
    } else {
        match controller.split_once('/') {
            Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
                errors.invalid_all(&controller_path, host, names::dns_subdomain(host));
            }
            _ => {
                errors.invalid(&controller_path, controller, "must be a domain-prefixed path (such as \"acme.io/foo\")")
            }
        }
    }
    if !spec.has("parameters") {
        return;
    }
    let (parameters, path) = (spec.at("parameters"), path.child("parameters"));
    for field in ["kind", "name"] {
        if parameters.text(field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let scope = parameters.text("scope");
    errors.required_one_of(&path.child("scope"), scope, &["Cluster", "Namespace"]);
    let namespace = parameters.text("namespace");
    if scope == "Namespace" && namespace.is_empty() {
        errors.required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'");
    } else if scope == "Cluster" && !namespace.is_empty() {
        errors.forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'");
    }
}
