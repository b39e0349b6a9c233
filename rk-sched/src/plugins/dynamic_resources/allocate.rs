//! Allocation of a claim that no pod waits for.

use std::sync::{Arc, atomic::AtomicU64};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::{
    candidates::Supply,
    requests::{Selectors, Wanted},
    result,
    search::{Found, Limits, search},
};
use crate::model::{Devices, NodeInfo};

/// Gives devices to claims as the plugin does, outside of scheduling cycles.
#[derive(Default)]
pub(crate) struct Allocator(Selectors);

impl Allocator {
    /// What a claim gets on the first of the nodes that has enough for it; `None` if none has.
    ///
    /// # Errors
    /// The claim asks for what nobody can give, or an expression of it or of a class fails.
    pub(crate) fn allocate<'n>(
        &self,
        claim: &Arc<ResourceClaim>,
        devices: &Devices,
        nodes: impl IntoIterator<Item = &'n NodeInfo>,
    ) -> Result<Option<AllocationResult>, String> {
        let wanted = Wanted::new(vec![Arc::clone(claim)], devices, &self.0).map_err(|status| status.message())?;
        let supply = Supply {
            pools: Arc::clone(devices.pools()),
            taken: devices.unavailable(),
            taint_rules: Arc::clone(devices.taint_rules()),
        };
        for node in nodes {
            let limits = Limits { spent: &AtomicU64::new(0), until: None };
            if let Found::Devices(picks) = search(&wanted, &supply, (&node.name, node.labels()), limits)? {
                return Ok(result::allocations(&wanted, &picks, &node.name).into_iter().next());
            }
        }
        Ok(None)
    }
}
