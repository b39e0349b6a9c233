//! Claims on devices that are allocated before any pod uses them, as scheduler_perf's `allocResourceClaims` does.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use rand::seq::SliceRandom;
use rk_api::Object;

use super::{
    options::{Chance, chance},
    simulation::Simulation,
};
use crate::{
    model::{NodeInfo, allocation_of},
    plugins::Allocator,
};

impl Simulation<'_> {
    /// Allocates all claims of a namespace (all claims if there is none) that are not allocated yet, one after the other, each on the first of
    /// the nodes, in an order by chance, that has the devices.
    ///
    /// # Errors
    /// One of them can't be allocated; those before it are.
    pub(super) fn allocate_claims(&mut self, namespace: &str) -> Result<(), String> {
        let claims = self.objects.of_kind("ResourceClaim");
        let wanted = |claim: &Arc<Object>| namespace.is_empty() || claim.meta().namespace == namespace;
        let claims: Vec<Arc<Object>> = claims.into_iter().filter(wanted).collect();
        let allocator = Allocator::default();
        for (number, object) in claims.iter().enumerate() {
            let shown = |why: &dyn std::fmt::Display| format!("claim {}: {why}", object.meta().name);
            let claim: Arc<ResourceClaim> = object.typed().map_err(|error| shown(&error))?;
            if allocation_of(&claim).is_some() {
                continue;
            }
            let snapshot = self.engine.snapshot();
            let mut nodes: Vec<&NodeInfo> = snapshot.nodes().map(|(_, node)| node).collect();
            nodes.sort_by(|one, other| one.name.cmp(&other.name));
            nodes.shuffle(&mut chance(self.seed, Chance::Allocation, number as u64, 0));
            let found = allocator.allocate(&claim, &snapshot.devices, nodes).map_err(|why| shown(&why))?;
            let Some(allocation) = found else {
                return Err(format!("could not allocate claim {number} out of {}", claims.len()));
            };
            let mut value = object.value().map_err(|error| shown(&error))?;
            value["status"]["allocation"] = serde_json::to_value(allocation).map_err(|error| shown(&error))?;
            self.write(value).map_err(|error| shown(&error))?;
        }
        Ok(())
    }
}
