//! The plugins of Kubernetes' default profile, under their Kubernetes names.

mod balanced_allocation;
mod claims;
mod default_binder;
mod dynamic_resources;
mod fit;
mod gang_scheduling;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_simple;
mod node_volume_limits;
mod preemption;
mod queueing;
mod scored_resources;
mod taint_toleration;
mod topology_spread;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

pub use balanced_allocation::NodeResourcesBalancedAllocation;
pub use default_binder::DefaultBinder;
#[cfg(feature = "simulate")]
pub(crate) use default_binder::binding_of;
#[cfg(feature = "simulate")]
pub(crate) use dynamic_resources::Allocator;
pub use dynamic_resources::DynamicResources;
pub(crate) use dynamic_resources::release;
pub use fit::{NodeResourcesFit, ScoringStrategy};
pub use gang_scheduling::GangScheduling;
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_simple::{NodeName, NodePorts, NodeUnschedulable};
pub use node_volume_limits::NodeVolumeLimits;
pub use preemption::DefaultPreemption;
pub(crate) use preemption::{LEAVING, best as best_preemption, is_hopeless, split_by_budgets, started};
pub use queueing::{PrioritySort, SchedulingGates};
pub use scored_resources::ResourceSpec;
pub use taint_toleration::TaintToleration;
pub use topology_spread::PodTopologySpread;
pub use volume_binding::VolumeBinding;
pub use volume_restrictions::VolumeRestrictions;
pub use volume_zone::VolumeZone;

use crate::framework::{Profile, Registration};

/// The default plugins that have arguments, with those.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DefaultPlugins {
    /// NodeAffinity.
    pub node_affinity: NodeAffinity,
    /// NodeResourcesFit.
    pub fit: NodeResourcesFit,
    /// VolumeBinding.
    pub volume_binding: VolumeBinding,
    /// PodTopologySpread.
    pub topology_spread: PodTopologySpread,
    /// InterPodAffinity.
    pub inter_pod_affinity: InterPodAffinity,
    /// DynamicResources.
    pub dynamic_resources: DynamicResources,
    /// DefaultPreemption.
    pub preemption: DefaultPreemption,
    /// NodeResourcesBalancedAllocation.
    pub balanced_allocation: NodeResourcesBalancedAllocation,
}

/// Adds the default plugins in their order, with their default weights (`getDefaultPlugins`).
pub(crate) fn kubernetes(profile: Profile, plugins: DefaultPlugins) -> Profile {
    profile
        .with(Registration::new(SchedulingGates).pre_enqueue())
        .with(Registration::new(NodeUnschedulable).filter())
        .with(Registration::new(NodeName).filter())
        .with(Registration::new(TaintToleration).filter().pre_score().score(3))
        .with(Registration::new(plugins.node_affinity).pre_filter().filter().pre_score().score(2))
        .with(Registration::new(NodePorts).pre_filter().filter())
        .with(Registration::new(plugins.fit).pre_filter().filter().pre_score().score(1))
        .with(Registration::new(VolumeRestrictions).pre_filter().filter())
        .with(Registration::new(NodeVolumeLimits).pre_filter().filter())
        .with(Registration::new(plugins.volume_binding).pre_filter().filter().reserve().pre_bind())
        .with(Registration::new(VolumeZone).pre_filter().filter())
        .with(Registration::new(plugins.topology_spread).pre_filter().filter().pre_score().score(2))
        .with(Registration::new(plugins.inter_pod_affinity).pre_filter().filter().pre_score().score(2))
        .with(
            Registration::new(plugins.dynamic_resources)
                .pre_enqueue()
                .pre_filter()
                .filter()
                .post_filter()
                .score(1)
                .reserve()
                .pre_bind(),
        )
        .with(Registration::new(plugins.preemption).post_filter())
        .with(Registration::new(plugins.balanced_allocation).pre_score().score(1))
        .with(Registration::new(ImageLocality).pre_score().score(1))
}
