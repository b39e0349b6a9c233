//! NetworkPolicies.

use serde_json::{Value, json};

use crate::server::{
    Column,
    kinds::{
        cells::{AGE, NAME, column, selector as selector_cell},
        field::{Errors, Path},
        names,
        rules::Rules,
        selector,
        value::{Peek, each_mut, fill, object_mut, set},
    },
};

/// The rules of NetworkPolicies.
pub const NETWORK_POLICY: Rules = Rules { default, validate, ..Rules::NONE };

/// The columns of NetworkPolicies.
pub fn network_policy_columns() -> Vec<Column> {
    vec![NAME, column("Pod-Selector", "string", |policy| selector_cell(policy.at("spec.podSelector"))), AGE]
}

fn default(policy: &mut Value) {
    let Some(spec) = object_mut(policy, "spec") else { return };
    for direction in ["ingress", "egress"] {
        each_mut(spec, direction, |rule| each_mut(rule, "ports", |port| fill(port, "protocol", "TCP")));
    }
    if spec.list("policyTypes").is_empty() {
        let types = if spec.list("egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        set(spec, "policyTypes", types);
    }
}

fn validate(policy: &Value, errors: &mut Errors) {
    let (spec, path) = (policy.at("spec"), Path::Root.child("spec"));
    selector::validate(spec.at("podSelector"), &path.child("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let list = path.child(direction);
        for (i, rule) in spec.list(direction).iter().enumerate() {
            let path = list.index(i);
            let ports = path.child("ports");
            for (i, port) in rule.list("ports").iter().enumerate() {
                policy_port(port, &ports.index(i), errors);
            }
            let list = path.child(peers);
            for (i, one) in rule.list(peers).iter().enumerate() {
                peer(one, &list.index(i), errors);
            }
        }
    }
    let types = spec.list("policyTypes");
    let list = path.child("policyTypes");
    if types.len() > 2 {
        errors.invalid(&list, spec.at("policyTypes"), "may not specify more than two policyTypes");
        return;
    }
    for (i, kind) in types.iter().filter_map(Value::as_str).enumerate() {
        errors.one_of(&list.index(i), kind, &["Egress", "Ingress"]);
    }
}

fn policy_port(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.one_of(&path.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
    let (from, end) = (port.at("port"), port.int("endPort"));
    let port_path = path.child("port");
    match from {
        Value::Null => {
            if end.is_some() {
                errors.invalid(
                    &path.child("endPort"),
                    port.at("endPort"),
                    "may not be specified when `port` is not specified",
                );
            }
        }
        Value::String(name) => {
            errors.invalid_all(&port_path, name, names::port_name(name));
            if end.is_some() {
                errors.invalid(
                    &path.child("endPort"),
                    port.at("endPort"),
                    "may not be specified when `port` is non-numeric",
                );
            }
        }
        number => {
            let number = number.as_i64().unwrap_or(0);
            if let Some(detail) = names::port_number(number) {
                errors.invalid(&port_path, &number, detail);
            }
            if let Some(end) = end {
                if end < number {
                    errors.invalid(&path.child("endPort"), &end, "must be greater than or equal to `port`");
                }
                if let Some(detail) = names::port_number(end) {
                    errors.invalid(&path.child("endPort"), &end, detail);
                }
            }
        }
    }
}

fn peer(peer: &Value, path: &Path<'_>, errors: &mut Errors) {
    let selects = ["podSelector", "namespaceSelector"];
    for field in selects {
        selector::validate(peer.at(field), &path.child(field), errors);
    }
    let block = peer.at("ipBlock");
    let given = selects.iter().any(|field| peer.has(field));
    if block.is_null() {
        if !given {
            errors.required(path, "must specify a peer");
        }
        return;
    }
    let path = path.child("ipBlock");
    if given {
        errors.forbidden(&path, "may not specify both ipBlock and another peer");
    }
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    if let Some(detail) = names::cidr(cidr) {
        errors.invalid(&path.child("cidr"), cidr, detail);
        return;
    }
    let list = path.child("except");
    for (i, except) in block.list("except").iter().filter_map(Value::as_str).enumerate() {
        if let Some(detail) = names::cidr(except) {
            errors.invalid(&list.index(i), except, detail);
        } else if !names::cidr_within(except, cidr) {
            errors.invalid(&list.index(i), except, "must be a strict subset of `cidr`");
        }
    }
}
