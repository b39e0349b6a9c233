//! The rules of a pod's spec as a whole; its parts have files of their own.

use std::collections::HashSet;

use serde_json::Value;

use super::{affinity, containers, volumes};
use crate::server::kinds::{
    field::{Errors, Path},
    meta, names, pod_group,
    value::Peek,
};

/// The rules of a pod's spec.
pub fn validate(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let volumes = volumes::validate(spec.list("volumes"), &path.child("volumes"), errors);
    containers::validate(spec, &volumes, path, errors);
    let policy = spec.text("restartPolicy");
    errors.required_one_of(&path.child("restartPolicy"), policy, &["Always", "OnFailure", "Never"]);
    errors.required_one_of(
        &path.child("dnsPolicy"),
        spec.text("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    meta::label_map(spec.at("nodeSelector"), &path.child("nodeSelector"), errors);
    name(spec, "serviceAccountName", names::dns_subdomain, path, errors);
    name(spec, "nodeName", names::dns_subdomain, path, errors);
    name(spec, "hostname", names::dns_label, path, errors);
    name(spec, "subdomain", names::dns_label, path, errors);
    name(spec, "priorityClassName", names::dns_subdomain, path, errors);
    name(spec, "runtimeClassName", names::dns_subdomain, path, errors);
    name(spec, "schedulerName", names::dns_subdomain, path, errors);
    if let Some(deadline) = spec.int("activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&deadline)
    {
        errors.invalid(&path.child("activeDeadlineSeconds"), &deadline, "must be between 1 and 2147483647, inclusive");
    }
    errors.one_of(&path.child("preemptionPolicy"), spec.text("preemptionPolicy"), &["PreemptLowerPriority", "Never"]);
    affinity::validate(spec.at("affinity"), &path.child("affinity"), errors);
    affinity::tolerations(spec.list("tolerations"), &path.child("tolerations"), errors);
    affinity::spread(spec.list("topologySpreadConstraints"), &path.child("topologySpreadConstraints"), errors);
    security(spec, path, errors);
    host_aliases(spec.list("hostAliases"), &path.child("hostAliases"), errors);
    dns_config(spec, path, errors);
    gates(spec, path, errors);
    pod_group::validate_reference(spec, path, errors);
    if spec.has("os") {
        errors.required_one_of(&path.child("os.name"), spec.text("os.name"), &["linux", "windows"]);
    }
    super::resources::validate_pod(spec, &path.child("resources"), errors);
}

fn name(spec: &Value, field: &str, rule: fn(&str) -> Vec<String>, path: &Path<'_>, errors: &mut Errors) {
    let value = spec.text(field);
    if !value.is_empty() {
        errors.invalid_all(&path.child(field), value, rule(value));
    }
}

fn gates(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let gates = path.child("readinessGates");
    for (i, gate) in spec.list("readinessGates").iter().enumerate() {
        let kind = gate.text("conditionType");
        errors.invalid_all(&gates.index(i).child("conditionType"), kind, names::qualified_name(kind));
    }
    let gates = path.child("schedulingGates");
    let mut seen = HashSet::new();
    for (i, gate) in spec.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        errors.invalid_all(&gates.index(i), name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&gates.index(i), name);
        }
    }
}

fn security(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let context = spec.at("securityContext");
    let (spec_path, path) = (path, path.child("securityContext"));
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), &true, detail);
    }
    if spec.at("hostUsers") == &Value::Bool(false) {
        for field in ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| spec.flag(field)) {
            errors.forbidden(&spec_path.child(field), "when `hostUsers` is false");
        }
    }
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        containers::id(context.int(field), &path.child(field), errors);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in context.list("supplementalGroups").iter().enumerate() {
        containers::id(group.as_i64(), &groups.index(i), errors);
    }
    errors.one_of(
        &path.child("fsGroupChangePolicy"),
        context.text("fsGroupChangePolicy"),
        &["Always", "OnRootMismatch"],
    );
    errors.one_of(
        &path.child("supplementalGroupsPolicy"),
        context.text("supplementalGroupsPolicy"),
        &["Merge", "Strict"],
    );
    containers::profile(context.at("seccompProfile"), &path.child("seccompProfile"), errors);
    containers::profile(context.at("appArmorProfile"), &path.child("appArmorProfile"), errors);
    let sysctls = path.child("sysctls");
    let mut seen = HashSet::new();
    for (i, sysctl) in context.list("sysctls").iter().enumerate() {
        let name = sysctl.text("name");
        let path = sysctls.index(i);
        let label = |part: &str| {
            !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c))
        };
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !name.split(['.', '/']).all(label) || name.len() > 253 {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(&path.child("name"), name, detail);
        } else if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

fn host_aliases(aliases: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, alias) in aliases.iter().enumerate() {
        let path = path.index(i);
        let ip = alias.text("ip");
        if let Some(detail) = names::ip(ip) {
            errors.invalid(&path.child("ip"), ip, detail);
        }
        let hosts = path.child("hostnames");
        for (i, host) in alias.list("hostnames").iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_all(&hosts.index(i), host, names::dns_subdomain(host));
        }
    }
}

fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let config = spec.at("dnsConfig");
    let path = path.child("dnsConfig");
    let servers = config.list("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            errors.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            errors.required(
                &path.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
            return;
        }
    }
    if servers.len() > 3 {
        errors.invalid(&path.child("nameservers"), config.at("nameservers"), "must not have more than 3 nameservers");
    }
    let list = path.child("nameservers");
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        if let Some(detail) = names::ip(server) {
            errors.invalid(&list.index(i), server, detail);
        }
    }
    let searches = config.list("searches");
    if searches.len() > 32 {
        errors.invalid(&path.child("searches"), config.at("searches"), "must not have more than 32 search paths");
    }
    let list = path.child("searches");
    for (i, search) in searches.iter().filter_map(Value::as_str).enumerate() {
        let plain = search.strip_suffix('.').unwrap_or(search);
        if !plain.is_empty() {
            errors.invalid_all(&list.index(i), search, names::dns_subdomain_underscore(plain));
        }
    }
    let options = path.child("options");
    for (i, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.required(&options.index(i), "must not be empty");
        }
    }
}
