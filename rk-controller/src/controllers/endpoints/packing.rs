//! Putting endpoints into slices with as few writes as can be: what is there stays where it is.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Endpoints per slice (`--max-endpoints-per-slice`).
pub(super) const MOST: usize = 100;

/// What to do with the slices of one set of ports.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Endpoints of slices to make.
    pub(super) create: Vec<Vec<Endpoint>>,
    /// Slices with other endpoints than before.
    pub(super) update: Vec<EndpointSlice>,
    /// Slices to delete.
    pub(super) delete: Vec<EndpointSlice>,
    /// Slices that are right.
    pub(super) keep: Vec<EndpointSlice>,
}

/// Which endpoint it is, whatever its condition: the pod and the addresses.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.clone(), uid)
}

/// Plans how `slices` come to hold `wanted`.
pub(super) fn plan(slices: Vec<EndpointSlice>, wanted: Vec<Endpoint>) -> Plan {
    let mut missing: BTreeMap<_, Endpoint> =
        wanted.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let mut plan = Plan::default();
    let mut changed = Vec::new();
    for mut slice in slices {
        let before = slice.endpoints.take().unwrap_or_default();
        let after: Vec<Endpoint> = before.iter().filter_map(|endpoint| missing.remove(&identity(endpoint))).collect();
        let same = before == after;
        slice.endpoints = Some(after);
        if same { plan.keep.push(slice) } else { changed.push(slice) }
    }
    // Fill the slices that are written anyway; then, if what is left fits, one that has room; the rest gets new ones.
    let mut missing: Vec<Endpoint> = missing.into_values().collect();
    for slice in &mut changed {
        fill(slice, &mut missing);
    }
    if !missing.is_empty() && missing.len() < MOST {
        let room = plan.keep.iter().position(|slice| len(slice) > 0 && len(slice) + missing.len() <= MOST);
        if let Some(mut slice) = room.map(|index| plan.keep.swap_remove(index)) {
            fill(&mut slice, &mut missing);
            changed.push(slice);
        }
    }
    while !missing.is_empty() {
        let rest = missing.split_off(missing.len().min(MOST));
        plan.create.push(std::mem::replace(&mut missing, rest));
    }
    let (empty, kept) = std::mem::take(&mut plan.keep).into_iter().partition(|slice| len(slice) == 0);
    (plan.delete, plan.keep) = (empty, kept);
    for slice in changed {
        if len(&slice) == 0 { plan.delete.push(slice) } else { plan.update.push(slice) }
    }
    plan
}

fn len(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

fn fill(slice: &mut EndpointSlice, missing: &mut Vec<Endpoint>) {
    let take = missing.len().min(MOST.saturating_sub(len(slice)));
    slice.endpoints.get_or_insert_default().extend(missing.drain(..take));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(numbers: impl IntoIterator<Item = usize>) -> Vec<Endpoint> {
        let endpoint = |number: usize| Endpoint {
            addresses: vec![format!("10.0.{}.{}", number / 256, number % 256)],
            ..Endpoint::default()
        };
        numbers.into_iter().map(endpoint).collect()
    }

    fn slice(numbers: impl IntoIterator<Item = usize>) -> EndpointSlice {
        EndpointSlice { endpoints: Some(endpoints(numbers)), ..EndpointSlice::default() }
    }

    #[test]
    fn many_endpoints_get_several_slices() {
        let plan = plan(vec![], endpoints(0..250));
        assert_eq!(plan.create.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    }

    #[test]
    fn only_what_changes_is_written() {
        let plan = plan(vec![slice(0..100), slice(100..150), slice(200..210)], endpoints(0..152));
        // The first is right; the third is written anyway and takes the two new ones.
        assert_eq!((plan.keep.len(), plan.update.len(), plan.create.len(), plan.delete.len()), (2, 1, 0, 0));
        assert_eq!(len(&plan.update[0]), 2);
    }

    #[test]
    fn room_is_used_and_what_is_empty_goes() {
        let grown = plan(vec![slice(0..10)], endpoints(0..11));
        assert_eq!((grown.update.len(), grown.create.len()), (1, 0));
        let shrunk = plan(vec![slice(0..10)], vec![]);
        assert_eq!((shrunk.update.len(), shrunk.delete.len()), (0, 1));
    }
}
