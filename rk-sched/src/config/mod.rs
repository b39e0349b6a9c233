//! Kubernetes' configuration file for schedulers: `KubeSchedulerConfiguration` of `kubescheduler.config.k8s.io/v1`.
//!
//! [`KubeSchedulerConfiguration::from_json`] reads it strictly, and [`SchedulerConfig::from_json`] makes the scheduler's settings of it,
//! with the plugins of a [`Registry`]. What is wrong is told all at once, each thing with the path of its field, in Kubernetes' words:
//!
//! ```
//! use rk_sched::{SchedulerConfig, config::Registry};
//! use serde_json::json;
//!
//! let error = SchedulerConfig::from_json(
//!     &json!({
//!         "apiVersion": "kubescheduler.config.k8s.io/v1",
//!         "kind": "KubeSchedulerConfiguration",
//!         "podMaxBackoffSeconds": 0,
//!         "profiles": [{"pluginConfig": [
//!             {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "Least"}}},
//!         ]}],
//!     }),
//!     &Registry::kubernetes(),
//! );
//! assert_eq!(
//!     error.err().unwrap().to_string(),
//!     "[podMaxBackoffSeconds: Invalid value: 0: must be greater than or equal to PodInitialBackoffSeconds, \
//!      profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"Least\": supported values: \
//!      \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"]"
//! );
//! ```
//!
//! A file in YAML is read with any YAML crate of serde's into a [`serde_json::Value`] first.

mod args;
mod decode;
mod duration;
mod error;
mod extenders;
mod names;
mod own_args;
mod profile;
mod registry;
mod selector;
mod sets;
mod types;
mod validate;
mod validate_args;

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

pub use args::{
    DefaultPreemptionArgs, DynamicResourcesArgs, InterPodAffinityArgs, NodeAffinityArgs,
    NodeResourcesBalancedAllocationArgs, NodeResourcesFitArgs, PodTopologySpreadArgs, RequestedToCapacityRatioArgs,
    ResourceWeight, ScoringStrategyArgs, ShapePoint, VolumeBindingArgs,
};
pub use error::{ConfigurationError, FieldError};
pub use registry::{ArgsError, PluginArgs, Registry};
pub use types::{
    API_VERSION, ClientConnection, ExtenderManagedResource, ExtenderSettings, ExtenderTls, KIND,
    KubeSchedulerConfiguration, KubeSchedulerProfile, LeaderElection, PluginConfig, PluginSet, PluginUse, Plugins,
};

use crate::SchedulerConfig;

impl KubeSchedulerConfiguration {
    /// Reads a configuration. What is absent has its default; arguments of plugins stay as they are.
    ///
    /// # Errors
    /// Everything that is wrong with it as far as that can be told without the plugins.
    pub fn from_json(value: &Value) -> Result<Self, ConfigurationError> {
        let mut errors = Vec::new();
        let read = Self::read(value, &mut errors);
        ConfigurationError::check(errors)?;
        Ok(read.unwrap_or_default())
    }

    fn read(value: &Value, errors: &mut Vec<FieldError>) -> Option<Self> {
        for field in ["apiVersion", "kind"] {
            if value.is_object() && value.get(field).is_none_or(Value::is_null) {
                errors.push(FieldError::required(field, ""));
            }
        }
        let read = decode::decode::<Self>(value, "", errors)?.defaulted();
        validate::configuration(&read, errors);
        Some(read)
    }

    /// With the defaults that Kubernetes has for empty texts, zeros and empty lists.
    fn defaulted(mut self) -> Self {
        fn or<T: PartialEq + Default>(value: &mut T, default: T) {
            if *value == T::default() {
                *value = default;
            }
        }
        let election = LeaderElection::default();
        or(&mut self.leader_election.lease_duration, election.lease_duration);
        or(&mut self.leader_election.renew_deadline, election.renew_deadline);
        or(&mut self.leader_election.retry_period, election.retry_period);
        or(&mut self.leader_election.resource_lock, election.resource_lock);
        or(&mut self.leader_election.resource_name, election.resource_name);
        or(&mut self.leader_election.resource_namespace, election.resource_namespace);
        let connection = ClientConnection::default();
        or(&mut self.client_connection.content_type, connection.content_type);
        or(&mut self.client_connection.qps, connection.qps);
        or(&mut self.client_connection.burst, connection.burst);
        or(&mut self.profiles, vec![KubeSchedulerProfile::default()]);
        if let [only] = &mut self.profiles[..] {
            only.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
        }
        for extender in &mut self.extenders {
            or(&mut extender.http_timeout, SignedDuration::from_secs(5));
        }
        self
    }

    /// The fields that are set to something else than their default and are of no effect here, for a warning.
    pub fn unused_fields(&self) -> Vec<&'static str> {
        let default = Self::default();
        let (connection, plain) = (&self.client_connection, &default.client_connection);
        let all = [
            ("parallelism", self.parallelism != default.parallelism),
            ("enableProfiling", self.enable_profiling != default.enable_profiling),
            ("enableContentionProfiling", self.enable_contention_profiling != default.enable_contention_profiling),
            ("delayCacheUntilActive", self.delay_cache_until_active),
            ("clientConnection.acceptContentTypes", connection.accept_content_types != plain.accept_content_types),
            ("clientConnection.contentType", connection.content_type != plain.content_type),
            ("clientConnection.qps", connection.qps != plain.qps),
            ("clientConnection.burst", connection.burst != plain.burst),
        ];
        all.into_iter().filter(|(_, set)| *set).map(|(field, _)| field).collect()
    }
}

impl SchedulerConfig {
    /// The settings that a configuration file has.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_json(value: &Value, registry: &Registry) -> Result<Self, ConfigurationError> {
        let mut errors = Vec::new();
        let read = KubeSchedulerConfiguration::read(value, &mut errors);
        let config = read.map(|read| Self::build(&read, registry, &mut errors));
        ConfigurationError::check(errors)?;
        Ok(config.unwrap_or_default())
    }

    /// The settings that a configuration has.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_configuration(
        configuration: &KubeSchedulerConfiguration,
        registry: &Registry,
    ) -> Result<Self, ConfigurationError> {
        let mut errors = Vec::new();
        let configuration = configuration.clone().defaulted();
        validate::configuration(&configuration, &mut errors);
        let config = Self::build(&configuration, registry, &mut errors);
        ConfigurationError::check(errors)?;
        Ok(config)
    }

    fn build(configuration: &KubeSchedulerConfiguration, registry: &Registry, errors: &mut Vec<FieldError>) -> Self {
        let profiles = configuration.profiles.iter().enumerate().filter_map(|(index, profile)| {
            profile::build(configuration, profile, &format!("profiles[{index}]"), registry, errors)
        });
        let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let profiles = profiles.collect();
        Self {
            profiles,
            percentage_of_nodes_to_score: u8::try_from(configuration.percentage_of_nodes_to_score).unwrap_or(0),
            extenders: extenders::build(&configuration.extenders, errors),
            initial_backoff: seconds(configuration.pod_initial_backoff_seconds),
            max_backoff: seconds(configuration.pod_max_backoff_seconds),
            ..Self::default()
        }
    }
}
