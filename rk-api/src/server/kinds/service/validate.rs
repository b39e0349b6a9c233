//! The rules of Services.

use std::collections::HashSet;

use serde_json::Value;

use super::{defaults::has_cluster_ip, family_rules};
use crate::server::kinds::{
    field::{Errors, Path},
    meta, names,
    value::Peek,
    warn::Warnings,
};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// The rules of a Service.
pub fn service(service: &Value, errors: &mut Errors) {
    let (spec, path) = (service.at("spec"), Path::Root.child("spec"));
    let kind = spec.text("type");
    errors.required_one_of(&path.child("type"), kind, TYPES);
    let headless = spec.text("clusterIP") == "None";
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&path.child("clusterIPs").index(0), "None", &detail);
        }
        "ExternalName" => external_name(spec, &path, errors),
        _ => {}
    }
    ports(spec, &path.child("ports"), errors);
    if spec.has("selector") {
        meta::label_map(spec.at("selector"), &path.child("selector"), errors);
    }
    affinity(spec, &path, errors);
    if kind != "ExternalName" {
        family_rules::related(spec, &path, errors);
    }
    let list = path.child("externalIPs");
    for (i, ip) in spec.list("externalIPs").iter().filter_map(Value::as_str).enumerate() {
        if let Some(detail) = names::ip(ip) {
            errors.invalid(&list.index(i), ip, detail);
        }
    }
    traffic(spec, kind, &path, errors);
    balancer(spec, kind, &path, errors);
}

fn external_name(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ips = spec.at("clusterIPs");
    if !spec.list("clusterIPs").is_empty() {
        errors.forbidden(&path.child("clusterIPs"), "may not be set for ExternalName services");
    } else if !spec.text("clusterIP").is_empty() && ips.is_null() {
        errors.forbidden(&path.child("clusterIP"), "may not be set for ExternalName services");
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if !crate::server::kinds::value::is_empty(spec.at(field)) {
            errors.forbidden(&path.child(field), "may not be set for ExternalName services");
        }
    }
    let name = spec.text("externalName");
    let plain = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required(&path.child("externalName"), "");
    } else {
        errors.invalid_all(&path.child("externalName"), name, names::dns_subdomain(plain));
    }
}

fn ports(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = spec.list("ports");
    let (mut seen_names, mut seen, mut seen_node) = (HashSet::new(), HashSet::new(), HashSet::new());
    let node_ports = matches!(spec.text("type"), "NodePort" | "LoadBalancer");
    for (i, port) in list.iter().enumerate() {
        let path = path.index(i);
        let (name, protocol) = (port.text("name"), port.text("protocol"));
        if name.is_empty() {
            if list.len() > 1 {
                errors.required(&path.child("name"), "");
            }
        } else {
            errors.invalid_all(&path.child("name"), name, names::dns_label(name));
            if !seen_names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        let number = port.int("port").unwrap_or(0);
        if let Some(detail) = names::port_number(number) {
            errors.invalid(&path.child("port"), &number, detail);
        }
        errors.required_one_of(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        target_port(port.at("targetPort"), &path.child("targetPort"), errors);
        if !seen.insert((protocol, number)) {
            errors.duplicate(&path, &serde_json::json!({"protocol": protocol, "port": number}));
        }
        let node = port.int("nodePort").unwrap_or(0);
        if node != 0 {
            if !node_ports {
                errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            } else if !seen_node.insert((protocol, node)) {
                errors.duplicate(&path.child("nodePort"), &node);
            }
        }
    }
}

fn target_port(target: &Value, path: &Path<'_>, errors: &mut Errors) {
    match target {
        Value::String(name) => errors.invalid_all(path, name, names::port_name(name)),
        other => {
            let number = other.as_i64().unwrap_or(0);
            if let Some(detail) = names::port_number(number) {
                errors.invalid(path, &number, detail);
            }
        }
    }
}

fn affinity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let affinity = spec.text("sessionAffinity");
    errors.required_one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let config = path.child("sessionAffinityConfig");
    if affinity == "ClientIP" {
        let seconds = spec.int("sessionAffinityConfig.clientIP.timeoutSeconds").unwrap_or(0);
        if !(1..=86_400).contains(&seconds) {
            errors.invalid(
                &config.child("clientIP.timeoutSeconds"),
                &seconds,
                "must be greater than 0 and less than 86400",
            );
        }
    } else if affinity == "None" && spec.has("sessionAffinityConfig") {
        errors.forbidden(&config, "must not be set when session affinity is None");
    }
}

fn traffic(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let external = path.child("externalTrafficPolicy");
    let policy = spec.text("externalTrafficPolicy");
    let reachable =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    if !policy.is_empty() && !reachable {
        errors.invalid(&external, policy, "may only be set for externally-accessible services");
    } else if reachable {
        errors.required_one_of(&external, policy, &["Cluster", "Local"]);
    }
    let port = spec.int("healthCheckNodePort").unwrap_or(0);
    if port != 0 && !(kind == "LoadBalancer" && policy == "Local") {
        errors.invalid(
            &path.child("healthCheckNodePort"),
            &port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    let internal = spec.text("internalTrafficPolicy");
    if has_cluster_ip(kind) {
        errors.required_one_of(&path.child("internalTrafficPolicy"), internal, &["Cluster", "Local"]);
    } else if !internal.is_empty() {
        errors.forbidden(&path.child("internalTrafficPolicy"), "may not be set when `type` is 'ExternalName'");
    }
    let spread = spec.text("trafficDistribution");
    errors.one_of(&path.child("trafficDistribution"), spread, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

fn balancer(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let ranges = spec.list("loadBalancerSourceRanges");
    let list = path.child("loadBalancerSourceRanges");
    if kind == "LoadBalancer" {
        if !spec.has("allocateLoadBalancerNodePorts") {
            errors.required(&path.child("allocateLoadBalancerNodePorts"), "");
        }
        for (i, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
            if let Some(detail) = names::cidr(range.trim()) {
                errors.invalid(&list.index(i), range, detail);
            }
        }
        return;
    }
    if !ranges.is_empty() {
        errors.forbidden(&list, "may only be used when `type` is 'LoadBalancer'");
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec.has(field) {
            errors.forbidden(&path.child(field), "may only be used when `type` is 'LoadBalancer'");
        }
    }
}

/// The rules of a change.
pub fn change(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old, path) = (new.at("spec"), old.at("spec"), Path::Root.child("spec"));
    if !has_cluster_ip(new.text("type")) || !has_cluster_ip(old.text("type")) {
        return;
    }
    family_rules::change(new, old, &path, errors);
    if old.text("type") == "LoadBalancer"
        && new.text("type") == "LoadBalancer"
        && old.at("loadBalancerClass") != new.at("loadBalancerClass")
    {
        errors.invalid(&path.child("loadBalancerClass"), new.at("loadBalancerClass"), "may not change once set");
    }
}

/// What a client is told of a Service that is valid.
pub fn warn(service: &Value, warnings: &mut Warnings) {
    let (spec, headless) = (service.at("spec"), service.text("spec.clusterIP") == "None");
    let (kind, external) = (spec.text("type"), !spec.list("externalIPs").is_empty());
    let old = "service.kubernetes.io/topology-aware-hints";
    if service.at("metadata.annotations").get(old).is_some() {
        let new = "service.kubernetes.io/topology-mode";
        warnings.say(format!("annotation {old} is deprecated, please use {new} instead"));
    }
    if headless && kind == "ClusterIP" {
        let affinity = !matches!(spec.text("sessionAffinity"), "" | "None");
        for (field, is_set) in [
            ("loadBalancerIP", !spec.text("loadBalancerIP").is_empty()),
            ("externalIPs", external),
            ("SessionAffinity", affinity),
        ] {
            if is_set {
                warnings.say(format!("spec.{field} is ignored for headless services"));
            }
        }
    } else if external && kind != "ExternalName" {
        warnings.say("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    }
    if kind == "ExternalName" && external {
        warnings.say("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        warnings.say("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        let path = Path::Root.child("spec.trafficDistribution");
        warnings.at(&path, "\"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}
