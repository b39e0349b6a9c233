//! Nodes.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    cells::{AGE, NAME, column, condition, or_none, wide},
    field::{Errors, Path},
    pod,
    rules::Rules,
    value::{Peek, same},
};
use crate::server::Column;

/// The rules of Nodes. A node reports its own status when it registers.
pub const RULES: Rules = Rules { validate, validate_change, ..Rules::NONE };

/// The columns of Nodes.
pub fn columns() -> Vec<Column> {
    vec![
        NAME,
        column("Status", "string", |node| status(node).into()),
        column("Roles", "string", |node| or_none(&roles(node))),
        AGE,
        column("Version", "string", |node| node.text("status.nodeInfo.kubeletVersion").into()),
        wide("Internal-IP", "string", |node| address(node, "InternalIP")),
        wide("External-IP", "string", |node| address(node, "ExternalIP")),
        wide("OS-Image", "string", |node| info(node, "osImage")),
        wide("Kernel-Version", "string", |node| info(node, "kernelVersion")),
        wide("Container-Runtime", "string", |node| info(node, "containerRuntimeVersion")),
    ]
}

fn status(node: &Value) -> String {
    let mut status = match condition(node, "Ready") {
        Some(ready) if ready.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.flag("spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = node
        .entries("metadata.labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

fn address(node: &Value, kind: &str) -> Value {
    let found = node.list("status.addresses").iter().find(|address| address.text("type") == kind);
    or_none(found.map_or("", |address| address.text("address")))
}

fn info(node: &Value, field: &str) -> Value {
    match node.at("status.nodeInfo").text(field) {
        "" => "<unknown>".into(),
        text => text.into(),
    }
}

fn validate(node: &Value, errors: &mut Errors) {
    let path = Path::Root.child("spec");
    pod::taints(node.list("spec.taints"), &path.child("taints"), errors);
    let cidrs: Vec<_> = node.list("spec.podCIDRs").iter().filter_map(Value::as_str).collect();
    let list = path.child("podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        if let Some(detail) = super::names::cidr(cidr) {
            errors.invalid(&list.index(i), *cidr, detail);
        }
    }
    if cidrs.len() > 2 {
        errors.invalid(&list, node.at("spec.podCIDRs"), "may specify no more than one CIDR for each IP family");
    }
    let (list, mut seen) = (Path::Root.child("status.addresses"), Vec::new());
    for (i, address) in node.list("status.addresses").iter().enumerate() {
        let text = address.text("address");
        if address.text("type").ends_with("IP") && text.parse::<IpAddr>().is_err() {
            errors.invalid(
                &list.index(i).child("address"),
                text,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        if seen.contains(&address) {
            errors.duplicate(&list.index(i), address);
        }
        seen.push(address);
    }
    for field in ["capacity", "allocatable"] {
        let status = Path::Root.child("status");
        let list = status.child(field);
        for (name, value) in node.at("status").entries(field) {
            pod::quantity(value, &list.key(name), errors);
        }
    }
}

fn validate_change(new: &Value, old: &Value, _: &str, errors: &mut Errors) {
    let path = Path::Root.child("spec");
    let cidrs = old.at("spec.podCIDRs");
    if !cidrs.is_null() && !same(cidrs, new.at("spec.podCIDRs")) {
        errors.forbidden(&path.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = old.text("spec.providerID");
    if !provider.is_empty() && provider != new.text("spec.providerID") {
        errors.forbidden(&path.child("providerID"), "node updates may not change providerID except from \"\" to valid");
    }
}
