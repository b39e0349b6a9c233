//! Devices: what drivers publish, what claims ask for, and who has what (dynamic resource allocation, KEP-4381).
//!
//! A driver publishes its devices in ResourceSlices, which together are *pools*; a ResourceClaim asks for devices of a DeviceClass,
//! and once it is allocated its status names them. What the scheduler has chosen for a claim and not yet written is
//! *in flight*, and counts as taken.

mod extended;
mod in_flight;
mod pools;
mod rules;
mod slice;
mod stock;
mod taken;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::resource::{
    v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice},
    v1beta2::DeviceTaintRule,
};

use extended::ExtendedNames;
pub use extended::{CLAIM_ANNOTATION, pod_of_extended};
pub use in_flight::InFlight;
pub use pools::{Pool, PoolId, Pools};
pub use rules::TaintRule;
pub use slice::{Capacity, Consumption, DeviceInfo, Slice};
use stock::ClassSelectors;
pub use stock::Stock;
pub use taken::{DeviceUse, Taken};

/// A name in a namespace.
type Key = (String, String);

/// All claims, classes and devices.
///
/// What a scheduling cycle needs for longer than it can borrow the snapshot is shared, and copied only if it changes
/// meanwhile.
#[derive(Debug, Default)]
pub struct Devices {
    claims: HashMap<Key, Arc<ResourceClaim>>,
    /// The claims that were made for extended resources, by the pods' uids.
    extended_claims: HashMap<String, Key>,
    classes: HashMap<String, Arc<DeviceClass>>,
    class_selectors: HashMap<String, Arc<ClassSelectors>>,
    extended_names: ExtendedNames,
    taint_rules: Arc<BTreeMap<String, TaintRule>>,
    pools: Arc<Pools>,
    taken: Arc<Taken>,
    in_flight: Arc<InFlight>,
}

/// The allocation of a claim, if it has one.
pub fn allocation_of(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// The uid of a claim.
pub fn uid_of(claim: &ResourceClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or_default()
}

impl Devices {
    /// Sets a claim; `None` when it is gone.
    pub fn set_claim(&mut self, namespace: &str, name: &str, claim: Option<Arc<ResourceClaim>>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(pod) = claim.as_deref().and_then(pod_of_extended) {
            self.extended_claims.insert(pod.to_owned(), key.clone());
        }
        let old = match claim.clone() {
            Some(claim) => self.claims.insert(key, claim),
            None => self.claims.remove(&key),
        };
        if let (Some(pod), None) = (old.as_deref().and_then(pod_of_extended), &claim)
            && self.extended_claims.get(pod).is_some_and(|(_, known)| known == name)
        {
            // A newer one may have come before the older one went.
            self.extended_claims.remove(pod);
        }
        old.iter().chain(&claim).for_each(|claim| self.in_flight.heard_of(uid_of(claim)));
        let held = |claim: &Option<Arc<ResourceClaim>>| claim.as_deref().and_then(allocation_of).cloned();
        let (before, now) = (held(&old), held(&claim));
        if before != now {
            let taken = Arc::make_mut(&mut self.taken);
            if let Some(before) = before {
                taken.give_back(&before);
            }
            if let Some(now) = now {
                taken.take(&now);
            }
        }
    }

    /// Sets a class; `None` when it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<DeviceClass>>) {
        let old = match class.clone() {
            Some(class) => self.classes.insert(name.to_owned(), class),
            None => self.classes.remove(name),
        };
        if let Some(old) = old {
            self.extended_names.note(name, &old, false);
            self.class_selectors.remove(name);
        }
        if let Some(class) = class {
            self.extended_names.note(name, &class, true);
            self.class_selectors.insert(name.to_owned(), Arc::new(ClassSelectors::new(&class)));
        }
    }

    /// Sets a rule that taints devices; `None` when it is gone.
    pub fn set_taint_rule(&mut self, name: &str, rule: Option<&DeviceTaintRule>) {
        let rules = Arc::make_mut(&mut self.taint_rules);
        match rule.and_then(TaintRule::new) {
            Some(rule) => rules.insert(name.to_owned(), rule),
            None => rules.remove(name),
        };
    }

    /// Sets a slice; `None` when it is gone.
    pub fn set_slice(&mut self, name: &str, slice: Option<Arc<ResourceSlice>>) {
        Arc::make_mut(&mut self.pools).set_slice(name, slice);
    }

    /// A claim as the API has it.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// A claim as it was last written by this scheduler, if that is newer than what was heard of it.
    pub fn newest_claim(&self, namespace: &str, name: &str) -> Option<Arc<ResourceClaim>> {
        let claim = self.claim(namespace, name)?;
        Some(self.in_flight.newer_than(claim).unwrap_or_else(|| Arc::clone(claim)))
    }

    /// A class.
    pub fn class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(name)
    }

    /// The class whose devices can be had as an extended resource: the newest that names it, or the one that is in its name
    /// (`deviceclass.resource.kubernetes.io/CLASS`).
    pub fn class_of_resource(&self, resource: &str) -> Option<&Arc<DeviceClass>> {
        self.extended_names.class(resource, &self.classes)
    }

    /// By extended resource the devices that stand for it (KEP-5004); resources that no class stands for are left out.
    pub fn stocks<'r>(&self, resources: impl Iterator<Item = &'r Arc<str>>) -> Vec<(Arc<str>, Stock)> {
        let mut taken = None;
        let stock = |resource: &'r Arc<str>| {
            let class = self.class_of_resource(resource)?;
            let selectors = self.class_selectors.get(class.metadata.name.as_deref()?)?;
            let taken = Arc::clone(taken.get_or_insert_with(|| self.unavailable()));
            Some((Arc::clone(resource), Stock::new(Arc::clone(selectors), Arc::clone(&self.pools), taken)))
        };
        resources.filter_map(stock).collect()
    }

    /// The claim that was made for a pod's extended resources, if there is one.
    pub fn extended_claim(&self, pod: &str) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(self.extended_claims.get(pod)?)
    }

    /// Rules that taint devices, by their names.
    pub fn taint_rules(&self) -> &Arc<BTreeMap<String, TaintRule>> {
        &self.taint_rules
    }

    /// What drivers publish.
    pub fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// What claims hold as the API has them.
    pub fn taken(&self) -> &Arc<Taken> {
        &self.taken
    }

    /// What was chosen for claims and is not written yet, or was written and not heard of yet.
    pub fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// All that can't be given to another claim: what claims hold, and what is in flight.
    pub fn unavailable(&self) -> Arc<Taken> {
        let flying = self.in_flight.beyond(|namespace, name| self.claim(namespace, name).map(AsRef::as_ref));
        if flying.is_empty() {
            return Arc::clone(&self.taken);
        }
        let mut taken = (*self.taken).clone();
        for allocation in &flying {
            taken.take(allocation);
        }
        Arc::new(taken)
    }
}

#[cfg(test)]
mod tests;
