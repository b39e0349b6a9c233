//! Slices put together to pools.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::resource::v1::ResourceSlice;
use rk_api::Quantity;

use super::slice::{Reach, Slice};

/// A pool's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId {
    /// The driver of its devices.
    pub driver: Arc<str>,
    /// Its name among the driver's.
    pub name: Arc<str>,
}

impl PoolId {
    /// The pool of a driver.
    pub fn new(driver: &str, name: &str) -> Self {
        Self { driver: Arc::from(driver), name: Arc::from(name) }
    }
}

impl std::fmt::Display for PoolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.driver, self.name)
    }
}

/// The slices of a pool's newest generation.
#[derive(Debug)]
pub struct Pool {
    /// Its identity.
    pub id: PoolId,
    /// Whether slices are missing that the driver is about to publish.
    pub incomplete: bool,
    /// Why it can't be allocated from, if so: two devices of one name, or what can't be read.
    pub invalid: Option<String>,
    /// The slices, by their names.
    pub slices: Vec<Arc<Slice>>,
    /// How much there is of each counter, by set and name.
    pub counters: HashMap<(String, String), Quantity>,
}

impl Pool {
    /// `None` if there are no slices.
    fn new(id: &PoolId, all: &[&Arc<Slice>]) -> Option<Self> {
        let newest = all.iter().map(|slice| slice.generation()).max()?;
        let slices: Vec<Arc<Slice>> =
            all.iter().filter(|slice| slice.generation() == newest).map(|slice| Arc::clone(slice)).collect();
        let wanted = slices.first()?.published.spec.pool.resource_slice_count;
        let (mut names, mut counters) = (HashSet::new(), HashMap::new());
        let mut invalid = slices.iter().find_map(|slice| slice.wrong.clone());
        for slice in &slices {
            if let Some(twice) = slice.devices.iter().find(|device| !names.insert(Arc::clone(&device.name))) {
                invalid = Some(format!("duplicate device name {}", twice.name));
            }
            for set in slice.published.spec.shared_counters.iter().flatten() {
                for (name, counter) in &set.counters {
                    match Quantity::try_from(&counter.value) {
                        Ok(value) => drop(counters.insert((set.name.clone(), name.clone()), value)),
                        Err(error) => invalid = Some(format!("counter {}/{name}: {error}", set.name)),
                    }
                }
            }
        }
        let incomplete = i64::try_from(slices.len()).ok() != Some(wanted);
        Some(Self { id: id.clone(), incomplete, invalid, slices, counters })
    }

    /// A device by its name.
    pub fn device(&self, name: &str) -> Option<&super::DeviceInfo> {
        self.slices.iter().flat_map(|slice| &slice.devices).find(|device| device.name.as_ref() == name)
    }
}

/// Every pool, and which nodes have a part in it.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    slices: HashMap<String, Arc<Slice>>,
    members: HashMap<PoolId, BTreeSet<String>>,
    pools: HashMap<PoolId, Arc<Pool>>,
    /// Pools with slices of one node, by its name.
    of_node: HashMap<String, BTreeSet<PoolId>>,
    /// Pools with slices that are not of one node.
    anywhere: BTreeSet<PoolId>,
}

impl Pools {
    /// Sets a slice; `None` when it is gone. It costs what its pool has.
    pub fn set_slice(&mut self, name: &str, slice: Option<Arc<ResourceSlice>>) {
        let old = self.slices.remove(name);
        let new = slice.map(|slice| Arc::new(Slice::new(slice)));
        if let Some(old) = &old
            && let Some(members) = self.members.get_mut(&old.pool)
        {
            members.remove(name);
        }
        if let Some(new) = &new {
            self.slices.insert(name.to_owned(), Arc::clone(new));
            self.members.entry(new.pool.clone()).or_default().insert(name.to_owned());
        }
        let changed: BTreeSet<&PoolId> = old.iter().chain(&new).map(|slice| &slice.pool).collect();
        for id in changed {
            self.rebuild(id);
        }
    }

    fn rebuild(&mut self, id: &PoolId) {
        if let Some(old) = self.pools.remove(id) {
            for slice in &old.slices {
                self.index(slice, id, false);
            }
        }
        let members = self.members.get(id);
        let slices: Vec<_> = members.into_iter().flatten().filter_map(|name| self.slices.get(name)).collect();
        let Some(pool) = Pool::new(id, &slices) else {
            self.members.remove(id);
            return;
        };
        for slice in &pool.slices {
            self.index(slice, id, true);
        }
        self.pools.insert(id.clone(), Arc::new(pool));
    }

    fn index(&mut self, slice: &Slice, id: &PoolId, add: bool) {
        let Reach::Node(node) = &slice.reach else {
            if add {
                self.anywhere.insert(id.clone())
            } else {
                self.anywhere.remove(id)
            };
            return;
        };
        if add {
            self.of_node.entry(node.clone()).or_default().insert(id.clone());
        } else if let Some(pools) = self.of_node.get_mut(node) {
            pools.remove(id);
            if pools.is_empty() {
                self.of_node.remove(node);
            }
        }
    }

    /// A pool.
    pub fn pool(&self, id: &PoolId) -> Option<&Arc<Pool>> {
        self.pools.get(id)
    }

    /// The pools that a node has devices in, by their identities, with those devices: slice and place in it.
    pub fn on_node<'a>(
        &'a self,
        name: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'a Arc<Pool>, Vec<(&'a Arc<Slice>, usize)>)> {
        let ids: BTreeSet<&PoolId> = self.of_node.get(name).into_iter().flatten().chain(&self.anywhere).collect();
        ids.into_iter().filter_map(move |id| {
            let pool = self.pools.get(id)?;
            let devices =
                pool.slices.iter().flat_map(|slice| slice.devices_on(name, labels).map(move |at| (slice, at)));
            let devices: Vec<_> = devices.collect();
            (!devices.is_empty()).then_some((pool, devices))
        })
    }
}
