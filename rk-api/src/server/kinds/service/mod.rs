//! Services: their defaults, their rules, and the cluster IPs and node ports they hold.

pub(crate) mod addresses;
mod allocate;
mod columns;
mod defaults;
mod pool;
#[cfg(test)]
mod tests;
mod validate;

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use self::allocate::Allocator;
pub use self::columns::columns;
use super::{field::Errors, value, warn::Warnings};
use crate::{
    Network, Resource, Status,
    server::{FieldErrors, Strategy, WriteContext},
};

/// Where the addresses and ports of Services come from.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// The network of cluster IPs: its address and the bits of its prefix. Its first and last addresses are not given out, and the first
    /// after the network's own belongs to the Service `default/kubernetes`. Those of the ready ServiceCIDRs of its family are given out
    /// too.
    pub cluster_ips: (IpAddr, u8),
    /// Ports that every node opens.
    pub node_ports: RangeInclusive<u16>,
    /// Where the choice among free ones starts from; a given seed makes it repeatable.
    pub seed: u64,
}

impl Default for Ranges {
    /// `10.96.0.0/12` and 30000 to 32767, as kubeadm sets up clusters.
    fn default() -> Self {
        Self { cluster_ips: (IpAddr::from([10, 96, 0, 0]), 12), node_ports: 30_000..=32_767, seed: rand::random() }
    }
}

impl Ranges {
    /// The network of cluster IPs.
    fn network(&self) -> Network {
        Network { address: self.cluster_ips.0, bits: self.cluster_ips.1 }
    }
}

/// The rules of Services, with addresses and ports from these ranges.
pub fn strategy(ranges: Ranges) -> Arc<dyn Strategy> {
    Arc::new(Services { allocator: Allocator::new(ranges) })
}

struct Services {
    allocator: Allocator,
}

#[async_trait]
impl Strategy for Services {
    fn default(&self, object: &mut Value) {
        defaults::default(object);
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        value::set(object, "status", serde_json::json!({"loadBalancer": {}}));
        defaults::normalize(object, None);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, context: &WriteContext<'_>) {
        if context.subresource.is_empty() {
            defaults::normalize(new, Some(old));
            defaults::keep_allocated(new, old);
            defaults::drop_unused(new, old);
        }
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = Errors::default();
        validate::service(object, &mut errors);
        errors.into_inner()
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> FieldErrors {
        let mut errors = Errors::default();
        if subresource.is_empty() {
            validate::change(new, old, &mut errors);
            validate::service(new, &mut errors);
        }
        errors.into_inner()
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
