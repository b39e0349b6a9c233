//! The arguments of the default plugins, with Kubernetes' defaults.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::{Deserialize, Serialize};

use super::duration;

/// A resource that is scored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceWeight {
    /// Its name, such as `cpu`.
    pub name: String,
    /// From 1 to 100; absent or 0 is 1.
    pub weight: i64,
}

impl ResourceWeight {
    /// Those given, with their weights; cpu and memory alike if none are.
    pub(super) fn or_default(given: &[Self]) -> Vec<Self> {
        if given.is_empty() {
            return ["cpu", "memory"].map(|name| Self { name: name.to_owned(), weight: 1 }).into();
        }
        let weight = |resource: &Self| if resource.weight == 0 { 1 } else { resource.weight };
        given.iter().map(|resource| Self { name: resource.name.clone(), weight: weight(resource) }).collect()
    }
}

/// A point of a function from utilisation to score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShapePoint {
    /// Percent, from 0 to 100.
    pub utilization: i32,
    /// From 0 to 10.
    pub score: i32,
}

/// Arguments of DefaultPreemption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultPreemptionArgs {
    /// At least so many percent of the nodes are candidates; 10.
    pub min_candidate_nodes_percentage: i32,
    /// At least so many nodes are candidates; 100.
    pub min_candidate_nodes_absolute: i32,
}

impl Default for DefaultPreemptionArgs {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

/// Arguments of InterPodAffinity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InterPodAffinityArgs {
    /// What it counts in a node's favour that a pod there must be near pods like this one, from 0 to 100; 1.
    pub hard_pod_affinity_weight: i32,
    /// Whether preferences of pods on nodes count only for pods that have affinity terms themselves; `false`.
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinityArgs {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

/// Arguments of NodeAffinity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinityArgs {
    /// What all pods want of their nodes besides what they ask for themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_affinity: Option<NodeAffinity>,
}

/// Arguments of NodeResourcesFit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeResourcesFitArgs {
    /// Extended resources that Filter leaves alone.
    pub ignored_resources: Vec<String>,
    /// Groups of such: `example.com` stands for all `example.com/...`.
    pub ignored_resource_groups: Vec<String>,
    /// How nodes are scored; LeastAllocated of cpu and memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scoring_strategy: Option<ScoringStrategyArgs>,
}

/// How NodeResourcesFit scores nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScoringStrategyArgs {
    /// `LeastAllocated`, `MostAllocated` or `RequestedToCapacityRatio`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The resources; by default cpu and memory alike.
    pub resources: Vec<ResourceWeight>,
    /// The function of RequestedToCapacityRatio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_to_capacity_ratio: Option<RequestedToCapacityRatioArgs>,
}

/// The function of RequestedToCapacityRatio.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestedToCapacityRatioArgs {
    /// Its points by rising utilisation, straight lines between them.
    pub shape: Vec<ShapePoint>,
}

/// Arguments of NodeResourcesBalancedAllocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeResourcesBalancedAllocationArgs {
    /// The resources, each of weight 1; by default cpu and memory.
    pub resources: Vec<ResourceWeight>,
}

/// Arguments of PodTopologySpread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTopologySpreadArgs {
    /// Constraints, without selectors, for pods that have none. With `List` only.
    pub default_constraints: Vec<TopologySpreadConstraint>,
    /// `System` for Kubernetes' own default constraints, which is the default, or `List` for those above.
    pub defaulting_type: String,
}

impl Default for PodTopologySpreadArgs {
    fn default() -> Self {
        Self { default_constraints: Vec::new(), defaulting_type: "System".to_owned() }
    }
}

/// Arguments of VolumeBinding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeBindingArgs {
    /// How many seconds a pod waits for its volumes; 600.
    pub bind_timeout_seconds: i64,
    /// Refused: the feature it belongs to (StorageCapacityScoring) is off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<ShapePoint>>,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { bind_timeout_seconds: 600, shape: None }
    }
}

/// Arguments of DynamicResources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DynamicResourcesArgs {
    /// How long Filter may look for devices on a node; 10 s. 0 is without end.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub filter_timeout: Option<SignedDuration>,
    /// How long a pod waits for its devices to be ready; 10 min.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub binding_timeout: Option<SignedDuration>,
}

impl Default for DynamicResourcesArgs {
    fn default() -> Self {
        let seconds = |seconds| Some(SignedDuration::from_secs(seconds));
        Self { filter_timeout: seconds(10), binding_timeout: seconds(600) }
    }
}
