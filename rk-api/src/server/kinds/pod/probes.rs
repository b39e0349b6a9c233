//! The rules of probes and of lifecycle handlers.

use serde_json::Value;

use crate::server::kinds::{
    field::{Errors, Path},
    names,
    value::Peek,
};

/// Which probe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its failure restarts the container.
    Liveness,
    /// Its failure takes the pod off its services.
    Readiness,
    /// The others wait for its success.
    Startup,
}

/// The rules of a probe; nothing is said of an absent one.
pub fn validate(probe: &Value, kind: Kind, path: &Path<'_>, errors: &mut Errors) {
    if probe.is_null() {
        return;
    }
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.non_negative(&path.child(field), probe.int(field));
    }
    let grace = probe.int("terminationGracePeriodSeconds");
    if kind == Kind::Readiness {
        if let Some(grace) = grace {
            errors.invalid(&path.child("terminationGracePeriodSeconds"), &grace, "must not be set for readinessProbes");
        }
    } else {
        errors.positive(&path.child("terminationGracePeriodSeconds"), grace);
        if let Some(threshold) = probe.int("successThreshold").filter(|threshold| *threshold != 1) {
            errors.invalid(&path.child("successThreshold"), &threshold, "must be 1");
        }
    }
}

/// The rules of `postStart` and `preStop`. `grace` is the pod's grace period in seconds.
pub fn lifecycle(lifecycle: &Value, grace: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
    for name in ["postStart", "preStop"] {
        let action = lifecycle.at(name);
        if action.is_null() {
            continue;
        }
        let path = path.child(name);
        handler(action, &["exec", "httpGet", "tcpSocket", "sleep"], &path, errors);
        if let Some(seconds) = action.int("sleep.seconds") {
            let most = grace.unwrap_or(30);
            if seconds < 0 || seconds > most {
                let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({most})");
                errors.invalid(&path.child("sleep"), &seconds, &detail);
            }
        }
    }
}

fn handler(handler: &Value, kinds: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    for kind in kinds.iter().filter(|kind| handler.has(kind)) {
        count += 1;
        let path = path.child(kind);
        if count > 1 {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        let action = handler.at(kind);
        match *kind {
            "exec" if action.list("command").is_empty() => errors.required(&path.child("command"), ""),
            "httpGet" => http_get(action, &path, errors),
            "tcpSocket" => port(action.at("port"), &path.child("port"), errors),
            "grpc" => number(action.int("port").unwrap_or(0), &path.child("port"), errors),
            _ => {}
        }
    }
    if count == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(action: &Value, path: &Path<'_>, errors: &mut Errors) {
    if action.text("path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    port(action.at("port"), &path.child("port"), errors);
    let scheme = action.text("scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in action.list("httpHeaders") {
        let name = header.text("name");
        errors.invalid_all(&path.child("httpHeaders"), name, names::header_name(name));
    }
}

/// A port by number or name.
pub fn port(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(name) => errors.invalid_all(path, name, names::port_name(name)),
        other => number(other.as_i64().unwrap_or(0), path, errors),
    }
}

fn number(value: i64, path: &Path<'_>, errors: &mut Errors) {
    if let Some(detail) = names::port_number(value) {
        errors.invalid(path, &value, detail);
    }
}
