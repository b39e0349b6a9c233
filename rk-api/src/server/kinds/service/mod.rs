//! Services: their defaults, their rules, and the cluster IPs and node ports they hold.

pub(crate) mod addresses;
mod allocate;
mod columns;
mod defaults;
mod families;
mod family_rules;
mod pool;
mod range;
#[cfg(test)]
mod tests;
mod validate;

use std::{ops::RangeInclusive, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use self::allocate::Allocator;
pub(crate) use self::range::family;
pub use self::{
    columns::columns,
    range::{ClusterIpRange, RangeError},
};
use super::{field::Errors, value, warn::Warnings};
use crate::{
    Network, Resource, Status,
    server::{FieldErrors, Strategy, WriteContext},
};

/// Where the addresses and ports of Services come from.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// The networks of cluster IPs, whose families are those that Services can have. Their first and last addresses are not given out, and
    /// the first after the primary network's own belongs to the Service `default/kubernetes`. Those of the ready ServiceCIDRs of the
    /// same families are given out too.
    pub cluster_ips: ClusterIpRange,
    /// Ports that every node opens.
    pub node_ports: RangeInclusive<u16>,
    /// Where the choice among free ones starts from; a given seed makes it repeatable.
    pub seed: u64,
}

impl Default for Ranges {
    /// `10.96.0.0/12` and 30000 to 32767, as kubeadm sets up clusters.
    fn default() -> Self {
        let network = Network { address: [10, 96, 0, 0].into(), bits: 12 };
        Self { cluster_ips: network.into(), node_ports: 30_000..=32_767, seed: rand::random() }
    }
}

/// The rules of Services, with addresses and ports from these ranges.
pub fn strategy(ranges: Ranges) -> Arc<dyn Strategy> {
    Arc::new(Services { cluster_ips: ranges.cluster_ips.clone(), allocator: Allocator::new(ranges) })
}

struct Services {
    cluster_ips: ClusterIpRange,
    allocator: Allocator,
}

impl Services {
    /// The broken rules of the families, or else those that are left to look at.
    fn validate(&self, new: &Value, old: Option<&Value>) -> FieldErrors {
        let broken = families::broken(new, old, &self.cluster_ips);
        if !broken.is_empty() {
            return broken;
        }
        let mut errors = Errors::default();
        if let Some(old) = old {
            validate::change(new, old, &mut errors);
        }
        validate::service(new, &mut errors);
        errors.into_inner()
    }
}

#[async_trait]
impl Strategy for Services {
    fn default(&self, object: &mut Value) {
        defaults::default(object);
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        value::set(object, "status", serde_json::json!({"loadBalancer": {}}));
        defaults::normalize(object, None);
        families::resolve(object, None, &self.cluster_ips);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, context: &WriteContext<'_>) {
        if context.subresource.is_empty() {
            defaults::keep_allocated(new, old);
            defaults::normalize(new, Some(old));
            defaults::drop_unused(new, old);
            families::resolve(new, Some(old), &self.cluster_ips);
        }
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        self.validate(object, None)
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> FieldErrors {
        if subresource.is_empty() { self.validate(new, Some(old)) } else { FieldErrors::new() }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Warnings::default();
        validate::warn(object, &mut warnings);
        warnings.into_inner()
    }

    async fn allocate(&self, new: &mut Value, old: Option<&Value>, context: &WriteContext<'_>) -> Result<(), Status> {
        if context.subresource.is_empty() { self.allocator.allocate(new, old, context).await } else { Ok(()) }
    }

    fn claims(&self, object: &Value) -> Vec<String> {
        allocate::claims(object)
    }

    fn companions(&self, object: &Value) -> Vec<(Resource, Value)> {
        addresses::cluster_ips(object)
            .map(|ip| (addresses::ip_addresses(), addresses::ip_address(ip, object)))
            .collect()
    }

    fn release(&self, object: &Value) {
        self.allocator.release(object);
    }
}
