//! Devices: what drivers publish, what claims ask for, and who has what (dynamic resource allocation, KEP-4381).
//!
//! A driver publishes its devices in ResourceSlices, which together are *pools*; a ResourceClaim asks for devices of a DeviceClass,
//! and once it is allocated its status names them. What the scheduler has chosen for a claim and not yet written is
//! *in flight*, and counts as taken.

mod in_flight;
mod pools;
mod slice;
mod taken;

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};

pub use in_flight::InFlight;
pub use pools::{Pool, PoolId, Pools};
pub use slice::{Capacity, Consumption, DeviceInfo, Slice};
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
    classes: HashMap<String, Arc<DeviceClass>>,
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
        let old = match claim.clone() {
            Some(claim) => self.claims.insert(key, claim),
            None => self.claims.remove(&key),
        };
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
        match class {
            Some(class) => self.classes.insert(name.to_owned(), class),
            None => self.classes.remove(name),
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
