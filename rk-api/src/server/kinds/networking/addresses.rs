//! The addresses of Services as objects: which are given to whom, and the ranges they come from.

use std::net::IpAddr;

use serde_json::Value;

use super::super::{
    field::{Errors, Path},
    names,
    rules::Rules,
    value::Peek,
};

/// The rules of IPAddresses.
pub const IP_ADDRESS: Rules = Rules {
    validate: validate_address,
    validate_change: |new, old, _, errors| {
        errors.immutable(&Path::Root.child("spec.parentRef"), new.at("spec.parentRef"), old.at("spec.parentRef"));
    },
    ..Rules::NONE
};

/// The rules of ServiceCIDRs.
pub const SERVICE_CIDR: Rules = Rules {
    validate_new: validate_ranges,
    validate_change: |new, old, subresource, errors| {
        if subresource.is_empty() {
            validate_change(new, old, errors);
        }
    },
    has_status: true,
    ..Rules::NONE
};

fn validate_address(address: &Value, errors: &mut Errors) {
    let (parent, path) = (address.at("spec.parentRef"), Path::Root.child("spec.parentRef"));
    if parent.is_null() {
        errors.required(&path, "");
        return;
    }
    let group = parent.text("group");
    if !group.is_empty() {
        errors.invalid_all(&path.child("group"), group, names::dns_subdomain(group));
    }
    for (field, needed) in [("resource", true), ("name", true), ("namespace", false)] {
        match parent.text(field) {
            "" if needed => errors.required(&path.child(field), ""),
            "" => {}
            text => errors.invalid_all(&path.child(field), text, names::path_segment(text)),
        }
    }
}

/// A ServiceCIDR may become one of both families; else its ranges stay.
fn validate_change(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::Root.child("spec.cidrs");
    let (after, before) = (new.list("spec.cidrs"), old.list("spec.cidrs"));
    let widened = before.len() == 1 && after.len() == 2;
    if before.len() != after.len() && !widened {
        errors.immutable(&path, new.at("spec.cidrs"), old.at("spec.cidrs"));
        return;
    }
    for (i, (after, before)) in after.iter().zip(before).enumerate() {
        errors.immutable(&path.index(i), after, before);
    }
    if widened {
        validate_ranges(new, errors);
    }
}

fn validate_ranges(range: &Value, errors: &mut Errors) {
    let (cidrs, path) = (range.list("spec.cidrs"), Path::Root.child("spec.cidrs"));
    let text = |cidr: &Value| cidr.as_str().unwrap_or_default().to_owned();
    let is_v6 = |cidr: &Value| cidr.as_str().is_some_and(|cidr| cidr.contains(':'));
    match cidrs {
        [] => errors.required(&path, "at least one CIDR required"),
        [one, two] if is_v6(one) == is_v6(two) || [one, two].iter().any(|cidr| names::cidr(&text(cidr)).is_some()) => {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.invalid(&path, range.at("spec"), detail);
        }
        [_, _, _, ..] => errors.invalid(&path, range.at("spec"), "may only hold up to 2 values"),
        _ => {
            for (i, cidr) in cidrs.iter().map(text).enumerate() {
                if let Some(wrong) = names::cidr(&cidr).or_else(|| uncanonical(&cidr)) {
                    errors.invalid(&path.index(i), &cidr, wrong);
                }
            }
        }
    }
}

/// What is wrong with a range that says more than it needs to.
fn uncanonical(cidr: &str) -> Option<&'static str> {
    let (address, bits) = names::network(cidr)?;
    let beyond = match address {
        IpAddr::V4(ip) => ip.to_bits().checked_shl(bits.into()).unwrap_or(0) != 0,
        IpAddr::V6(ip) => ip.to_bits().checked_shl(bits.into()).unwrap_or(0) != 0,
    };
    match address {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("must not have an IPv4-mapped IPv6 address"),
        _ => beyond.then_some("must not have bits set beyond the prefix length"),
    }
}
