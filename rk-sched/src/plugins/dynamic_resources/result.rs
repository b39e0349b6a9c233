//! What is written to a claim of the devices that were found for it.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::{
    api::{
        core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm},
        resource::v1::{
            AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
        },
    },
    apimachinery::pkg::api::resource::Quantity as Text,
};

use super::{
    requests::{Choice, Wanted},
    search::Pick,
};
use crate::model::uid_of;

/// The allocation of each claim, in their order, on a node.
pub(super) fn allocations(wanted: &Wanted, picks: &[Pick], node: &str) -> Vec<AllocationResult> {
    (0..wanted.claims.len()).map(|claim| of_claim(wanted, claim, picks, node)).collect()
}

fn of_claim(wanted: &Wanted, claim: usize, picks: &[Pick], node: &str) -> AllocationResult {
    let picks: Vec<&Pick> = picks.iter().filter(|pick| wanted.requests[pick.request].claim == claim).collect();
    let uid = uid_of(&wanted.claims[claim]);
    let results: Vec<_> = picks.iter().enumerate().map(|(nth, pick)| of_device(wanted, pick, uid, nth)).collect();
    let config = configuration(wanted, claim, &picks);
    let some = |list: Vec<DeviceAllocationConfiguration>| (!list.is_empty()).then_some(list);
    AllocationResult {
        devices: Some(DeviceAllocationResult { config: some(config), results: Some(results) }),
        node_selector: node_selector(&picks, node),
        ..AllocationResult::default()
    }
}

fn chosen<'w>(wanted: &'w Wanted, pick: &Pick) -> &'w Choice {
    &wanted.requests[pick.request].choices[pick.choice]
}

fn of_device(wanted: &Wanted, pick: &Pick, claim: &str, nth: usize) -> DeviceRequestAllocationResult {
    let choice = chosen(wanted, pick);
    let published = &pick.slice.devices[pick.device].published;
    let share = pick.consumed.is_some().then(|| share_id(claim, nth));
    let consumed = pick
        .consumed
        .as_ref()
        .map(|amounts| amounts.iter().map(|(name, amount)| (name.clone(), Text(amount.to_string()))).collect());
    DeviceRequestAllocationResult {
        request: choice.name.clone(),
        driver: pick.slice.pool.driver.to_string(),
        pool: pick.slice.pool.name.to_string(),
        device: published.name.clone(),
        binding_conditions: published.binding_conditions.clone(),
        binding_failure_conditions: published.binding_failure_conditions.clone(),
        admin_access: choice.admin.then_some(true),
        tolerations: (!choice.tolerations.is_empty()).then(|| choice.tolerations.clone()),
        share_id: share,
        consumed_capacity: consumed,
    }
}

/// The identity of a share: a UUID (of version 8) that the claim's identity and the share's number in it decide.
fn share_id(claim: &str, nth: usize) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, claim, nth).hash(&mut hasher);
        hasher.finish()
    };
    let (high, low) = (half(0), half(1));
    format!(
        "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// The configuration of the classes, once for each of them, then the claim's own for requests that were made.
fn configuration(wanted: &Wanted, claim: usize, picks: &[&Pick]) -> Vec<DeviceAllocationConfiguration> {
    let mut made: Vec<&Choice> = Vec::new();
    for pick in picks {
        let choice = chosen(wanted, pick);
        if made.iter().all(|known| known.name != choice.name) {
            made.push(choice);
        }
    }
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut classes: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
    for choice in &made {
        let name = choice.class.metadata.name.as_deref().unwrap_or_default();
        if let Some((_, range)) = classes.iter().find(|(known, _)| *known == name) {
            for config in &mut all[range.clone()] {
                config.requests.get_or_insert_default().push(choice.name.clone());
            }
            continue;
        }
        let first = all.len();
        all.extend(choice.class.spec.config.iter().flatten().map(|config| DeviceAllocationConfiguration {
            source: "FromClass".to_owned(),
            requests: Some(vec![choice.name.clone()]),
            opaque: config.opaque.clone(),
        }));
        classes.push((name, first..all.len()));
    }
    let spec = wanted.claims[claim].spec.devices.as_ref();
    for config in spec.into_iter().flat_map(|spec| spec.config.iter().flatten()) {
        let requests = config.requests.as_deref().unwrap_or_default();
        let concerns = |choice: &&Choice| {
            let main = choice.name.split_once('/').map_or(choice.name.as_str(), |(main, _)| main);
            requests.iter().any(|name| *name == choice.name || name == main)
        };
        if requests.is_empty() || made.iter().copied().any(|choice| concerns(&choice)) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    all
}

/// The nodes that have access to all of the devices; `None` for every node.
fn node_selector(picks: &[&Pick], node: &str) -> Option<NodeSelector> {
    let mut all = NodeSelectorTerm::default();
    for pick in picks {
        let device = &pick.slice.devices[pick.device];
        if pick.slice.only_node(device).is_some() || device.binds_to_node() {
            let field = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
            return Some(NodeSelector { node_selector_terms: vec![term] });
        }
        // A selector of devices has one term, so that all of them together are one as well.
        let terms = pick.slice.node_selector(device).into_iter().flat_map(|selector| &selector.node_selector_terms);
        for term in terms {
            add(&mut all.match_expressions, term.match_expressions.as_deref());
            add(&mut all.match_fields, term.match_fields.as_deref());
        }
    }
    let limits = all.match_expressions.is_some() || all.match_fields.is_some();
    limits.then(|| NodeSelector { node_selector_terms: vec![all] })
}

fn add(to: &mut Option<Vec<NodeSelectorRequirement>>, more: Option<&[NodeSelectorRequirement]>) {
    for requirement in more.unwrap_or_default() {
        let known = to.get_or_insert_default();
        if !known.contains(requirement) {
            known.push(requirement.clone());
        }
    }
}
