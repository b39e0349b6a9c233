//! Endpoints and EndpointSlices: the addresses behind a Service.
//!
//! Kubernetes refuses addresses of the loopback range here. These rules do not: a cluster whose pods are all on one machine may have its
//! pods there.

use serde_json::Value;

use super::{
    cells::{AGE, NAME, column, or_none},
    field::{Errors, Path},
    names,
    rules::Rules,
    value::{Peek, each_mut, fill},
};
use crate::server::{Column, addresses::is_link_local};

/// The rules of Endpoints.
pub const ENDPOINTS: Rules = Rules {
    default: |endpoints| {
        each_mut(endpoints, "subsets", |subset| each_mut(subset, "ports", |port| fill(port, "protocol", "TCP")))
    },
    validate: validate_endpoints,
    ..Rules::NONE
};

/// The rules of EndpointSlices.
pub const ENDPOINT_SLICE: Rules = Rules {
    default: |slice| {
        each_mut(slice, "ports", |port| {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        });
    },
    validate: validate_slice,
    validate_change: |new, old, _, errors| {
        errors.immutable(&Path::Root.child("addressType"), new.at("addressType"), old.at("addressType"));
    },
    ..Rules::NONE
};

/// The columns of Endpoints.
pub fn endpoints_columns() -> Vec<Column> {
    vec![NAME, column("Endpoints", "string", |endpoints| or_none(&addresses(endpoints))), AGE]
}

/// The columns of EndpointSlices.
pub fn endpoint_slice_columns() -> Vec<Column> {
    vec![
        NAME,
        column("AddressType", "string", |slice| slice.text("addressType").into()),
        column("Ports", "string", |slice| slice_ports(slice).into()),
        column("Endpoints", "string", |slice| slice_endpoints(slice).into()),
        AGE,
    ]
}

/// What is shown of a list before it is cut.
const SHOWN: usize = 3;

fn shortened(all: &[String]) -> String {
    let head = all[..all.len().min(SHOWN)].join(",");
    if all.len() > SHOWN { format!("{head} + {} more...", all.len() - SHOWN) } else { head }
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in endpoints.list("subsets") {
        let ips = || subset.list("addresses").iter().map(|address| address.text("ip"));
        if subset.list("ports").is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in subset.list("ports") {
            let number = port.int("port").unwrap_or(0);
            all.extend(
                ips().map(|ip| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }),
            );
        }
    }
    shortened(&all)
}

fn slice_ports(slice: &Value) -> String {
    let one = |port: &Value| match port.int("port") {
        Some(number) => number.to_string(),
        None => port.text("name").to_owned(),
    };
    let all: Vec<String> = slice.list("ports").iter().map(one).collect();
    if all.is_empty() { "<unset>".to_owned() } else { shortened(&all) }
}

fn slice_endpoints(slice: &Value) -> String {
    let endpoints = slice.list("endpoints").iter().flat_map(|endpoint| endpoint.list("addresses"));
    let all: Vec<String> = endpoints.filter_map(Value::as_str).map(str::to_owned).collect();
    if all.is_empty() { "<unset>".to_owned() } else { shortened(&all) }
}

fn validate_endpoints(endpoints: &Value, errors: &mut Errors) {
    let list = Path::Root.child("subsets");
    for (i, subset) in endpoints.list("subsets").iter().enumerate() {
        let path = list.index(i);
        let all = [("addresses", subset.list("addresses")), ("notReadyAddresses", subset.list("notReadyAddresses"))];
        if all.iter().all(|(_, addresses)| addresses.is_empty()) {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (field, addresses) in all {
            let list = path.child(field);
            for (i, address) in addresses.iter().enumerate() {
                let path = list.index(i);
                ip(address.text("ip"), &path.child("ip"), errors);
                let host = address.text("hostname");
                if !host.is_empty() {
                    errors.invalid_all(&path.child("hostname"), host, names::dns_label(host));
                }
                let node = address.text("nodeName");
                if !node.is_empty() {
                    errors.invalid_all(&path.child("nodeName"), node, names::dns_subdomain(node));
                }
            }
        }
        let ports = subset.list("ports");
        let list = path.child("ports");
        for (i, port) in ports.iter().enumerate() {
            let path = list.index(i);
            let name = port.text("name");
            if name.is_empty() && ports.len() > 1 {
                errors.required(&path.child("name"), "");
            } else if !name.is_empty() {
                errors.invalid_all(&path.child("name"), name, names::dns_label(name));
            }
            let number = port.int("port").unwrap_or(0);
            if let Some(detail) = names::port_number(number) {
                errors.invalid(&path.child("port"), &number, detail);
            }
            errors.required_one_of(&path.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// An address that an endpoint may have.
fn ip(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(detail) = names::ip(text) {
        errors.invalid(path, text, detail);
        return;
    }
    let Ok(ip) = text.parse::<std::net::IpAddr>() else { return };
    if ip.is_unspecified() {
        errors.invalid(path, text, &format!("may not be unspecified ({text})"));
    }
    if is_link_local(ip) {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if ip.is_multicast() {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn validate_slice(slice: &Value, errors: &mut Errors) {
    let kind = slice.text("addressType");
    errors.required_one_of(&Path::Root.child("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    let (endpoints, list) = (slice.list("endpoints"), Path::Root.child("endpoints"));
    if endpoints.len() > 1000 {
        errors.too_many(&list, endpoints.len(), 1000);
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        slice_endpoint(endpoint, kind, &list.index(i), errors);
    }
    let (ports, list) = (slice.list("ports"), Path::Root.child("ports"));
    if ports.len() > 20_000 {
        errors.too_many(&list, ports.len(), 20_000);
        return;
    }
    for (i, port) in ports.iter().enumerate() {
        let path = list.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            errors.invalid_all(&path.child("name"), name, names::dns_label(name));
        }
        if ports[..i].iter().any(|other| other.text("name") == name) {
            errors.duplicate(&path.child("name"), name);
        }
        errors.required_one_of(&path.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
        if let Some(detail) = port.int("port").and_then(names::port_number) {
            errors.invalid(&path.child("port"), port.at("port"), detail);
        }
    }
}

fn slice_endpoint(endpoint: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let (addresses, list) = (endpoint.list("addresses"), path.child("addresses"));
    if addresses.is_empty() {
        errors.required(&list, "must contain at least 1 address");
    } else if addresses.len() > 100 {
        errors.too_many(&list, addresses.len(), 100);
    }
    for (i, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        let path = list.index(i);
        match kind {
            "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                errors.invalid(&path, address, "must be an IPv4 address");
            }
            "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                errors.invalid(&path, address, "must be an IPv6 address");
            }
            "IPv4" | "IPv6" => ip(address, &path, errors),
            "FQDN" => errors.invalid_all(&path, address, names::dns_subdomain(address)),
            _ => {}
        }
    }
    for (field, rule) in [("nodeName", names::dns_subdomain as fn(&str) -> Vec<String>), ("hostname", names::dns_label)]
    {
        let value = endpoint.text(field);
        if !value.is_empty() {
            errors.invalid_all(&path.child(field), value, rule(value));
        }
    }
}
