//! The scheduler's picture of the cluster.
//!
//! [`PodInfo`] and [`NodeInfo`] hold what plugins ask of a pod or a node, computed once. The
//! [`Snapshot`] holds them all and is changed in place as pods and nodes come and go (its cost is
//! that of the change): a scheduling cycle borrows it, nothing is copied. Pods that look alike to
//! other pods share a [`PodClass`], so that questions about "all pods with such labels" are asked
//! once per class. What plugins read of many nodes is in [`Columns`]; what they counted for one pod and
//! can bring up to date for the next is kept in `memo`.

mod affinity;
mod class;
mod columns;
mod devices;
mod groups;
mod memo;
mod node;
mod pod;
mod resources;
mod snapshot;
mod topology;
pub(crate) mod volumes;
mod workloads;

pub use affinity::{NamespaceLabels, NodeAffinity, NodeTerm, PodAffinity, PodTerm, tolerates, untolerated};
pub use class::{ClassId, ClassKey, PodClass};
pub use columns::{Columns, Mark};
pub use devices::{
    CLAIM_ANNOTATION, Capacity, Consumption, DeviceInfo, DeviceUse, Devices, InFlight, Pool, PoolId, Pools, Slice,
    Stock, TaintRule, Taken, allocation_of, pod_of_extended, uid_of,
};
pub use groups::{GroupKey, PodGroups, group_of};
pub use node::{NodeInfo, PodEntry};
pub use pod::{HostPort, PodInfo};
pub use resources::{DEFAULT_MEMORY, DEFAULT_MILLI_CPU, Resources, pod_requests, pod_requests_nonzero};
pub use snapshot::{NodeIndex, Snapshot};
pub use topology::{PlaceId, Topology};
pub use volumes::{ClaimUse, VolumeInfo, Volumes, claims_of};
pub use workloads::{Budget, Workloads};

pub(crate) use class::Classes;
pub(crate) use memo::{Lazily, Placement};
