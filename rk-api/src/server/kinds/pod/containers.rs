//! The rules of containers: init, regular and ephemeral.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{env, probes, resources, volumes};
use crate::server::kinds::{
    field::{Errors, Path},
    names,
    value::{self, Peek},
};

/// What a container of each list may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Init,
    Regular,
    Ephemeral,
}

/// The rules of all containers of a pod's spec. `volumes` are the names of its volumes.
pub fn validate(spec: &Value, volumes: &HashMap<&str, &Value>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let regular = spec.list("containers");
    if regular.is_empty() {
        errors.required(&path.child("containers"), "");
    }
    for (list, role) in
        [("containers", Role::Regular), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        let list_path = path.child(list);
        for (i, container) in spec.list(list).iter().enumerate() {
            let path = list_path.index(i);
            let name = container.text("name");
            if !name.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            one(container, role, spec, volumes, &path, errors);
        }
    }
    host_ports(spec, path, errors);
    let targets = path.child("ephemeralContainers");
    for (i, container) in spec.list("ephemeralContainers").iter().enumerate() {
        let target = container.text("targetContainerName");
        let known = ["containers", "initContainers"].iter().flat_map(|list| spec.list(list));
        if !target.is_empty() && !known.into_iter().any(|other| other.text("name") == target) {
            errors.not_found(&targets.index(i).child("targetContainerName"), target);
        }
    }
}

fn one(
    container: &Value,
    role: Role,
    spec: &Value,
    pod_volumes: &HashMap<&str, &Value>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let name = container.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), name, names::dns_label(name));
    }
    let image = container.text("image");
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    } else if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
    errors.required_one_of(
        &path.child("terminationMessagePolicy"),
        container.text("terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
    );
    errors.required_one_of(
        &path.child("imagePullPolicy"),
        container.text("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    env::validate(container, path, errors);
    volumes::mounts(container, pod_volumes, path, errors);
    security(container.at("securityContext"), spec, &path.child("securityContext"), errors);
    let restart = container.text("restartPolicy");
    if role == Role::Ephemeral {
        ephemeral(container, path, errors);
        return;
    }
    ports(container.list("ports"), &path.child("ports"), errors);
    resources::validate(container.at("resources"), &path.child("resources"), errors);
    let sidecar = role == Role::Init && restart == "Always";
    if !restart.is_empty() && !["Always", "Never", "OnFailure"].contains(&restart) {
        errors.not_supported(&path.child("restartPolicy"), restart, &["Always", "OnFailure", "Never"]);
    }
    let grace = spec.int("terminationGracePeriodSeconds");
    if role == Role::Init && !sidecar {
        let detail = "may not be set for init containers without restartPolicy=Always";
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.has(field) {
                errors.forbidden(&path.child(field), detail);
            }
        }
        return;
    }
    probes::lifecycle(container.at("lifecycle"), grace, &path.child("lifecycle"), errors);
    probes::validate(container.at("livenessProbe"), probes::Kind::Liveness, &path.child("livenessProbe"), errors);
    probes::validate(container.at("readinessProbe"), probes::Kind::Readiness, &path.child("readinessProbe"), errors);
    probes::validate(container.at("startupProbe"), probes::Kind::Startup, &path.child("startupProbe"), errors);
}

/// Ephemeral containers have no life of their own that the pod's would follow.
fn ephemeral(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    for field in ["ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "restartPolicy"]
    {
        if !value::is_empty(container.at(field)) {
            errors.forbidden(&path.child(field), DETAIL);
        }
    }
    let list = path.child("volumeMounts");
    for (i, mount) in container.list("volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.text(field).is_empty() {
                errors.forbidden(&list.index(i).child(field), DETAIL);
            }
        }
    }
}

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

fn ports(ports: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            errors.invalid_all(&path.child("name"), name, wrong);
        }
        let number = port.int("containerPort").unwrap_or(0);
        let host = port.int("hostPort").unwrap_or(0);
        if number == 0 {
            errors.required(&path.child("containerPort"), "");
        } else if let Some(detail) = names::port_number(number) {
            errors.invalid(&path.child("containerPort"), &number, detail);
        }
        if host != 0
            && let Some(detail) = names::port_number(host)
        {
            errors.invalid(&path.child("hostPort"), &host, detail);
        }
        let host_ip = port.text("hostIP");
        if !host_ip.is_empty()
            && let Some(detail) = names::ip(host_ip)
        {
            errors.invalid(&path.child("hostIP"), host_ip, detail);
        }
        errors.required_one_of(&path.child("protocol"), port.text("protocol"), PROTOCOLS);
    }
}

/// No two containers of a pod take the same port of the host; on the host's network a port is the same inside and out.
fn host_ports(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let host_network = spec.flag("hostNetwork");
    let list_path = path.child("containers");
    for (i, container) in spec.list("containers").iter().enumerate() {
        let container_path = list_path.index(i);
        let ports_path = container_path.child("ports");
        for (j, port) in container.list("ports").iter().enumerate() {
            let Some(host) = port.int("hostPort").filter(|host| *host > 0) else { continue };
            let path = ports_path.index(j);
            let key = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
            if seen.contains(&key) {
                errors.duplicate(&path.child("hostPort"), &key);
            }
            seen.insert(key);
            if host_network && Some(host) != port.int("containerPort") {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.child("hostPort"), &host, detail);
            }
        }
    }
}

/// A user's or group's number.
pub fn id(value: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=i64::from(u32::MAX)).contains(value)) {
        errors.invalid(path, &value, "must be between 0 and 4294967295, inclusive");
    }
}

/// A seccomp or AppArmor profile.
pub fn profile(profile: &Value, path: &Path<'_>, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let kind = profile.text("type");
    errors.required_one_of(&path.child("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    let local = profile.text("localhostProfile");
    if kind == "Localhost" {
        if local.is_empty() {
            errors.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost");
        }
    } else if !local.is_empty() {
        errors.invalid(&path.child("localhostProfile"), local, "can only be set when seccomp type is Localhost");
    }
}

fn security(context: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if context.is_null() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        id(context.int(field), &path.child(field), errors);
    }
    errors.one_of(&path.child("procMount"), context.text("procMount"), &["Default", "Unmasked"]);
    if context.text("procMount") == "Unmasked" && spec.at("hostUsers") != &Value::Bool(false) {
        errors.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    profile(context.at("seccompProfile"), &path.child("seccompProfile"), errors);
    profile(context.at("appArmorProfile"), &path.child("appArmorProfile"), errors);
    if context.at("allowPrivilegeEscalation") == &Value::Bool(false) {
        if context.flag("privileged") {
            errors.invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let adds = context.list("capabilities.add");
        if adds.iter().any(|capability| matches!(capability.as_str(), Some("CAP_SYS_ADMIN"))) {
            errors.invalid(
                path,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}
