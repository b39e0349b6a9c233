//! From the arguments of a configuration to the default plugins that have them.

use std::{borrow::Cow, time::Duration};

use jiff::SignedDuration;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    FieldError,
    args::{
        DefaultPreemptionArgs, DynamicResourcesArgs, InterPodAffinityArgs, NodeAffinityArgs,
        NodeResourcesBalancedAllocationArgs, NodeResourcesFitArgs, PodTopologySpreadArgs, ResourceWeight,
        ScoringStrategyArgs, VolumeBindingArgs,
    },
    decode::decode,
    types::API_VERSION,
    validate_args as validate,
};
use crate::plugins::{
    DefaultPlugins, DefaultPreemption, DynamicResources, InterPodAffinity, NodeAffinity,
    NodeResourcesBalancedAllocation, NodeResourcesFit, PodTopologySpread, ResourceSpec, ScoringStrategy, VolumeBinding,
};

type Errors = Vec<FieldError>;

/// Takes the arguments of a default plugin over. What is wrong with them is told.
pub(super) fn configure(name: &str, args: &Value, path: &str, plugins: &mut DefaultPlugins, errors: &mut Errors) {
    match name {
        "NodeAffinity" => {
            if let Some(args) = read(name, args, path, validate::node_affinity, errors) {
                plugins.node_affinity = node_affinity(args);
            }
        }
        "NodeResourcesFit" => {
            if let Some(args) = read(name, args, path, validate::node_resources_fit, errors) {
                plugins.fit = fit(args);
            }
        }
        "NodeResourcesBalancedAllocation" => {
            if let Some(args) = read(name, args, path, validate::balanced_allocation, errors) {
                plugins.balanced_allocation = balanced_allocation(&args);
            }
        }
        "PodTopologySpread" => {
            if let Some(args) = read(name, args, path, validate::topology_spread, errors) {
                plugins.topology_spread = topology_spread(args);
            }
        }
        "InterPodAffinity" => {
            if let Some(args) = read(name, args, path, validate::inter_pod_affinity, errors) {
                plugins.inter_pod_affinity = inter_pod_affinity(&args);
            }
        }
        "DefaultPreemption" => {
            if let Some(args) = read(name, args, path, validate::default_preemption, errors) {
                plugins.preemption = preemption(&args);
            }
        }
        "VolumeBinding" => {
            if let Some(args) = read(name, args, path, validate::volume_binding, errors) {
                plugins.volume_binding = volume_binding(&args);
            }
        }
        "DynamicResources" => {
            if let Some(args) = read(name, args, path, validate::dynamic_resources, errors) {
                plugins.dynamic_resources = dynamic_resources(&args);
            }
        }
        _ if args.is_null() || args.as_object().is_some_and(serde_json::Map::is_empty) => {}
        // As in kube-scheduler, which has no type for them.
        _ => tracing::warn!(plugin = name, field = path, "the plugin has no arguments: they are left out"),
    }
}

/// The arguments as their type, if they are right.
fn read<A: DeserializeOwned + Serialize + Default>(
    name: &str,
    args: &Value,
    path: &str,
    validate: fn(&A, &str, &mut Errors),
    errors: &mut Errors,
) -> Option<A> {
    let before = errors.len();
    let mut args = if args.is_null() { Value::Object(serde_json::Map::new()) } else { args.clone() };
    if let Some(fields) = args.as_object_mut() {
        let kind = fields.remove("kind").unwrap_or_default();
        let version = fields.remove("apiVersion").unwrap_or_default();
        let expected = format!("{name}Args");
        if !(kind.is_null() || kind == expected.as_str()) || !(version.is_null() || version == API_VERSION) {
            let reason = format!("args for plugin {name} were not of type {expected} of {API_VERSION}");
            errors.push(FieldError::new(path, format!("{reason}, got {kind} of {version}")));
        }
    }
    let args: A = decode(&args, path, errors)?;
    validate(&args, path, errors);
    (errors.len() == before).then_some(args)
}

fn specs(resources: &[ResourceWeight]) -> Vec<ResourceSpec> {
    let spec = |resource: ResourceWeight| ResourceSpec { name: Cow::Owned(resource.name), weight: resource.weight };
    ResourceWeight::or_default(resources).into_iter().map(spec).collect()
}

fn node_affinity(args: NodeAffinityArgs) -> NodeAffinity {
    args.added_affinity.as_ref().map(NodeAffinity::with_added).unwrap_or_default()
}

fn fit(args: NodeResourcesFitArgs) -> NodeResourcesFit {
    let strategy = args
        .scoring_strategy
        .unwrap_or_else(|| ScoringStrategyArgs { kind: "LeastAllocated".to_owned(), ..ScoringStrategyArgs::default() });
    let points = strategy.requested_to_capacity_ratio.map(|function| function.shape).unwrap_or_default();
    let points = points.iter().map(|point| (i64::from(point.utilization), i64::from(point.score))).collect();
    NodeResourcesFit {
        strategy: match strategy.kind.as_str() {
            "MostAllocated" => ScoringStrategy::MostAllocated,
            "RequestedToCapacityRatio" => ScoringStrategy::RequestedToCapacityRatio(points),
            _ => ScoringStrategy::LeastAllocated,
        },
        resources: specs(&strategy.resources),
        ignored: args.ignored_resources,
        ignored_groups: args.ignored_resource_groups,
    }
}

fn balanced_allocation(args: &NodeResourcesBalancedAllocationArgs) -> NodeResourcesBalancedAllocation {
    NodeResourcesBalancedAllocation { resources: specs(&args.resources) }
}

fn topology_spread(args: PodTopologySpreadArgs) -> PodTopologySpread {
    PodTopologySpread { defaults: (args.defaulting_type == "List").then_some(args.default_constraints) }
}

fn inter_pod_affinity(args: &InterPodAffinityArgs) -> InterPodAffinity {
    InterPodAffinity {
        hard_affinity_weight: args.hard_pod_affinity_weight.into(),
        ignore_preferences_of_existing_pods: args.ignore_preferred_terms_of_existing_pods,
    }
}

fn preemption(args: &DefaultPreemptionArgs) -> DefaultPreemption {
    let size = |number: i32| usize::try_from(number).unwrap_or(0);
    DefaultPreemption {
        min_candidate_nodes_percentage: size(args.min_candidate_nodes_percentage),
        min_candidate_nodes_absolute: size(args.min_candidate_nodes_absolute),
    }
}

fn volume_binding(args: &VolumeBindingArgs) -> VolumeBinding {
    VolumeBinding { bind_timeout: Duration::from_secs(u64::try_from(args.bind_timeout_seconds).unwrap_or(0)) }
}

fn dynamic_resources(args: &DynamicResourcesArgs) -> DynamicResources {
    let length = |given: Option<SignedDuration>| given.and_then(|length| Duration::try_from(length).ok());
    let defaults = DynamicResources::default();
    DynamicResources::new(
        // Without a value there is no end, as with zero.
        length(args.filter_timeout).unwrap_or_default(),
        length(args.binding_timeout).unwrap_or(defaults.binding_timeout),
    )
}
