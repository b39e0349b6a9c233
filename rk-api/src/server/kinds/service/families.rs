//! Which IP families a Service has: what follows from its policy, its cluster IPs and the networks of the cluster (KEP-563).

use serde_json::{Value, json};

use super::{
    defaults::has_cluster_ip,
    family_rules,
    range::{ClusterIpRange, family, other},
};
use crate::server::{
    FieldErrors,
    kinds::{
        field::{Errors, Path},
        value::{Peek, at_mut, is_empty, set},
    },
};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Fills in the policy and the families of a Service, as kube-apiserver does before it gives out addresses, and takes away what a change to
/// one family leaves of `clusterIPs`. Done once more it changes nothing; where rules are [broken] it changes nothing either.
pub fn resolve(new: &mut Value, old: Option<&Value>, range: &ClusterIpRange) {
    let resolved = resolved(new.at("spec"), old.map(|old| old.at("spec")), range);
    let (Ok(Some(Resolved { policy, families, ips })), Some(spec)) = (resolved, at_mut(new, "spec")) else { return };
    set(spec, "ipFamilyPolicy", policy);
    set(spec, "ipFamilies", families);
    if let Some(Value::Array(all)) = at_mut(spec, "clusterIPs") {
        all.truncate(ips);
    }
}

/// The rules of policy, families and cluster IPs that a Service breaks. If there are any, nothing else is looked at.
pub fn broken(new: &Value, old: Option<&Value>, range: &ClusterIpRange) -> FieldErrors {
    resolved(new.at("spec"), old.map(|old| old.at("spec")), range).err().unwrap_or_default()
}

/// What a Service has.
struct Resolved {
    policy: String,
    families: Vec<String>,
    /// How many of its cluster IPs stay.
    ips: usize,
}

/// `None` where all stays as it is.
fn resolved(spec: &Value, old: Option<&Value>, range: &ClusterIpRange) -> Result<Option<Resolved>, FieldErrors> {
    if !has_cluster_ip(spec.text("type")) || old.is_some_and(|old| prefers_what_it_has(spec, old)) {
        return Ok(None);
    }
    let (mut errors, path) = (Errors::default(), Path::Root.child("spec"));
    family_rules::related(spec, &path, &mut errors);
    let check = |errors: Errors| if errors.is_empty() { Ok(()) } else { Err(errors.into_inner()) };
    check(std::mem::take(&mut errors))?;

    let policy = policy(spec, old);
    let policy_path = path.child("ipFamilyPolicy");
    let (mut ips, mut families) = (texts(spec, "clusterIPs"), texts(spec, "ipFamilies"));
    if let Some(old) = old {
        for (held, field, what) in [(&mut ips, "clusterIPs", "cluster IP"), (&mut families, "ipFamilies", "IP family")]
        {
            if policy != SINGLE && (1..old.list(field).len()).contains(&held.len()) {
                errors.invalid(&policy_path, policy, &format!("must be 'SingleStack' to release the secondary {what}"));
            } else if policy == SINGLE && spec.list(field) == old.list(field) {
                // The policy says it clearly enough.
                held.truncate(1);
            }
        }
    }
    for (held, what) in [(&ips, "cluster IPs"), (&families, "IP families")] {
        if policy == SINGLE && held.len() == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.invalid(&policy_path, policy, &detail);
        }
    }
    let has = |family: &str| range.families().any(|known| known == family);
    let headless = spec.text("clusterIP") == "None";
    for (i, ip) in ips.iter().enumerate().skip(families.len()).filter(|_| !headless) {
        let family = ip.parse().map_or("IPv4", family);
        if has(family) {
            families.push(family);
        } else {
            let detail = format!("{family} is not configured on this cluster");
            errors.invalid(&path.child("clusterIPs").index(i), &json!(ips), &detail);
        }
    }
    check(std::mem::take(&mut errors))?;

    // Whoever keeps the endpoints of such a Service may have addresses that the cluster has not.
    let is_free = headless && is_empty(spec.at("selector"));
    if !is_free {
        if policy == REQUIRE && range.families().count() < 2 {
            errors.invalid(&policy_path, policy, "this cluster is not configured for dual-stack services");
        }
        for (i, family) in families.iter().enumerate().filter(|(_, family)| !has(family)) {
            errors.invalid(&path.child("ipFamilies").index(i), *family, "not configured on this cluster");
        }
        check(errors)?;
    }
    if families.is_empty() {
        families.extend(range.families().next());
    }
    if let [one] = families[..]
        && policy != SINGLE
        && (is_free || has(other(one)))
    {
        families.push(other(one));
    }
    let families = families.into_iter().map(str::to_owned).collect();
    Ok(Some(Resolved { policy: policy.to_owned(), families, ips: ips.len() }))
}

/// The policy of a Service: where it says nothing, what it was.
fn policy<'a>(spec: &'a Value, old: Option<&'a Value>) -> &'a str {
    let before = old.map_or("", |old| old.text("ipFamilyPolicy"));
    match spec.text("ipFamilyPolicy") {
        "" if !before.is_empty() => before,
        "" if spec.text("clusterIP") == "None" && is_empty(spec.at("selector")) => REQUIRE,
        "" => SINGLE,
        policy => policy,
    }
}

/// Whether a Service takes what it can get, and asks for nothing else than before: it keeps that when the networks of the cluster change.
fn prefers_what_it_has(spec: &Value, old: &Value) -> bool {
    spec.text("ipFamilyPolicy") == PREFER
        && matches!(old.text("ipFamilyPolicy"), PREFER | "")
        && spec.text("type") == old.text("type")
        && ["clusterIPs", "ipFamilies"].iter().all(|field| spec.list(field) == old.list(field))
}

/// The texts of a list.
pub(super) fn texts<'a>(spec: &'a Value, field: &str) -> Vec<&'a str> {
    spec.list(field).iter().filter_map(Value::as_str).collect()
}
