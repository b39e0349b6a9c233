//! Searches on devices made up for the purpose.

mod brute_force;
mod table;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    candidates::Supply,
    requests::{Selectors, Wanted},
    result,
    search::{Found, Limits, search},
};
use crate::model::Devices;

pub(super) const DRIVER: &str = "d.example.com";

fn object<K: serde::de::DeserializeOwned>(json: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(json).unwrap())
}

/// Devices, classes and claims.
pub(super) struct Lab {
    pub(super) devices: Devices,
    slices: usize,
    /// When searches have to end.
    pub(super) until: Option<Instant>,
}

impl Lab {
    /// With the classes `any`, and `gpu` for devices whose `type` is `gpu`.
    pub(super) fn new() -> Self {
        let mut lab = Self { devices: Devices::default(), slices: 0, until: None };
        lab.class("any", json!({}));
        let expression = format!("device.attributes['{DRIVER}'].?type.orValue('') == 'gpu'");
        lab.class("gpu", json!({"selectors": [{"cel": {"expression": expression}}]}));
        lab
    }

    pub(super) fn class(&mut self, name: &str, spec: Value) {
        self.devices.set_class(name, Some(object(json!({"metadata": {"name": name}, "spec": spec}))));
    }

    /// Publishes a slice of the node's pool `p`, which has one slice unless the spec says otherwise.
    pub(super) fn slice(&mut self, node: &str, spec: Value) {
        self.slices += 1;
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
        let mut whole = json!({"driver": DRIVER, "pool": pool, "nodeName": node});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let name = format!("slice-{}", self.slices);
        self.devices.set_slice(&name, Some(object(json!({"metadata": {"name": name}, "spec": whole}))));
    }

    pub(super) fn claim(&mut self, name: &str, devices: Value) -> Arc<ResourceClaim> {
        let claim: Arc<ResourceClaim> = object(json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
            "spec": {"devices": devices},
        }));
        self.devices.set_claim("default", name, Some(Arc::clone(&claim)));
        claim
    }

    /// Writes an allocation to a claim.
    pub(super) fn allocate(&mut self, claim: &ResourceClaim, allocation: AllocationResult) {
        let mut claim = claim.clone();
        claim.status.get_or_insert_default().allocation = Some(allocation);
        let name = claim.metadata.name.clone().unwrap();
        self.devices.set_claim("default", &name, Some(Arc::new(claim)));
    }

    /// What the claims get on a node.
    pub(super) fn search(&self, claims: &[Arc<ResourceClaim>], node: &str) -> Result<Outcome, String> {
        let wanted = Wanted::new(claims.to_vec(), &self.devices, &Selectors::default());
        let wanted = wanted.map_err(|status| status.message())?;
        let supply = Supply {
            pools: Arc::clone(self.devices.pools()),
            taken: self.devices.unavailable(),
            taint_rules: Arc::clone(self.devices.taint_rules()),
        };
        let labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), node.to_owned())]);
        let limits = Limits { spent: &AtomicU64::new(0), until: self.until };
        let found = search(&wanted, &supply, (node, &labels), limits)?;
        Ok(match found {
            Found::Devices(picks) => Outcome::Allocated(result::allocations(&wanted, &picks, node)),
            Found::Nothing => Outcome::Refused("cannot allocate all claims".to_owned()),
            Found::Refused(why) => Outcome::Refused(why),
            Found::TooLong => Outcome::Refused("timed out trying to allocate devices".to_owned()),
        })
    }
}

#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Allocated(Vec<AllocationResult>),
    Refused(String),
}

/// The devices of an allocation, as `request=device`.
pub(super) fn shown(allocations: &[AllocationResult]) -> Vec<String> {
    let results = allocations.iter().flat_map(|a| a.devices.iter().flat_map(|d| d.results.iter().flatten()));
    results.map(|result| format!("{}={}", result.request, result.device)).collect()
}
