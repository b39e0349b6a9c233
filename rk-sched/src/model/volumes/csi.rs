//! What CSI drivers say of nodes and of the room they have.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::storage::v1::{CSINode, CSIStorageCapacity},
    apimachinery::pkg::api::resource::Quantity as RawQuantity,
};
use rk_api::{LabelSelector, Quantity};

use super::migration::InTreePlugin;

/// The annotation that names the in-tree plugins that a node has given up for their CSI drivers.
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";

/// What a CSINode says of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CsiNode {
    limits: Vec<(Arc<str>, i64)>,
    migrated: BTreeSet<String>,
}

impl CsiNode {
    /// Reads a CSINode.
    pub(super) fn new(node: &CSINode) -> Self {
        let limit = |driver: &k8s_openapi::api::storage::v1::CSINodeDriver| {
            Some((Arc::from(driver.name.as_str()), i64::from(driver.allocatable.as_ref()?.count?)))
        };
        let migrated = node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(MIGRATED));
        Self {
            limits: node.spec.drivers.iter().filter_map(limit).collect(),
            migrated: migrated.into_iter().flat_map(|names| names.split(',')).map(str::to_owned).collect(),
        }
    }

    /// How many volumes of each driver the node takes, for those that limit them.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&Arc<str>, i64)> {
        self.limits.iter().map(|(driver, limit)| (driver, *limit))
    }

    /// How many volumes of a driver the node takes; `None` for any number.
    pub(crate) fn limit(&self, driver: &str) -> Option<i64> {
        self.limits.iter().find(|(name, _)| name.as_ref() == driver).map(|(_, limit)| *limit)
    }

    /// Whether the node has given a plugin up for its CSI driver.
    pub(crate) fn migrates(&self, plugin: &InTreePlugin) -> bool {
        self.migrated.contains(plugin.name)
    }
}

/// A CSIStorageCapacity: how large a volume of a class can be that is made for some nodes (KEP-1472).
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    limit: Option<i64>,
    /// The labels of these nodes; `None` for no node.
    nodes: Option<LabelSelector>,
}

impl Capacity {
    /// Reads a CSIStorageCapacity. The size of the largest volume, where the driver knows it, tells more than that of all the room.
    pub(super) fn new(capacity: &CSIStorageCapacity) -> Self {
        let bytes = |quantity: &RawQuantity| Some(quantity.0.parse::<Quantity>().ok()?.value());
        Self {
            limit: capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref()).and_then(bytes),
            nodes: capacity.node_topology.as_ref().and_then(|spec| LabelSelector::from_spec(spec).ok()),
        }
    }

    /// Whether a volume of this size can be made for a node of these labels.
    pub(crate) fn holds(&self, size: i64, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.limit.is_some_and(|limit| limit >= size) && self.nodes.as_ref().is_some_and(|nodes| nodes.matches(labels))
    }
}
