//! What arguments of the default plugins must be (Kubernetes' `validation_pluginargs.go`).

use std::collections::BTreeSet;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde_json::json;

use super::{
    FieldError,
    args::{
        DefaultPreemptionArgs, DynamicResourcesArgs, InterPodAffinityArgs, NodeAffinityArgs,
        NodeResourcesBalancedAllocationArgs, NodeResourcesFitArgs, PodTopologySpreadArgs, ResourceWeight, ShapePoint,
        VolumeBindingArgs,
    },
    duration::text,
    names::qualified_name,
    selector,
};

type Errors = Vec<FieldError>;

pub(super) fn default_preemption(args: &DefaultPreemptionArgs, path: &str, errors: &mut Errors) {
    let (percentage, absolute) = (args.min_candidate_nodes_percentage, args.min_candidate_nodes_absolute);
    let percentage_path = format!("{path}.minCandidateNodesPercentage");
    let absolute_path = format!("{path}.minCandidateNodesAbsolute");
    if !(0..=100).contains(&percentage) {
        errors.push(FieldError::invalid(&percentage_path, percentage, "not in valid range [0, 100]"));
    }
    if absolute < 0 {
        errors.push(FieldError::invalid(&absolute_path, absolute, "not in valid range [0, inf)"));
    }
    if percentage == 0 && absolute == 0 {
        let detail = |other| format!("cannot be zero at the same time as {other}");
        errors.push(FieldError::invalid(percentage_path, 0, detail("minCandidateNodesAbsolute")));
        errors.push(FieldError::invalid(absolute_path, 0, detail("minCandidateNodesPercentage")));
    }
}

pub(super) fn inter_pod_affinity(args: &InterPodAffinityArgs, path: &str, errors: &mut Errors) {
    let weight = args.hard_pod_affinity_weight;
    if !(0..=100).contains(&weight) {
        errors.push(FieldError::invalid(
            format!("{path}.hardPodAffinityWeight"),
            weight,
            "not in valid range [0, 100]",
        ));
    }
}

pub(super) fn node_affinity(args: &NodeAffinityArgs, path: &str, errors: &mut Errors) {
    let Some(affinity) = &args.added_affinity else { return };
    let path = format!("{path}.addedAffinity");
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            selector::term(term, &format!("{path}[{index}]"), errors);
        }
    }
    for (index, term) in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
        let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        selector::term(&term.preference, &path, errors);
    }
}

pub(super) fn node_resources_fit(args: &NodeResourcesFitArgs, path: &str, errors: &mut Errors) {
    for (index, name) in args.ignored_resources.iter().enumerate() {
        qualified_name(name, &format!("{path}.ignoredResources[{index}]"), errors);
    }
    for (index, group) in args.ignored_resource_groups.iter().enumerate() {
        let path = format!("{path}.ignoredResourceGroups[{index}]");
        if group.contains('/') {
            errors.push(FieldError::invalid(&path, group.as_str(), "resource group name can't contain '/'"));
        }
        qualified_name(group, &path, errors);
    }
    let Some(strategy) = &args.scoring_strategy else { return };
    let path = format!("{path}.scoringStrategy");
    let supported = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    if !supported.contains(&strategy.kind.as_str()) {
        errors.push(FieldError::not_supported(format!("{path}.type"), &strategy.kind, &supported));
    }
    for (index, resource) in ResourceWeight::or_default(&strategy.resources).iter().enumerate() {
        if !(1..=100).contains(&resource.weight) {
            let detail = format!("resource weight of {} not in valid range (0, 100]", resource.name);
            errors.push(FieldError::invalid(format!("{path}.resources[{index}].weight"), resource.weight, detail));
        }
    }
    let ratio = format!("{path}.requestedToCapacityRatio");
    match (strategy.kind == "RequestedToCapacityRatio", &strategy.requested_to_capacity_ratio) {
        (true, None) => {
            errors.push(FieldError::required(ratio, "must be specified when type is RequestedToCapacityRatio"));
        }
        (true, Some(function)) => shape(&function.shape, &format!("{ratio}.shape"), errors),
        (false, Some(_)) => {
            errors.push(FieldError::forbidden(ratio, "must be nil when type is not RequestedToCapacityRatio"));
        }
        (false, None) => {}
    }
}

/// A function has points, by rising utilisation.
fn shape(points: &[ShapePoint], path: &str, errors: &mut Errors) {
    if points.is_empty() {
        errors.push(FieldError::required(path, "at least one point must be specified"));
    }
    if let Some(before) = points.windows(2).position(|pair| pair[0].utilization >= pair[1].utilization) {
        let path = format!("{path}[{}].utilization", before + 1);
        let detail = "values must be sorted in increasing order";
        errors.push(FieldError::invalid(path, points[before + 1].utilization, detail));
    }
    for (index, point) in points.iter().enumerate() {
        let mut within = |field: &str, value: i32, most: i32| {
            if !(0..=most).contains(&value) {
                let detail = format!("not in valid range [0, {most}]");
                errors.push(FieldError::invalid(format!("{path}[{index}].{field}"), value, detail));
            }
        };
        within("utilization", point.utilization, 100);
        within("score", point.score, 10);
    }
}

pub(super) fn balanced_allocation(args: &NodeResourcesBalancedAllocationArgs, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, resource) in ResourceWeight::or_default(&args.resources).iter().enumerate() {
        let path = format!("{path}.resources[{index}]");
        if !seen.insert(resource.name.clone()) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &resource.name));
        }
        if resource.weight != 1 {
            errors.push(FieldError::invalid(format!("{path}.weight"), resource.weight, "must be 1"));
        }
    }
}

pub(super) fn topology_spread(args: &PodTopologySpreadArgs, path: &str, errors: &mut Errors) {
    let kind = args.defaulting_type.as_str();
    let kind_path = format!("{path}.defaultingType");
    match kind {
        // Empty is the default, which is System.
        "" | "System" if !args.default_constraints.is_empty() => {
            errors.push(FieldError::invalid(kind_path, "System", "when .defaultConstraints are not empty"));
        }
        "" | "System" | "List" => {}
        other => errors.push(FieldError::not_supported(kind_path, other, &["System", "List"])),
    }
    for (index, constraint) in args.default_constraints.iter().enumerate() {
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == constraint.when_unsatisfiable
        };
        let path = format!("{path}.defaultConstraints[{index}]");
        default_constraint(constraint, &path, errors);
        if args.default_constraints[..index].iter().any(same) {
            let value = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.push(FieldError::duplicate(path, &value));
        }
    }
}

fn default_constraint(constraint: &TopologySpreadConstraint, path: &str, errors: &mut Errors) {
    if constraint.max_skew <= 0 {
        errors.push(FieldError::invalid(format!("{path}.maxSkew"), constraint.max_skew, "not in valid range (0, inf)"));
    }
    if constraint.topology_key.is_empty() {
        errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty"));
    } else {
        qualified_name(&constraint.topology_key, &format!("{path}.topologyKey"), errors);
    }
    let when = format!("{path}.whenUnsatisfiable");
    match constraint.when_unsatisfiable.as_str() {
        "" => errors.push(FieldError::required(when, "can not be empty")),
        "DoNotSchedule" | "ScheduleAnyway" => {}
        other => errors.push(FieldError::not_supported(when, other, &["DoNotSchedule", "ScheduleAnyway"])),
    }
    if constraint.label_selector.is_some() {
        let detail = "constraint must not define a selector, as they deduced for each pod";
        errors.push(FieldError::forbidden(format!("{path}.labelSelector"), detail));
    }
}

pub(super) fn volume_binding(args: &VolumeBindingArgs, path: &str, errors: &mut Errors) {
    if args.bind_timeout_seconds < 0 {
        errors.push(FieldError::invalid(
            format!("{path}.bindTimeoutSeconds"),
            args.bind_timeout_seconds,
            "invalid BindTimeoutSeconds, should not be a negative value",
        ));
    }
    if let Some(shape) = &args.shape {
        let detail = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
        errors.push(FieldError::invalid(format!("{path}.shape"), json!(shape), detail));
    }
}

pub(super) fn dynamic_resources(args: &DynamicResourcesArgs, path: &str, errors: &mut Errors) {
    let mut at_least = |field: &str, value: Option<SignedDuration>, least: SignedDuration, detail: &str| {
        if let Some(value) = value.filter(|value| *value < least) {
            errors.push(FieldError::invalid(format!("{path}.{field}"), text(&value), detail));
        }
    };
    at_least("filterTimeout", args.filter_timeout, SignedDuration::ZERO, "must be zero or positive");
    at_least("bindingTimeout", args.binding_timeout, SignedDuration::from_secs(1), "must be at least 1 second");
}
