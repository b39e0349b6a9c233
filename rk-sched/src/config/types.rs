//! The objects of `kubescheduler.config.k8s.io/v1`.
//!
//! The fields are those of the API reference
//! (<https://kubernetes.io/docs/reference/config-api/kube-scheduler-config.v1/>); what is absent has Kubernetes' default.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::duration;

/// Group and version of the format.
pub const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
/// The kind of the whole file.
pub const KIND: &str = "KubeSchedulerConfiguration";

/// The configuration of a scheduler, as in the file that kube-scheduler's `--config` names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeSchedulerConfiguration {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// How many goroutines kube-scheduler tries nodes with; 16. A cycle here runs on one thread, so this is of no effect.
    pub parallelism: i32,
    /// How one of several schedulers comes to work.
    pub leader_election: LeaderElection,
    /// How the API server is reached.
    pub client_connection: ClientConnection,
    /// Whether profiles of the Go runtime are served; `true`. Of no effect here.
    pub enable_profiling: bool,
    /// Whether profiles of lock contention are served; `true`. Of no effect here.
    pub enable_contention_profiling: bool,
    /// How many percent of the nodes have to fit a pod before no more are tried; 0 chooses by the size of the cluster.
    pub percentage_of_nodes_to_score: i32,
    /// The first back-off of an unschedulable pod in seconds; 1.
    pub pod_initial_backoff_seconds: i64,
    /// The longest back-off in seconds; 10.
    pub pod_max_backoff_seconds: i64,
    /// The profiles; by default one of the default plugins for `default-scheduler`.
    pub profiles: Vec<KubeSchedulerProfile>,
    /// HTTP servers that take part in all profiles' decisions.
    pub extenders: Vec<ExtenderSettings>,
    /// Whether one that does not lead waits with its informers until it does; `false`. Here a scheduler that does not lead does nothing at all.
    pub delay_cache_until_active: bool,
}

impl Default for KubeSchedulerConfiguration {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            parallelism: 16,
            leader_election: LeaderElection::default(),
            client_connection: ClientConnection::default(),
            enable_profiling: true,
            enable_contention_profiling: true,
            percentage_of_nodes_to_score: 0,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            profiles: Vec::new(),
            extenders: Vec::new(),
            delay_cache_until_active: false,
        }
    }
}

/// How one of several schedulers comes to work (`LeaderElectionConfiguration` of component-base).
///
/// Election is a wrapper around [`Scheduler`](crate::Scheduler), not a part of it: whoever assembles a program makes an elector of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaderElection {
    /// Whether there is an election; `true`.
    pub leader_elect: bool,
    /// How long others wait after the last renewal before they take over; 15 s.
    #[serde(with = "duration")]
    pub lease_duration: SignedDuration,
    /// How long the leader tries to renew before it gives up; 10 s.
    #[serde(with = "duration")]
    pub renew_deadline: SignedDuration,
    /// How often is tried; 2 s.
    #[serde(with = "duration")]
    pub retry_period: SignedDuration,
    /// The kind of object that is competed for; only `leases`.
    pub resource_lock: String,
    /// Its name; `kube-scheduler`.
    pub resource_name: String,
    /// Its namespace; `kube-system`.
    pub resource_namespace: String,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            leader_elect: true,
            lease_duration: SignedDuration::from_secs(15),
            renew_deadline: SignedDuration::from_secs(10),
            retry_period: SignedDuration::from_secs(2),
            resource_lock: "leases".to_owned(),
            resource_name: "kube-scheduler".to_owned(),
            resource_namespace: "kube-system".to_owned(),
        }
    }
}

/// How the API server is reached (`ClientConnectionConfiguration` of component-base). Whoever assembles a program makes a
/// [`Client`](rk_api::Client) of this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// Path of a kubeconfig; empty for the cluster that the program runs in.
    pub kubeconfig: String,
    /// What is asked for in place of JSON. Of no effect here.
    pub accept_content_types: String,
    /// What is sent; `application/vnd.kubernetes.protobuf`. Of no effect here.
    pub content_type: String,
    /// Requests per second that the client limits itself to; 50. Of no effect here: the server's priority and fairness limits clients.
    pub qps: f32,
    /// Requests at once beyond that; 100. Of no effect here.
    pub burst: i32,
}

impl Default for ClientConnection {
    fn default() -> Self {
        Self {
            kubeconfig: String::new(),
            accept_content_types: String::new(),
            content_type: "application/vnd.kubernetes.protobuf".to_owned(),
            qps: 50.0,
            burst: 100,
        }
    }
}

/// A set of plugins that schedules the pods of one `schedulerName`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeSchedulerProfile {
    /// The `schedulerName` it answers to; `default-scheduler` if there is only this profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// In place of the configuration's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage_of_nodes_to_score: Option<i32>,
    /// Which plugins are in use besides or instead of the default ones.
    pub plugins: Plugins,
    /// Arguments of plugins; those of others are the defaults.
    pub plugin_config: Vec<PluginConfig>,
}

/// Which plugins are in use where. A setting at an extension point goes before one in `multi_point`, which goes before the default plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plugins {
    /// At PreEnqueue.
    pub pre_enqueue: PluginSet,
    /// At QueueSort; the same one in all profiles.
    pub queue_sort: PluginSet,
    /// At PreFilter.
    pub pre_filter: PluginSet,
    /// At Filter.
    pub filter: PluginSet,
    /// At PostFilter.
    pub post_filter: PluginSet,
    /// At PreScore.
    pub pre_score: PluginSet,
    /// At Score.
    pub score: PluginSet,
    /// At Reserve.
    pub reserve: PluginSet,
    /// At Permit.
    pub permit: PluginSet,
    /// At PreBind.
    pub pre_bind: PluginSet,
    /// At Bind.
    pub bind: PluginSet,
    /// At PostBind.
    pub post_bind: PluginSet,
    /// At all extension points that the plugin has.
    pub multi_point: PluginSet,
}

/// What is changed at an extension point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginSet {
    /// Plugins that are added, in this order; a default one gets this weight.
    pub enabled: Vec<PluginUse>,
    /// Default plugins that are left out; `*` is all of them.
    pub disabled: Vec<PluginUse>,
}

/// A plugin by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginUse {
    /// The name.
    pub name: String,
    /// What its scores are multiplied by; absent or 0 is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

/// The arguments of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginConfig {
    /// The plugin's name.
    pub name: String,
    /// Its arguments: an object of the kind NAME`Args` for a default plugin, anything for another.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub args: Value,
}

/// An HTTP server that takes part in decisions (`Extender`). It is asked with POST at `url_prefix`/VERB; without the verb it takes no
/// part in that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtenderSettings {
    /// Where it is.
    pub url_prefix: String,
    /// For the nodes that fit: which of them do.
    pub filter_verb: String,
    /// For the nodes where pods would have to go: on which they may, and who.
    pub preempt_verb: String,
    /// For scores from 0 to 10.
    pub prioritize_verb: String,
    /// What its scores are multiplied by; at least 1 with `prioritize_verb`.
    pub weight: i64,
    /// For binding, in place of the Bind plugins. One extender at most has it.
    pub bind_verb: String,
    /// Whether the server speaks TLS. Without authorities in `tls_config` any certificate is believed, as kube-scheduler does.
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    /// Whom to believe, and how to show oneself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<ExtenderTls>,
    /// How long it may take to answer; 0 is 5 s.
    #[serde(with = "duration", rename = "httpTimeout")]
    pub http_timeout: SignedDuration,
    /// Whether it knows the nodes itself, so that only their names are sent.
    pub node_cache_capable: bool,
    /// The extended resources it manages: it is asked for pods that ask for one of these only. Empty for all pods.
    pub managed_resources: Vec<ExtenderManagedResource>,
    /// Whether scheduling goes on without it where it fails.
    pub ignorable: bool,
}

/// An extended resource that an extender manages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtenderManagedResource {
    /// Its name.
    pub name: String,
    /// Whether NodeResourcesFit leaves it alone.
    pub ignored_by_scheduler: bool,
}

/// TLS with an extender. Data (base64 of PEM) goes before the file of its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtenderTls {
    /// Believes any certificate.
    pub insecure: bool,
    /// The name in the server's certificate; empty for the host of the URL.
    pub server_name: String,
    /// File of the certificate to show.
    pub cert_file: String,
    /// File of its key.
    pub key_file: String,
    /// File of the authorities.
    pub ca_file: String,
    /// The certificate to show.
    pub cert_data: String,
    /// Its key.
    pub key_data: String,
    /// The authorities.
    pub ca_data: String,
}
