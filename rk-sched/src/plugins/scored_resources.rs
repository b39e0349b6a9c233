//! Resources that nodes are scored by, and how much of them is in use.

use std::{borrow::Cow, sync::Arc};

use crate::{
    framework::CycleState,
    model::{Devices, NodeInfo, PodInfo, Stock},
};

/// A resource that is scored, with its weight among the scored ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceSpec {
    /// Such as `cpu`.
    pub name: Cow<'static, str>,
    /// At least 1.
    pub weight: i64,
}

impl ResourceSpec {
    /// Cpu and memory alike: the default.
    pub fn cpu_and_memory() -> Vec<Self> {
        ["cpu", "memory"].map(|name| Self { name: Cow::Borrowed(name), weight: 1 }).into()
    }

    /// What of this resource the node's pods and this one would ask for, and what there is. With `nonzero`, cpu and memory of pods without a
    /// request count as small. Of a resource that the node does not give itself it is the devices that stand for it (KEP-5004), those
    /// counted that claims have.
    pub(super) fn use_of(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo, nonzero: bool) -> (i64, i64) {
        let total = node.allocatable.get(&self.name);
        let asked = match self.name.as_ref() {
            "cpu" if nonzero => node.nonzero_milli_cpu + pod.nonzero_milli_cpu,
            "memory" if nonzero => node.nonzero_memory + pod.nonzero_memory,
            name if total == 0 && self.is_special() => {
                let devices = state.get::<Stocks>().and_then(|stocks| stocks.on_node(name, node));
                let Some((all, taken)) = devices else { return (0, 0) };
                return (taken + pod.requests.get(name), all);
            }
            name => node.requested.get(name) + pod.requests.get(name),
        };
        (asked, total)
    }

    /// Whether it is none that every node has.
    fn is_special(&self) -> bool {
        !matches!(self.name.as_ref(), "cpu" | "memory" | "ephemeral-storage")
    }

    /// Whether it plays no part for the pod: a special resource that the pod does not ask for.
    pub(super) fn beside(&self, pod: &PodInfo) -> bool {
        self.is_special() && pod.requests.get(&self.name) == 0
    }
}

/// The devices that stand for the extended resources that a pod asks for.
#[derive(Debug, Clone)]
pub(super) struct Stocks(Arc<Vec<(Arc<str>, Stock)>>);

impl Stocks {
    /// Notes them for Score, where any of them is among those that are scored. They are the same for every plugin.
    pub(super) fn note(state: &mut CycleState, pod: &PodInfo, devices: &Devices, scored: &[ResourceSpec]) {
        let asked = || pod.requests.scalars.iter().filter(|(_, amount)| *amount > 0).map(|(name, _)| name);
        let is_scored = |name: &Arc<str>| scored.iter().any(|resource| resource.name == **name);
        let backed = asked().any(|name| is_scored(name) && devices.class_of_resource(name).is_some());
        if backed && state.get::<Self>().is_none() {
            state.insert_brief(Self(Arc::new(devices.stocks(asked()))));
        }
    }

    /// How many devices a node has that stand for a resource, and how many of them are taken. A class whose selectors fail has none.
    fn on_node(&self, name: &str, node: &NodeInfo) -> Option<(i64, i64)> {
        let (_, stock) = self.0.iter().find(|(known, _)| known.as_ref() == name)?;
        let counted = stock.on_node(&node.name, node.labels());
        counted.inspect_err(|error| tracing::debug!(node = %node.name, name, error, "devices are not scored")).ok()
    }
}
