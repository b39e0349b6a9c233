//! What a configuration must be (Kubernetes' `ValidateKubeSchedulerConfiguration`), as far as that needs no plugins.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::{
    ClientConnection, ExtenderSettings, FieldError, KubeSchedulerConfiguration, KubeSchedulerProfile, LeaderElection,
    duration::text,
    names::{is_extended_resource, qualified_name},
    types::{API_VERSION, KIND},
};

type Errors = Vec<FieldError>;

pub(super) fn configuration(configuration: &KubeSchedulerConfiguration, errors: &mut Errors) {
    let given = (configuration.api_version.as_str(), configuration.kind.as_str());
    if given != (API_VERSION, KIND) {
        let reason = format!("no kind {:?} is registered for version {:?}", given.1, given.0);
        errors.push(FieldError::new("", reason));
    }
    client_connection(&configuration.client_connection, errors);
    leader_election(&configuration.leader_election, errors);
    if configuration.parallelism <= 0 {
        let detail = "should be an integer value greater than zero";
        errors.push(FieldError::invalid("parallelism", configuration.parallelism, detail));
    }
    profiles(&configuration.profiles, errors);
    percentage(configuration.percentage_of_nodes_to_score, "percentageOfNodesToScore", errors);
    let (first, longest) = (configuration.pod_initial_backoff_seconds, configuration.pod_max_backoff_seconds);
    if first <= 0 {
        errors.push(FieldError::invalid("podInitialBackoffSeconds", first, "must be greater than 0"));
    }
    if longest < first {
        let detail = "must be greater than or equal to PodInitialBackoffSeconds";
        errors.push(FieldError::invalid("podMaxBackoffSeconds", longest, detail));
    }
    extenders(&configuration.extenders, errors);
}

fn client_connection(connection: &ClientConnection, errors: &mut Errors) {
    if connection.burst < 0 {
        errors.push(FieldError::invalid("clientConnection.burst", connection.burst, "must be non-negative"));
    }
}

/// By so much a wait for the next try is longer at the most (`leaderelection.JitterFactor`).
const JITTER_FACTOR: f64 = 1.2;

fn leader_election(election: &LeaderElection, errors: &mut Errors) {
    if !election.leader_elect {
        return;
    }
    let (lease, renew, retry) = (election.lease_duration, election.renew_deadline, election.retry_period);
    let mut wrong = |field: &str, value: SignedDuration, detail: &str| {
        errors.push(FieldError::invalid(format!("leaderElection.{field}"), text(&value), detail));
    };
    for (field, value) in [("leaseDuration", lease), ("renewDeadline", renew), ("retryPeriod", retry)] {
        if value <= SignedDuration::ZERO {
            wrong(field, value, "must be greater than zero");
        }
    }
    if lease <= renew {
        wrong("leaseDuration", renew, "LeaseDuration must be greater than RenewDeadline");
    }
    if renew <= retry {
        wrong("renewDeadline", retry, "RenewDeadline must be greater than RetryPeriod");
    } else if renew.as_secs_f64() <= JITTER_FACTOR * retry.as_secs_f64() {
        // client-go's elector refuses it.
        wrong("renewDeadline", renew, "renewDeadline must be greater than retryPeriod*JitterFactor");
    }
    if election.resource_lock != "leases" {
        errors.push(FieldError::invalid(
            "leaderElection.resourceLock",
            election.resource_lock.as_str(),
            "resourceLock value must be \"leases\"",
        ));
    }
}

/// Of a configuration or a profile.
fn percentage(percentage: i32, path: &str, errors: &mut Errors) {
    if !(0..=100).contains(&percentage) {
        errors.push(FieldError::invalid(path, percentage, "not in valid range [0-100]"));
    }
}

fn profiles(profiles: &[KubeSchedulerProfile], errors: &mut Errors) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, profile) in profiles.iter().enumerate() {
        let path = format!("profiles[{index}]");
        let name = profile.scheduler_name.as_deref().unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.schedulerName"), ""));
        }
        if let Some(first) = names.insert(name, index) {
            let other = format!("profiles[{first}].schedulerName");
            errors.push(FieldError::duplicate(format!("{path}.schedulerName"), &other));
        }
        if let Some(percent) = profile.percentage_of_nodes_to_score {
            percentage(percent, &format!("{path}.percentageOfNodesToScore"), errors);
        }
        let mut configured = BTreeSet::new();
        for (index, config) in profile.plugin_config.iter().enumerate() {
            if !configured.insert(config.name.as_str()) {
                errors.push(FieldError::duplicate(format!("{path}.pluginConfig[{index}]"), &config.name));
            }
        }
    }
    let Some((first, others)) = profiles.split_first() else { return };
    let sorts = &first.plugins.queue_sort;
    if sorts.enabled.len() > 1 {
        let path = "profiles[0].plugins.queueSort.enabled";
        errors.push(FieldError::invalid(path, sorts.enabled.len(), "only one queue sort plugin can be enabled"));
    }
    let sorter = sorts.enabled.first().map(|plugin| plugin.name.as_str());
    let args = |profile: &KubeSchedulerProfile| {
        profile
            .plugin_config
            .iter()
            .find(|config| Some(config.name.as_str()) == sorter)
            .map(|config| config.args.clone())
    };
    for (index, profile) in others.iter().enumerate() {
        let path = format!("profiles[{}]", index + 1);
        if profile.plugins.queue_sort != *sorts {
            let value = serde_json::to_value(&profile.plugins.queue_sort).unwrap_or_default();
            let detail = "must be the same for all profiles";
            errors.push(FieldError::invalid(format!("{path}.plugins.queueSort"), value, detail));
        }
        if let Some(value) = args(profile).filter(|value| Some(value) != args(first).as_ref()) {
            let detail = "queueSort must be the same for all profiles";
            errors.push(FieldError::invalid(format!("{path}.pluginConfig.args"), value, detail));
        }
    }
}

fn extenders(extenders: &[ExtenderSettings], errors: &mut Errors) {
    let mut managed = BTreeSet::new();
    for (index, extender) in extenders.iter().enumerate() {
        let path = format!("extenders[{index}]");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let detail = "must have a positive weight applied to it";
            errors.push(FieldError::invalid(format!("{path}.weight"), extender.weight, detail));
        }
        for (index, resource) in extender.managed_resources.iter().enumerate() {
            let (name, path) = (resource.name.as_str(), format!("{path}.managedResources[{index}].name"));
            let before = errors.len();
            qualified_name(name, &path, errors);
            if errors.len() == before && !is_extended_resource(name) {
                errors.push(FieldError::invalid(&path, name, "is an invalid extended resource name"));
            }
            if !managed.insert(name) {
                errors.push(FieldError::invalid(path, name, "duplicate extender managed resource name"));
            }
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let value = format!("found {binders} extenders implementing bind");
        errors.push(FieldError::invalid("extenders", value, "only one extender can implement bind"));
    }
}
