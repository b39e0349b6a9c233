//! The defaults of Services, and what a change keeps or drops of what was allocated.

use serde_json::{Value, json};

use crate::server::kinds::value::{Peek, at_mut, each_mut, fill, is_empty, object_mut, remove, set};

/// Sets defaults.
pub fn default(service: &mut Value) {
    let Some(spec) = object_mut(service, "spec") else { return };
    fill(spec, "sessionAffinity", "None");
    fill(spec, "type", "ClusterIP");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            if let Some(client) = object_mut(spec, "sessionAffinityConfig.clientIP") {
                fill(client, "timeoutSeconds", 10_800);
            }
        }
        "None" => {
            remove(spec, "sessionAffinityConfig");
        }
        _ => {}
    }
    each_mut(spec, "ports", |port| {
        fill(port, "protocol", "TCP");
        if matches!(port.at("targetPort"), Value::Null) || port.at("targetPort") == 0 || port.at("targetPort") == "" {
            let number = port.at("port").clone();
            set(port, "targetPort", number);
        }
    });
    let kind = spec.text("type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    if external {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if has_cluster_ip(&kind) {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether Services of a type have a cluster IP.
pub fn has_cluster_ip(kind: &str) -> bool {
    matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether Services of a type open ports on nodes.
pub fn has_node_ports(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.at("allocateLoadBalancerNodePorts") != &Value::Bool(false),
        _ => false,
    }
}

/// Makes `clusterIP` and `clusterIPs` say the same where a client wrote only one of them.
pub fn normalize(service: &mut Value, old: Option<&Value>) {
    let Some(spec) = at_mut(service, "spec") else { return };
    let one = spec.text("clusterIP").to_owned();
    let untouched = match old {
        None => spec.list("clusterIPs").is_empty(),
        Some(old) => one != old.text("spec.clusterIP") && spec.list("clusterIPs") == old.list("spec.clusterIPs"),
    };
    match &one[..] {
        _ if !untouched => {}
        "" => _ = remove(spec, "clusterIPs"),
        one => set(spec, "clusterIPs", json!([one])),
    }
}

/// A client that left out what was allocated keeps it.
pub fn keep_allocated(new: &mut Value, old: &Value) {
    let (Some(spec), old) = (at_mut(new, "spec"), old.at("spec")) else { return };
    if has_cluster_ip(old.text("type")) && has_cluster_ip(spec.text("type")) {
        for field in ["clusterIP", "clusterIPs"] {
            if is_empty(spec.at(field)) && old.has(field) {
                set(spec, field, old.at(field).clone());
            }
        }
    }
    if has_node_ports(old) && has_node_ports(spec) {
        let taken: Vec<i64> = spec.list("ports").iter().filter_map(|port| port.int("nodePort")).collect();
        each_mut(spec, "ports", |port| {
            let same =
                |other: &&Value| other.text("protocol") == port.text("protocol") && other.at("port") == port.at("port");
            let before = old.list("ports").iter().find(same).and_then(|other| other.int("nodePort"));
            if port.int("nodePort").unwrap_or(0) == 0
                && let Some(number) = before.filter(|number| *number != 0 && !taken.contains(number))
            {
                set(port, "nodePort", number);
            }
        });
    }
}

/// A change of the type drops what the new type does not have, unless the client set it anew.
pub fn drop_unused(new: &mut Value, old: &Value) {
    let (Some(spec), old) = (at_mut(new, "spec"), old.at("spec")) else { return };
    if spec.text("type") == old.text("type") {
        return;
    }
    if has_cluster_ip(old.text("type")) && !has_cluster_ip(spec.text("type")) {
        if spec.at("clusterIP") == old.at("clusterIP") {
            remove(spec, "clusterIP");
            remove(spec, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if spec.at(field) == old.at(field) {
                remove(spec, field);
            }
        }
    }
    if has_node_ports(old) && !has_node_ports(spec) {
        let mine = spec.list("ports").iter().map(|port| port.int("nodePort"));
        if mine.eq(old.list("ports").iter().map(|port| port.int("nodePort"))) {
            each_mut(spec, "ports", |port| {
                remove(port, "nodePort");
            });
        }
    }
    let external = matches!(spec.text("type"), "NodePort" | "LoadBalancer");
    if !external
        && spec.list("externalIPs").is_empty()
        && spec.at("externalTrafficPolicy") == old.at("externalTrafficPolicy")
    {
        remove(spec, "externalTrafficPolicy");
    }
    if spec.text("type") != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
            if spec.at(field) == old.at(field) {
                remove(spec, field);
            }
        }
    }
}
