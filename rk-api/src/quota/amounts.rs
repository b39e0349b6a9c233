//! Amounts of resources, and what a pod asks for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Quantity,
    tree::{list, text},
};

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts in a resource list; what is no quantity is left for validation to name.
pub fn amounts(value: &Value) -> Amounts {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect()
}

/// A quantity written as a string or, as JSON allows, a number.
fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// What the scheduler takes a pod to ask for: the sum of its containers and sidecars, or what starting takes if that is
/// more, and its overhead; the pod's own resources count for what they name (KEP-753, KEP-2837).
pub fn pod_amounts(spec: &Value, field: &str) -> Amounts {
    let mut running = Amounts::new();
    for container in list(&spec["containers"]) {
        add(&mut running, &amounts(&container["resources"][field]));
    }
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for container in list(&spec["initContainers"]) {
        let own = amounts(&container["resources"][field]);
        if text(&container["restartPolicy"]) == "Always" {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            most(&mut starting, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, &own);
            most(&mut starting, &with_sidecars);
        }
    }
    most(&mut running, &starting);
    running.extend(amounts(&spec["resources"][field]));
    let overhead = amounts(&spec["overhead"]);
    for (name, amount) in &overhead {
        // A limit that is not there stays without bound.
        if field == "requests" || running.contains_key(name) {
            *running.entry(name.clone()).or_default() += *amount;
        }
    }
    running
}

fn add(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        match sum.get_mut(name) {
            Some(known) => *known += *amount,
            None => _ = sum.insert(name.clone(), *amount),
        }
    }
}

fn most(all: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let known = all.entry(name.clone()).or_insert(*amount);
        *known = (*known).max(*amount);
    }
}
