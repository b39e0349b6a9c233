//! Ranges of pod addresses: each node gets a part of the cluster's.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use rk_api::{Informer, Informers, Key, Patch, object_reference};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{Action, Context, Controller, Error, Reconcile, common::meta};

/// A cluster range that can't be cut up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CidrError(String);

/// The cluster's range, cut into ranges of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeCidrs {
    /// The first address, as a number.
    base: u128,
    /// Bits of an address: 32 or 128.
    bits: u8,
    cluster_mask: u8,
    node_mask: u8,
}

impl NodeCidrs {
    /// Cuts `cluster` (such as `10.244.0.0/16`) into ranges of `node_mask` bits (such as 24).
    ///
    /// # Errors
    /// The range can't be read, has bits beyond its mask, or is smaller than a node's.
    pub fn new(cluster: &str, node_mask: u8) -> Result<Self, CidrError> {
        let bad = |why: &str| CidrError(format!("invalid cluster CIDR {cluster:?}: {why}"));
        let (base, bits, cluster_mask) = parse(cluster).ok_or_else(|| bad("not an address and a mask"))?;
        if node_mask < cluster_mask || node_mask > bits {
            return Err(bad(&format!("it has no ranges of /{node_mask}")));
        }
        if cluster_mask < bits && base & (u128::MAX >> (128 - u32::from(bits - cluster_mask))) != 0 {
            return Err(bad("bits beyond the mask are set"));
        }
        Ok(Self { base, bits, cluster_mask, node_mask })
    }

    fn count(&self) -> u128 {
        1_u128.checked_shl(u32::from(self.node_mask - self.cluster_mask)).unwrap_or(u128::MAX)
    }

    /// The range of this number.
    fn range(&self, number: u128) -> String {
        let address = self.base + (number << u32::from(self.bits - self.node_mask));
        let address: IpAddr = match u32::try_from(address) {
            Ok(address) if self.bits == 32 => Ipv4Addr::from(address).into(),
            _ => Ipv6Addr::from(address).into(),
        };
        format!("{address}/{}", self.node_mask)
    }

    /// The number of a range; `None` if it is not one of these.
    fn number(&self, range: &str) -> Option<u128> {
        let (address, _, _) = parse(range).filter(|(_, bits, _)| *bits == self.bits)?;
        let number = address.checked_sub(self.base)? >> u32::from(self.bits - self.node_mask);
        (number < self.count()).then_some(number)
    }

    /// The first range that is not in use.
    fn free<'a>(&self, used: impl Iterator<Item = &'a str>) -> Option<String> {
        let used: BTreeSet<u128> = used.filter_map(|range| self.number(range)).collect();
        (0..self.count()).find(|number| !used.contains(number)).map(|number| self.range(number))
    }
}

fn parse(cidr: &str) -> Option<(u128, u8, u8)> {
    let (address, mask) = cidr.split_once('/')?;
    let mask: u8 = mask.parse().ok()?;
    let (number, bits) = match address.parse().ok()? {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    (mask <= bits).then_some((number, bits, mask))
}

/// Gives nodes their ranges.
pub struct NodeIpamController {
    cidrs: NodeCidrs,
    nodes: Informer,
    /// Ranges given out that the informer may not show yet.
    given: Mutex<HashMap<String, String>>,
}

/// Runs the node IPAM controller until `shutdown`.
pub async fn run(informers: &Informers, cidrs: NodeCidrs, shutdown: CancellationToken) {
    let reconciler = NodeIpamController { cidrs, nodes: informers.of::<Node>(), given: Mutex::default() };
    // One at a time, so that no range is given out twice.
    Controller::new("node-ipam-controller", reconciler, informers).workers(1).run(shutdown).await;
}

#[async_trait]
impl Reconcile for NodeIpamController {
    type Object = Node;

    async fn reconcile(&self, node: Arc<Node>, context: &Context) -> Result<Action, Error> {
        let name = meta::name(&node.metadata);
        if node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some()) || meta::is_deleting(&node.metadata) {
            return Ok(Action::await_change());
        }
        let mut used: Vec<String> = Vec::new();
        for object in self.nodes.list() {
            let spec = object.typed::<Node>()?.spec.clone().unwrap_or_default();
            used.extend(spec.pod_cidr.into_iter().chain(spec.pod_cidrs.into_iter().flatten()));
        }
        let given = self.given.lock().clone();
        let taken = used.iter().chain(given.iter().filter(|(to, _)| *to != name).map(|(_, range)| range));
        let Some(range) = self.cidrs.free(taken.map(String::as_str)) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            context.events.normal(&object_reference(node.as_ref()), "CIDRNotAvailable", message);
            return Err(Error::invalid("every range of the cluster CIDR is in use"));
        };
        self.given.lock().insert(name.to_owned(), range.clone());
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"podCIDR": range, "podCIDRs": [range]},
        });
        context.api_all::<Node>().patch(name, Patch::merge(patch)).await?;
        Ok(Action::await_change())
    }

    async fn gone(&self, key: &Key, _: &Context) -> Result<Action, Error> {
        self.given.lock().remove(&key.1);
        Ok(Action::await_change())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_out_once_and_used_again() {
        let cidrs = NodeCidrs::new("10.244.0.0/22", 24).unwrap();
        assert_eq!(cidrs.free([].into_iter()).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(cidrs.free(["10.244.0.0/24", "10.244.2.0/24"].into_iter()).as_deref(), Some("10.244.1.0/24"));
        let all: Vec<String> = (0..4).map(|number| cidrs.range(number)).collect();
        assert_eq!(cidrs.free(all.iter().map(String::as_str)), None);
        assert_eq!(cidrs.number("192.168.0.0/24"), None);
        let six = NodeCidrs::new("fd00:10::/56", 64).unwrap();
        assert_eq!(six.free(["fd00:10::/64"].into_iter()).as_deref(), Some("fd00:10:0:1::/64"));
    }

    #[test]
    fn wrong_ranges_are_refused() {
        for (cluster, mask) in
            [("10.0.0.0", 24), ("10.0.0.0/16", 8), ("10.0.0.1/16", 24), ("10.0.0.0/40", 24), ("x/8", 24)]
        {
            assert!(NodeCidrs::new(cluster, mask).is_err(), "{cluster} {mask}");
        }
    }
}
