//! The rules of cluster IPs and IP families: how they belong together, and what may become of them.

use std::{cmp::Ordering, net::IpAddr};

use serde_json::Value;

use super::{
    families::texts,
    range::{FAMILIES, family},
};
use crate::server::kinds::{
    field::{Errors, Path},
    names,
    value::Peek,
};

const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

/// The rules of the spec of a Service that has cluster IPs (kube-apiserver's `ValidateServiceClusterIPsRelatedFields`).
pub fn related(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (first, ips, families) = (spec.text("clusterIP"), texts(spec, "clusterIPs"), texts(spec, "ipFamilies"));
    let (list, all) = (path.child("clusterIPs"), spec.at("clusterIPs"));
    match (first.is_empty(), ips.first()) {
        (false, None) => errors.required(&list, ""),
        (false, Some(ip)) if *ip != first => errors.invalid(&list, all, "first value must match `clusterIP`"),
        (true, Some(_)) => errors.invalid(&list, all, "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let families_path = path.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        if !FAMILIES.contains(family) {
            errors.not_supported(&families_path.index(i), *family, FAMILIES);
        }
        if families[..i].contains(family) {
            errors.duplicate(&families_path.index(i), *family);
        }
    }
    errors.one_of(&path.child("ipFamilyPolicy"), spec.text("ipFamilyPolicy"), POLICIES);
    let before = errors.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if ips.len() > 1 {
                errors.invalid(&list, all, "'None' must be the first and only value");
            }
        } else if let Some(detail) = names::ip(ip) {
            errors.invalid(&list.index(i), *ip, detail);
        }
    }
    let well_formed = errors.len() == before;
    if ips.len() > 2 {
        errors.invalid(&list, all, "may only hold up to 2 values");
    }
    if !well_formed || is_headless(spec) {
        return;
    }
    let of: Vec<_> = ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).map(family).collect();
    if of.len() > 1 && FAMILIES.iter().any(|family| !of.contains(family)) {
        errors.invalid(&list, all, "may specify no more than one IP for each IP family");
    }
    for (i, (ip, (of, family))) in ips.iter().zip(of.iter().zip(&families)).enumerate() {
        if FAMILIES.contains(family) && of != family {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&list.index(i), *ip, &detail);
        }
    }
}

/// Whether a spec asks for no cluster IP.
fn is_headless(spec: &Value) -> bool {
    matches!(spec.list("clusterIPs"), [one] if one == "None")
}

/// The rules of a change, of a Service that has had cluster IPs and has some: the primary ones stay, the others come and go with
/// the policy.
pub fn change(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let headless = (is_headless(old), is_headless(new));
    if headless != (true, true) {
        change_of("clusterIPs", "clusterIP", (new, old), path, errors);
    }
    if headless == (false, false) {
        change_of("ipFamilies", "ipFamily", (new, old), path, errors);
    }
}

fn change_of(field: &str, one: &str, (new, old): (&Value, &Value), path: &Path<'_>, errors: &mut Errors) {
    let (before, after) = (old.list(field), new.list(field));
    let list = path.child(field);
    let changed = "may not change once set";
    match before.len().cmp(&after.len()) {
        Ordering::Equal => {
            for (i, _) in before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after) {
                // So it is in Kubernetes.
                let i = if field == "clusterIPs" { i } else { 0 };
                errors.invalid(&list.index(i), new.at(field), changed);
            }
            return;
        }
        Ordering::Greater if after.is_empty() => {
            errors.invalid(&list.index(0), new.at(field), &format!("primary {one} can not be unset"));
        }
        Ordering::Greater if after.len() == 1 && new.text("ipFamilyPolicy") != "SingleStack" => {
            let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
            errors.invalid(&path.child("ipFamilyPolicy"), new.text("ipFamilyPolicy"), &detail);
        }
        _ => {}
    }
    if let (Some(before), Some(after)) = (before.first(), after.first())
        && before != after
    {
        errors.invalid(&list.index(0), new.at("clusterIPs"), changed);
    }
}
