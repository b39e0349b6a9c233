//! Which devices are taken, and how much of those that can be shared.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceRequestAllocationResult};
use rk_api::Quantity;

use super::PoolId;

/// What claims have of a device. Administrative access takes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// How many claims have it for themselves: more than one only by mistake.
    pub exclusive: u32,
    /// How many claims share it.
    pub shares: u32,
    /// What they consume of its capacities, by the names that the claims use.
    pub consumed: BTreeMap<String, Quantity>,
}

/// What claims have of all devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    pools: HashMap<PoolId, HashMap<Arc<str>, DeviceUse>>,
}

impl Taken {
    /// The devices of a pool that are taken.
    pub fn of_pool(&self, pool: &PoolId) -> Option<&HashMap<Arc<str>, DeviceUse>> {
        self.pools.get(pool)
    }

    /// What claims have of a device.
    pub fn of(&self, pool: &PoolId, device: &str) -> Option<&DeviceUse> {
        self.pools.get(pool)?.get(device)
    }

    /// Counts an allocation in.
    pub fn take(&mut self, allocation: &AllocationResult) {
        for result in results(allocation) {
            let pool = self.pools.entry(PoolId::new(&result.driver, &result.pool)).or_default();
            let of = pool.entry(Arc::from(result.device.as_str())).or_default();
            if result.share_id.is_none() {
                of.exclusive += 1;
                continue;
            }
            of.shares += 1;
            for (name, quantity) in consumed(result) {
                *of.consumed.entry(name.clone()).or_default() += quantity;
            }
        }
    }

    /// Counts an allocation out.
    pub fn give_back(&mut self, allocation: &AllocationResult) {
        for result in results(allocation) {
            let id = PoolId::new(&result.driver, &result.pool);
            let Some(pool) = self.pools.get_mut(&id) else { continue };
            let Some(of) = pool.get_mut(result.device.as_str()) else { continue };
            if result.share_id.is_none() {
                of.exclusive = of.exclusive.saturating_sub(1);
            } else {
                of.shares = of.shares.saturating_sub(1);
                for (name, quantity) in consumed(result) {
                    if let Some(sum) = of.consumed.get_mut(name) {
                        *sum -= quantity;
                    }
                }
            }
            if of.exclusive == 0 && of.shares == 0 {
                pool.remove(result.device.as_str());
            }
            if pool.is_empty() {
                self.pools.remove(&id);
            }
        }
    }
}

/// The devices of an allocation that nobody else can have.
fn results(allocation: &AllocationResult) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let all = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    all.filter(|result| result.admin_access != Some(true))
}

/// What a share consumes; the API checks quantities, so one that can't be read is not expected and counts for nothing.
fn consumed(result: &DeviceRequestAllocationResult) -> impl Iterator<Item = (&String, Quantity)> {
    let all = result.consumed_capacity.iter().flatten();
    all.filter_map(|(name, quantity)| Some((name, Quantity::try_from(quantity).ok()?)))
}
