//! Ingresses.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::server::{
    Column,
    kinds::{
        cells::{AGE, NAME, column, or_none},
        field::{Errors, Path},
        names,
        rules::Rules,
        value::{Peek, set},
    },
};

/// The rules of Ingresses.
pub const INGRESS: Rules = Rules {
    create: |ingress, _| set(ingress, "status", json!({"loadBalancer": {}})),
    validate,
    warn: |ingress, _, warnings| {
        let annotated = ingress.at("metadata.annotations").get("kubernetes.io/ingress.class").is_some();
        if annotated && !ingress.has("spec.ingressClassName") {
            let text = "is deprecated, please use 'spec.ingressClassName' instead";
            warnings.say(format!("annotation \"kubernetes.io/ingress.class\" {text}"));
        }
    },
    has_status: true,
    ..Rules::NONE
};

/// The columns of Ingresses.
pub fn ingress_columns() -> Vec<Column> {
    vec![
        NAME,
        column("Class", "string", |ingress| or_none(class(ingress))),
        column("Hosts", "string", |ingress| hosts(ingress.list("spec.rules")).into()),
        column("Address", "string", |ingress| addresses(ingress).into()),
        column("Ports", "string", |ingress| if ingress.list("spec.tls").is_empty() { "80" } else { "80, 443" }.into()),
        AGE,
    ]
}

fn class(ingress: &Value) -> &str {
    let annotation = ingress.at("metadata.annotations").get("kubernetes.io/ingress.class").and_then(Value::as_str);
    match ingress.text("spec.ingressClassName") {
        "" => annotation.unwrap_or_default(),
        class => class,
    }
}

fn hosts(rules: &[Value]) -> String {
    let all: Vec<_> = rules.iter().map(|rule| rule.text("host")).filter(|host| !host.is_empty()).collect();
    match all.len() {
        0 => "*".to_owned(),
        1..=3 => all.join(","),
        _ => format!("{} + {} more...", all[..3].join(","), rules.len() - 3),
    }
}

fn addresses(ingress: &Value) -> String {
    let list = ingress.list("status.loadBalancer.ingress").iter().map(|given| match given.text("ip") {
        "" => given.text("hostname"),
        ip => ip,
    });
    list.filter(|address| !address.is_empty()).collect::<Vec<_>>().join(",")
}

fn validate(ingress: &Value, errors: &mut Errors) {
    let (spec, path) = (ingress.at("spec"), Path::Root.child("spec"));
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        errors.invalid(&path, spec.at("rules"), "either `defaultBackend` or `rules` must be specified");
    }
    if spec.has("defaultBackend") {
        backend(spec.at("defaultBackend"), &path.child("defaultBackend"), errors);
    }
    let rules = path.child("rules");
    for (i, rule) in spec.list("rules").iter().enumerate() {
        let path = rules.index(i);
        let host_text = rule.text("host");
        if !host_text.is_empty() {
            host(host_text, &path.child("host"), errors);
        }
        if rule.has("http") {
            let paths = path.child("http.paths");
            if rule.list("http.paths").is_empty() {
                errors.required(&paths, "");
            }
            for (i, one) in rule.list("http.paths").iter().enumerate() {
                http_path(one, &paths.index(i), errors);
            }
        }
    }
    let tls = path.child("tls");
    for (i, entry) in spec.list("tls").iter().enumerate() {
        let path = tls.index(i);
        let hosts = path.child("hosts");
        for (i, name) in entry.list("hosts").iter().filter_map(Value::as_str).enumerate() {
            let wrong = if name.contains('*') { names::wildcard_subdomain(name) } else { names::dns_subdomain(name) };
            errors.invalid_all(&hosts.index(i), name, wrong);
        }
        let secret = entry.text("secretName");
        if !secret.is_empty() {
            errors.invalid_all(&path.child("secretName"), secret, names::dns_subdomain(secret));
        }
    }
    let class = spec.text("ingressClassName");
    if !class.is_empty() {
        errors.invalid_all(&path.child("ingressClassName"), class, names::dns_subdomain(class));
    }
}

fn host(host: &str, path: &Path<'_>, errors: &mut Errors) {
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
        return;
    }
    let wrong = if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns_subdomain(host) };
    errors.invalid_all(path, host, wrong);
}

fn http_path(one: &Value, path: &Path<'_>, errors: &mut Errors) {
    let text = one.text("path");
    let path_path = path.child("path");
    match one.text("pathType") {
        "" => errors.required(&path.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&path_path, text, "must be an absolute path");
            }
            if !text.is_empty() {
                for part in ["//", "/./", "/../", "%2f", "%2F"] {
                    if text.contains(part) {
                        errors.invalid(&path_path, text, &format!("must not contain '{part}'"));
                    }
                }
                for end in ["/..", "/."] {
                    if text.ends_with(end) {
                        errors.invalid(&path_path, text, &format!("cannot end with '{end}'"));
                    }
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&path_path, text, "must be an absolute path");
            }
        }
        other => {
            errors.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
    backend(one.at("backend"), &path.child("backend"), errors);
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.at("service"), backend.at("resource"));
    match (resource.is_null(), service.is_null()) {
        (false, false) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (false, true) => {
            for field in ["kind", "name"] {
                if resource.text(field).is_empty() {
                    errors.required(&path.child("resource").child(field), "");
                }
            }
        }
        (true, true) => errors.invalid(path, "", "resource or service backend is required"),
        (true, false) => {
            let service_path = path.child("service");
            let name = service.text("name");
            if name.is_empty() {
                errors.required(&service_path.child("name"), "");
            } else {
                errors.invalid_all(&service_path.child("name"), name, names::dns1035_label(name));
            }
            let (port, port_path) = (service.at("port"), service_path.child("port"));
            let (port_name, number) = (port.text("name"), port.int("number").unwrap_or(0));
            if !port_name.is_empty() && number != 0 {
                errors.invalid(path, "", "cannot set both port name & port number");
            } else if !port_name.is_empty() {
                errors.invalid_all(&port_path.child("name"), port_name, names::port_name(port_name));
            } else if number == 0 {
                errors.required(path, "port name or number is required");
            } else if let Some(detail) = names::port_number(number) {
                errors.invalid(&port_path.child("number"), &number, detail);
            }
        }
    }
}
