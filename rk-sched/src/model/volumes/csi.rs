//! What CSI drivers say of nodes.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::storage::v1::CSINode;

use super::migration::InTreePlugin;

/// The annotation that names the in-tree plugins that a node has given up for their CSI drivers.
pub(crate) const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";

/// What a CSINode says of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CsiNode {
    limits: Vec<(Arc<str>, i64)>,
    /// Names of the plugins.
    migrated: BTreeSet<String>,
}

impl CsiNode {
    /// Reads a CSINode.
    pub(crate) fn new(node: &CSINode) -> Self {
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

    /// Whether `new` may take volumes that this one does not: a driver's limit is higher or gone, or other plugins are given up.
    pub(crate) fn is_stricter_than(&self, new: &Self) -> bool {
        self.limits().any(|(driver, limit)| new.limit(driver).is_none_or(|new| new > limit))
            || self.migrated != new.migrated
    }

    /// Whether the node has given a plugin up for its CSI driver.
    pub(crate) fn migrates(&self, plugin: &InTreePlugin) -> bool {
        self.migrated.contains(plugin.name)
    }
}
