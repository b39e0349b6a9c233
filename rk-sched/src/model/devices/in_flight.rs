//! Allocations on their way to the API.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use parking_lot::Mutex;

use super::{allocation_of, uid_of};

/// One allocation on its way.
#[derive(Debug)]
enum Flight {
    /// Chosen in a scheduling cycle for this claim.
    Chosen(Arc<ResourceClaim>, AllocationResult),
    /// Written: the claim as it is in the API since then, and whether the API was not heard to have it at all: this
    /// scheduler made it.
    Written(Arc<ResourceClaim>, bool),
}

impl Flight {
    fn claim(&self) -> &ResourceClaim {
        match self {
            Self::Chosen(claim, _) | Self::Written(claim, _) => claim,
        }
    }
}

/// Whether `one` is as new as `other`. Versions count up (KEP-5504); one that can't be compared is not.
fn as_new(one: &ResourceClaim, other: &ResourceClaim) -> bool {
    let revision = |claim: &ResourceClaim| claim.metadata.resource_version.as_deref()?.parse::<u64>().ok();
    matches!((revision(one), revision(other)), (Some(one), Some(other)) if one >= other)
}

/// What was chosen for claims and is not known to be in the API, by the claims' uids.
///
/// It is changed by binding cycles beside the scheduling cycles, so it has a lock; an allocation is either here or among
/// those that claims hold from the moment it is chosen, so no device is offered twice.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<HashMap<String, Flight>>);

impl InFlight {
    /// Notes what was chosen for a claim; `false` if something was already.
    pub fn choose(&self, claim: &Arc<ResourceClaim>, allocation: AllocationResult) -> bool {
        let mut flights = self.0.lock();
        if matches!(flights.get(uid_of(claim)), Some(Flight::Chosen(..))) {
            return false;
        }
        flights.insert(uid_of(claim).to_owned(), Flight::Chosen(Arc::clone(claim), allocation));
        true
    }

    /// Whether an allocation of the claim was chosen and is not written.
    pub fn is_pending(&self, uid: &str) -> bool {
        matches!(self.0.lock().get(uid), Some(Flight::Chosen(..)))
    }

    /// What was chosen is not wanted any more; what was written stays.
    pub fn forget(&self, uid: &str) {
        let mut flights = self.0.lock();
        if matches!(flights.get(uid), Some(Flight::Chosen(..))) {
            flights.remove(uid);
        }
    }

    /// What was chosen is written now.
    pub fn write(&self, claim: Arc<ResourceClaim>) {
        self.0.lock().insert(uid_of(&claim).to_owned(), Flight::Written(claim, false));
    }

    /// What was chosen under the uid `chosen` is written now, to a claim that was made for it and that may not have been heard of yet.
    pub fn write_new(&self, chosen: &str, claim: Arc<ResourceClaim>) {
        let mut flights = self.0.lock();
        flights.remove(chosen);
        flights.insert(uid_of(&claim).to_owned(), Flight::Written(claim, true));
    }

    /// A claim is gone, whether or not it was heard of.
    pub fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// The API was heard to have the claim, or to have had it.
    pub(super) fn heard_of(&self, uid: &str) {
        if let Some(Flight::Written(_, new)) = self.0.lock().get_mut(uid) {
            *new = false;
        }
    }

    /// The claim as this scheduler wrote it, where that is newer than what was heard of it.
    pub(super) fn newer_than(&self, heard: &ResourceClaim) -> Option<Arc<ResourceClaim>> {
        match self.0.lock().get(uid_of(heard)) {
            Some(Flight::Written(written, _)) if allocation_of(heard).is_none() && !as_new(heard, written) => {
                Some(Arc::clone(written))
            }
            _ => None,
        }
    }

    /// The allocations that are not among those that were heard of. `heard` finds the claim of a namespace and a name.
    pub(super) fn beyond<'a>(&self, heard: impl Fn(&str, &str) -> Option<&'a ResourceClaim>) -> Vec<AllocationResult> {
        let mut flights = self.0.lock();
        let mut found = Vec::new();
        flights.retain(|uid, flight| {
            let meta = &flight.claim().metadata;
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            let heard = heard(&text(&meta.namespace), &text(&meta.name)).filter(|claim| uid_of(claim) == uid);
            let allocated = heard.is_some_and(|claim| allocation_of(claim).is_some());
            match flight {
                Flight::Chosen(_, allocation) => {
                    if !allocated {
                        found.push(allocation.clone());
                    }
                    true
                }
                Flight::Written(written, new) => {
                    *new &= heard.is_none();
                    let known = !*new && heard.is_none_or(|heard| allocated || as_new(heard, written));
                    if !known {
                        found.extend(allocation_of(written).cloned());
                    }
                    !known
                }
            }
        });
        found
    }
}
