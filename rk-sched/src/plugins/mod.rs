//! The plugins of Kubernetes' default profile, under their Kubernetes names.

mod balanced_allocation;
mod default_binder;
mod fit;
mod node_affinity;
mod node_simple;
mod queueing;
mod taint_toleration;

pub use balanced_allocation::NodeResourcesBalancedAllocation;
pub use default_binder::DefaultBinder;
pub use fit::{NodeResourcesFit, ResourceSpec, ScoringStrategy};
pub use node_affinity::NodeAffinity;
pub use node_simple::{NodeName, NodePorts, NodeUnschedulable};
pub use queueing::{PrioritySort, SchedulingGates};
pub use taint_toleration::TaintToleration;

use crate::framework::{Profile, Registration};

/// Adds the default plugins in their order, with their default weights (`getDefaultPlugins`).
pub(crate) fn kubernetes(profile: Profile) -> Profile {
    profile
        .with(Registration::new(SchedulingGates).pre_enqueue())
        .with(Registration::new(NodeUnschedulable).filter())
        .with(Registration::new(NodeName).filter())
        .with(Registration::new(TaintToleration).filter().pre_score().score(3))
        .with(Registration::new(NodeAffinity).pre_filter().filter().pre_score().score(2))
        .with(Registration::new(NodePorts).pre_filter().filter())
        .with(Registration::new(NodeResourcesFit::default()).filter().score(1))
        .with(Registration::new(NodeResourcesBalancedAllocation::default()).pre_score().score(1))
}
