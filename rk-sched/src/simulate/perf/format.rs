//! The files of scheduler_perf as they are written.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// A test case: a program with parameters, and the workloads that give them values.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TestCase {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: Vec<String>,
    pub(super) default_pod_template_path: Option<PathBuf>,
    pub(super) scheduler_config_path: Option<PathBuf>,
    pub(super) workload_template: Vec<Op>,
    pub(super) workloads: Vec<WorkloadSpec>,
    /// What kube-scheduler's own switches and measurements are means nothing here.
    #[serde(default, rename = "featureGates")]
    pub(super) _feature_gates: Value,
    #[serde(default, rename = "metricsCollectorConfig")]
    pub(super) _metrics_collector_config: Value,
    #[serde(default, rename = "defaultThresholdMetricSelector")]
    pub(super) _default_threshold_metric_selector: Value,
}

/// The values of the parameters.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) params: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) labels: Vec<String>,
    #[serde(default)]
    pub(super) threshold: Value,
    #[serde(default, rename = "featureGates")]
    pub(super) _feature_gates: Value,
    #[serde(default, rename = "thresholdMetricSelector")]
    pub(super) _threshold_metric_selector: Value,
}

/// A number, or the parameter that has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Count {
    pub(super) count: Option<u64>,
    pub(super) count_param: Option<String>,
}

/// An operation.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "opcode", rename_all = "camelCase")]
pub(super) enum Op {
    CreateNodes(CreateNodes),
    CreateNamespaces(CreateNamespaces),
    CreatePods(CreatePods),
    CreatePodSets(CreatePodSets),
    CreateAny(CreateAny),
    UpdateAny(UpdateAny),
    DeletePods(DeletePods),
    Churn(ChurnOp),
    Barrier(Barrier),
    Sleep(Sleep),
    StartCollectingMetrics(StartCollectingMetrics),
    StopCollectingMetrics(Unknown),
    CreateResourceClaims(CreateResourceClaims),
    CreateResourceDriver(CreateResourceDriver),
    AllocResourceClaims(AllocResourceClaims),
}

/// Fields that nothing is known of: a workload that has any is refused by their names.
pub(super) type Rest = BTreeMap<String, Value>;

/// What an operation without fields has.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Unknown {
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateNodes {
    #[serde(flatten)]
    pub(super) count: Count,
    pub(super) node_template_path: Option<PathBuf>,
    pub(super) node_allocatable_strategy: Option<NodeAllocatable>,
    pub(super) label_node_prepare_strategy: Option<LabelNodes>,
    pub(super) unique_node_label_strategy: Option<UniqueLabel>,
    #[serde(default)]
    pub(super) template_params: BTreeMap<String, Value>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeAllocatable {
    #[serde(default)]
    pub(super) node_allocatable: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) csi_node_allocatable: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) migrated_plugins: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LabelNodes {
    pub(super) label_key: String,
    #[serde(default)]
    pub(super) label_values: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UniqueLabel {
    pub(super) label_key: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateNamespaces {
    pub(super) prefix: String,
    #[serde(flatten)]
    pub(super) count: Count,
    pub(super) namespace_template_path: Option<PathBuf>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatePods {
    #[serde(flatten)]
    pub(super) count: Count,
    #[serde(default)]
    pub(super) collect_metrics: bool,
    pub(super) namespace: Option<String>,
    pub(super) pod_template_path: Option<PathBuf>,
    #[serde(default)]
    pub(super) skip_wait_to_completion: bool,
    pub(super) persistent_volume_template_path: Option<PathBuf>,
    pub(super) persistent_volume_claim_template_path: Option<PathBuf>,
    #[serde(default)]
    pub(super) template_params: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) steady_state: bool,
    pub(super) steady_state_param: Option<String>,
    pub(super) duration: Option<String>,
    pub(super) duration_param: Option<String>,
    /// The operation's own name, where it is within another one.
    #[serde(default, rename = "opcode")]
    pub(super) _opcode: Value,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatePodSets {
    #[serde(flatten)]
    pub(super) count: Count,
    pub(super) namespace_prefix: String,
    pub(super) create_pods_op: CreatePods,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateAny {
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) template_path: PathBuf,
    #[serde(flatten)]
    pub(super) count: Count,
    #[serde(default)]
    pub(super) template_params: BTreeMap<String, Value>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateAny {
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) template_path: PathBuf,
    #[serde(flatten)]
    pub(super) count: Count,
    #[serde(default)]
    pub(super) template_params: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) update_per_second: u32,
    /// Through which subresources it is written: what comes of it is the same.
    #[serde(default, rename = "subresources")]
    pub(super) _subresources: Value,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeletePods {
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) label_selector: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) delete_pods_per_second: u32,
    #[serde(default)]
    pub(super) skip_wait_to_completion: bool,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChurnOp {
    pub(super) mode: ChurnMode,
    #[serde(default)]
    pub(super) number: u64,
    pub(super) interval_milliseconds: Option<u64>,
    pub(super) namespace: Option<String>,
    pub(super) template_paths: Vec<PathBuf>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ChurnMode {
    Create,
    Recreate,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Barrier {
    #[serde(default)]
    pub(super) namespaces: Vec<String>,
    #[serde(default)]
    pub(super) label_selector: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) stage_requirement: Stage,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) enum Stage {
    Attempted,
    #[default]
    Scheduled,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sleep {
    pub(super) duration: Option<String>,
    pub(super) duration_param: Option<String>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StartCollectingMetrics {
    /// What the figures are called by.
    #[serde(default, rename = "name")]
    pub(super) _name: Value,
    #[serde(default)]
    pub(super) namespaces: Vec<String>,
    #[serde(default)]
    pub(super) label_selector: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateResourceClaims {
    #[serde(flatten)]
    pub(super) count: Count,
    pub(super) namespace: String,
    pub(super) template_path: PathBuf,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateResourceDriver {
    pub(super) driver_name: String,
    /// The names of its nodes, with `*` and `?` in the place of any.
    #[serde(default)]
    pub(super) nodes: String,
    pub(super) max_claims_per_node: Option<u64>,
    pub(super) max_claims_per_node_param: Option<String>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AllocResourceClaims {
    /// Empty for all.
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

impl Op {
    /// Its name, and the fields that nothing is known of.
    pub(super) fn unknown(&self) -> (&'static str, Vec<&Rest>) {
        match self {
            Self::CreateNodes(op) => ("createNodes", vec![&op.rest]),
            Self::CreateNamespaces(op) => ("createNamespaces", vec![&op.rest]),
            Self::CreatePods(op) => ("createPods", vec![&op.rest]),
            Self::CreatePodSets(op) => ("createPodSets", vec![&op.rest, &op.create_pods_op.rest]),
            Self::CreateAny(op) => ("createAny", vec![&op.rest]),
            Self::UpdateAny(op) => ("updateAny", vec![&op.rest]),
            Self::DeletePods(op) => ("deletePods", vec![&op.rest]),
            Self::Churn(op) => ("churn", vec![&op.rest]),
            Self::Barrier(op) => ("barrier", vec![&op.rest]),
            Self::Sleep(op) => ("sleep", vec![&op.rest]),
            Self::StartCollectingMetrics(op) => ("startCollectingMetrics", vec![&op.rest]),
            Self::StopCollectingMetrics(op) => ("stopCollectingMetrics", vec![&op.rest]),
            Self::CreateResourceClaims(op) => ("createResourceClaims", vec![&op.rest]),
            Self::CreateResourceDriver(op) => ("createResourceDriver", vec![&op.rest]),
            Self::AllocResourceClaims(op) => ("allocResourceClaims", vec![&op.rest]),
        }
    }
}
