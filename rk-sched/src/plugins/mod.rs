//! The plugins of Kubernetes' default profile, under their Kubernetes names.

mod balanced_allocation;
mod default_binder;
mod fit;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_simple;
mod preemption;
mod queueing;
mod taint_toleration;
mod topology_spread;
mod volume_binding;

pub use balanced_allocation::NodeResourcesBalancedAllocation;
pub use default_binder::DefaultBinder;
pub use fit::{NodeResourcesFit, ResourceSpec, ScoringStrategy};
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_simple::{NodeName, NodePorts, NodeUnschedulable};
pub use preemption::DefaultPreemption;
pub use queueing::{PrioritySort, SchedulingGates};
pub use taint_toleration::TaintToleration;
pub use topology_spread::PodTopologySpread;
pub use volume_binding::VolumeBinding;

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
        .with(Registration::new(VolumeBinding::default()).pre_filter().filter().pre_bind())
        .with(Registration::new(PodTopologySpread::default()).pre_filter().filter().pre_score().score(2))
        .with(Registration::new(InterPodAffinity::default()).pre_filter().filter().pre_score().score(2))
        .with(Registration::new(DefaultPreemption::default()).post_filter())
        .with(Registration::new(NodeResourcesBalancedAllocation::default()).pre_score().score(1))
        .with(Registration::new(ImageLocality).pre_score().score(1))
}
