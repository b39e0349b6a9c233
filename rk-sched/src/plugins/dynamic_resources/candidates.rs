//! The devices that a node has access to, and which of them a request could have if it were the only one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration};
use rk_api::Quantity;

use super::{
    capacity::consumed,
    requests::{Choice, Count},
};
use crate::model::{Consumption, DeviceInfo, DeviceUse, Pool, Pools, Slice, TaintRule, Taken};

/// What there is, and what of it is taken.
#[derive(Debug)]
pub(super) struct Supply {
    pub(super) pools: Arc<Pools>,
    pub(super) taken: Arc<Taken>,
    pub(super) taint_rules: Arc<BTreeMap<String, TaintRule>>,
}

/// A device that a node has access to.
pub(super) struct Candidate<'a> {
    pub(super) pool: usize,
    pub(super) slice: &'a Arc<Slice>,
    /// Its place in the slice.
    pub(super) at: usize,
    pub(super) device: &'a DeviceInfo,
    /// What claims have of it.
    pub(super) used: Option<&'a DeviceUse>,
}

impl Candidate<'_> {
    pub(super) fn driver(&self) -> &str {
        &self.slice.pool.driver
    }

    /// Whether its pool's counters are charged for it already.
    pub(super) fn is_counted(&self) -> bool {
        self.used.is_some()
    }
}

/// A pool's counter: the pool's place, the set and the name.
type Counter<'a> = (usize, &'a str, &'a str);

/// The devices of a node.
pub(super) struct Candidates<'a> {
    pub(super) devices: Vec<Candidate<'a>>,
    pools: Vec<&'a Arc<Pool>>,
    taint_rules: &'a BTreeMap<String, TaintRule>,
    /// What is left of the counters.
    left: HashMap<Counter<'a>, Quantity>,
}

/// The answers of a choice's selectors for the devices of a slice.
type Answers = Vec<Arc<[Result<bool, String>]>>;

/// Why a request can't be satisfied on a node, in words of its own; or that it just can't.
pub(super) type Refused = Option<String>;

impl<'a> Candidates<'a> {
    pub(super) fn new(supply: &'a Supply, name: &'a str, labels: &'a BTreeMap<String, String>) -> Self {
        let Supply { pools, taken, taint_rules } = supply;
        let mut all = Self { devices: Vec::new(), pools: Vec::new(), taint_rules, left: HashMap::new() };
        for (pool, devices) in simple_first(pools.on_node(name, labels).collect()) {
            let number = all.pools.len();
            all.pools.push(pool);
            if pool.incomplete || pool.invalid.is_some() {
                continue;
            }
            let used = taken.of_pool(&pool.id);
            for (slice, at) in devices {
                let device = &slice.devices[at];
                let used = used.and_then(|used| used.get(&device.name));
                all.devices.push(Candidate { pool: number, slice, at, device, used });
            }
            for ((set, counter), total) in &pool.counters {
                all.left.insert((number, set, counter), *total);
            }
            if pool.counters.is_empty() {
                continue;
            }
            // Devices of other nodes share the counters.
            for name in used.into_iter().flat_map(HashMap::keys) {
                for used in pool.device(name).into_iter().flat_map(|device| &device.consumes) {
                    if let Some(left) = all.left.get_mut(&(number, used.set.as_str(), used.counter.as_str())) {
                        *left -= used.amount;
                    }
                }
            }
        }
        all
    }

    /// What is left of a counter; nothing of one that is not there.
    pub(super) fn left(&self, pool: usize, of: &Consumption) -> Quantity {
        self.left.get(&(pool, of.set.as_str(), of.counter.as_str())).copied().unwrap_or(Quantity::ZERO)
    }

    /// Whether there is a pool that can't be allocated from.
    pub(super) fn any_invalid(&self) -> bool {
        self.pools.iter().any(|pool| pool.invalid.is_some())
    }

    /// The devices that a choice could have, in order; for [`Count::All`] they are what it must have.
    ///
    /// # Errors
    /// `Ok(Err(_))`: it can't be satisfied on this node. `Err(_)`: an expression fails.
    pub(super) fn of(&self, choice: &Choice, claim: &str) -> Result<Result<Vec<usize>, Refused>, String> {
        let all = choice.count == Count::All;
        if all {
            let changing = |pool: &&&Arc<Pool>| pool.incomplete || pool.invalid.is_some();
            if let Some(pool) = self.pools.iter().find(changing) {
                let how = if pool.incomplete { "being updated" } else { "invalid" };
                return Ok(Err(Some(format!(
                    "claim {claim}, request {}: asks for all devices, but resource pool {} is currently {how}",
                    choice.name, pool.id
                ))));
            }
        }
        let mut found = Vec::new();
        let mut answers: Option<(&Arc<Slice>, Answers)> = None;
        for (number, candidate) in self.devices.iter().enumerate() {
            if answers.as_ref().is_none_or(|(slice, _)| !Arc::ptr_eq(slice, candidate.slice)) {
                let of = choice.filters.iter().map(|f| candidate.slice.selected(&f.expression, &f.selector));
                answers = Some((candidate.slice, of.collect()));
            }
            let mut selected = true;
            for (filter, answers) in choice.filters.iter().zip(answers.iter().flat_map(|(_, answers)| answers)) {
                match &answers[candidate.at] {
                    Ok(true) => {}
                    Ok(false) => {
                        selected = false;
                        break;
                    }
                    Err(why) => return Err(format!("{}: CEL runtime error: {why}", filter.origin)),
                }
            }
            if !selected {
                continue;
            }
            // One that has too little of a capacity, however free it is, is not among those that are wanted.
            let Some(amounts) = enough(choice, candidate) else { continue };
            match self.could_have(choice, candidate, &amounts) {
                true => found.push(number),
                // All are wanted, and this one can't be had.
                false if all => return Ok(Err(None)),
                false => {}
            }
        }
        // At least one device must be there.
        if found.is_empty() { Ok(Err(None)) } else { Ok(Ok(found)) }
    }

    /// Whether the choice could have the device, of which it consumes these amounts, if nothing else were asked for.
    fn could_have(&self, choice: &Choice, candidate: &Candidate<'_>, amounts: &Amounts) -> bool {
        let device = candidate.device;
        let pool = &self.pools[candidate.pool].id;
        let rules = self.taint_rules.values().filter(|rule| rule.selects(pool, &device.name)).map(|rule| &rule.taint);
        if device.taints().iter().chain(rules).any(|taint| forbids(taint, &choice.tolerations)) {
            return false;
        }
        if choice.admin {
            return true;
        }
        let used = candidate.used;
        let free = if device.shared() { used.is_none_or(|used| used.exclusive == 0) } else { used.is_none() };
        let counted = || device.consumes.iter().all(|of| self.left(candidate.pool, of) >= of.amount);
        free && fits(device, amounts, used) && (candidate.is_counted() || counted())
    }
}

/// What is consumed of capacities, by their names.
type Amounts = BTreeMap<String, Quantity>;

/// Whether a device has so much beside what is used of it.
fn fits(device: &DeviceInfo, amounts: &Amounts, used: Option<&DeviceUse>) -> bool {
    device.capacity.iter().all(|capacity| {
        let taken = used.and_then(|used| used.consumed.get(&capacity.name)).copied().unwrap_or(Quantity::ZERO);
        amounts.get(&capacity.name).is_none_or(|amount| taken + *amount <= capacity.value)
    })
}

/// What the choice would consume of the device; `None` if the whole device would not be enough.
fn enough(choice: &Choice, candidate: &Candidate<'_>) -> Option<Amounts> {
    let amounts = consumed(&choice.capacity, candidate.driver(), candidate.device)?;
    fits(candidate.device, &amounts, None).then_some(amounts)
}

/// A pool with the devices that a node has of it.
type OfPool<'a> = (&'a Arc<Pool>, Vec<(&'a Arc<Slice>, usize)>);

/// What can be had at once before what a driver has to make ready first (KEP-5007): so go pools, and the slices of a pool.
fn simple_first(mut pools: Vec<OfPool<'_>>) -> Vec<OfPool<'_>> {
    let waits = |(_, devices): &OfPool<'_>| devices.iter().any(|(slice, _)| slice.is_conditional());
    if pools.iter().any(waits) {
        pools.sort_by_key(waits);
        pools.iter_mut().for_each(|(_, devices)| devices.sort_by_key(|(slice, _)| slice.is_conditional()));
    }
    pools
}

/// Whether a taint keeps a device from being allocated.
fn forbids(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerations.iter().any(|t| tolerates(t, taint))
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || text(&toleration.value) == text(&taint.value))
}
