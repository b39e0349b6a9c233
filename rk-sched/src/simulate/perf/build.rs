//! From operations to steps.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use rk_api::LabelSelector;
use serde_json::{Value, json};

use super::{
    super::{
        objects::{self, cluster_scoped},
        pods::full_name,
        template::{Values, has_placeholders, render},
        workload::{Action, Churn, Job, Scope, Stage, Step, Workload},
    },
    PerfError,
    format::{
        Barrier, ChurnMode, ChurnOp, Count, CreateAny, CreateNamespaces, CreateNodes, CreatePods, DeletePods,
        LabelNodes, Op, Sleep, Stage as StageName, TestCase, UpdateAny, WorkloadSpec,
    },
};

/// Makes the steps of one workload.
pub(super) struct Builder<'a> {
    path: &'a Path,
    case: &'a TestCase,
    pub(super) spec: &'a WorkloadSpec,
    templates: HashMap<PathBuf, Arc<Template>>,
    namespaces: BTreeSet<String>,
    pub(super) nodes: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// A template's text, and its objects where all are alike.
#[derive(Clone)]
pub(super) struct Template {
    pub(super) path: PathBuf,
    text: String,
    fixed: Option<Value>,
}

impl Template {
    pub(super) fn object(&self, values: &Values<'_>) -> Result<Value, PerfError> {
        let wrong = |error: String| PerfError::new(&self.path, error);
        match &self.fixed {
            Some(value) => Ok(value.clone()),
            None => objects::yaml(&render(&self.text, values).map_err(wrong)?).map_err(wrong),
        }
    }
}

/// The name that an object of a template gets: its own, or one made of its prefix, the operation and its number there.
pub(super) fn name_of(value: &Value, operation: usize, index: u64) -> String {
    let meta = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    match meta("name") {
        "" => format!("{}{operation}-{index}", meta("generateName")),
        name => name.to_owned(),
    }
}

fn namespace(name: &str, labels: &Value) -> Result<Action, objects::BadObject> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": labels}});
    objects::other(object, name, None).map(Action::Apply)
}

fn scope(namespaces: &[String], labels: &BTreeMap<String, String>) -> Scope {
    Scope { namespaces: namespaces.to_vec(), labels: LabelSelector::from_labels(labels) }
}

/// Between two of so many a second; zero for all at once.
fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1).checked_div(per_second).unwrap_or(Duration::ZERO)
}

impl<'a> Builder<'a> {
    pub(super) fn new(path: &'a Path, case: &'a TestCase, spec: &'a WorkloadSpec) -> Self {
        Self {
            path,
            case,
            spec,
            templates: HashMap::new(),
            namespaces: BTreeSet::new(),
            nodes: Vec::new(),
            steps: Vec::new(),
        }
    }

    pub(super) fn build(mut self, name: String) -> Result<Workload, PerfError> {
        for (number, op) in self.case.workload_template.iter().enumerate() {
            let (name, unknown) = op.unknown();
            if let Some(field) = unknown.into_iter().flat_map(BTreeMap::keys).next() {
                return Err(self.wrong(format!("{name}: {field} is not supported")));
            }
            match op {
                Op::CreateNodes(op) => self.create_nodes(number, op)?,
                Op::CreateNamespaces(op) => self.create_namespaces(op)?,
                Op::CreatePods(op) => self.create_pods(number, op, None)?,
                Op::CreatePodSets(op) => {
                    for set in 0..self.count(&op.count)? {
                        let namespace = format!("{}-{set}", op.namespace_prefix);
                        self.create_pods(number, &op.create_pods_op, Some(namespace))?;
                    }
                }
                Op::CreateAny(op) => self.create_any(number, op)?,
                Op::UpdateAny(op) => self.update_any(number, op)?,
                Op::DeletePods(op) => self.delete_pods(op),
                Op::Churn(op) => self.churn(number, op)?,
                Op::Barrier(op) => self.barrier(op),
                Op::Sleep(op) => self.sleep(op)?,
                Op::StartCollectingMetrics(op) => {
                    self.steps.push(Step::StartMeasuring(scope(&op.namespaces, &op.label_selector)));
                }
                Op::CreateResourceClaims(op) => self.create_resource_claims(number, op)?,
                Op::CreateResourceDriver(op) => self.create_resource_driver(op)?,
                Op::AllocResourceClaims(op) => {
                    self.steps.push(Step::AllocateClaims { namespace: op.namespace.clone() });
                }
                Op::StopCollectingMetrics(_) => self.steps.push(Step::StopMeasuring),
            }
        }
        Ok(Workload { name, steps: self.steps })
    }

    pub(super) fn wrong(&self, reason: impl ToString) -> PerfError {
        PerfError::new(self.path, reason)
    }

    pub(super) fn parameter(&self, name: &str) -> Result<&'a Value, PerfError> {
        let value = name.strip_prefix('$').and_then(|name| self.spec.params.get(name));
        value.ok_or_else(|| self.wrong(format!("workload {:?} has no parameter {name:?}", self.spec.name)))
    }

    /// How many; 1 where nothing is said.
    pub(super) fn count(&self, count: &Count) -> Result<u64, PerfError> {
        let Some(name) = &count.count_param else { return Ok(count.count.unwrap_or(1)) };
        self.parameter(name)?.as_u64().ok_or_else(|| self.wrong(format!("parameter {name:?} is no number")))
    }

    fn parameters(&self, params: &BTreeMap<String, Value>) -> Result<Vec<(String, String)>, PerfError> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let all = params.iter().map(|(name, value)| match value.as_str().filter(|text| text.starts_with('$')) {
            Some(parameter) => Ok((name.clone(), text(self.parameter(parameter)?))),
            None => Ok((name.clone(), text(value))),
        });
        all.collect()
    }

    pub(super) fn template(&mut self, path: &Path) -> Result<Arc<Template>, PerfError> {
        let path = self.path.parent().unwrap_or(Path::new(".")).join(path);
        if let Some(known) = self.templates.get(&path) {
            return Ok(Arc::clone(known));
        }
        let text = super::read(&path)?;
        let fixed = match has_placeholders(&text) {
            false => Some(objects::yaml(&text).map_err(|error| PerfError::new(&path, error))?),
            true => None,
        };
        let template = Arc::new(Template { path: path.clone(), text, fixed });
        self.templates.insert(path, Arc::clone(&template));
        Ok(template)
    }

    pub(super) fn at_once(&mut self, actions: Vec<Action>) {
        let actions = actions.into_iter().map(|action| (Duration::ZERO, action)).collect();
        self.steps.push(Step::Play { actions, background: false });
    }

    fn create_nodes(&mut self, number: usize, op: &CreateNodes) -> Result<(), PerfError> {
        let count = self.count(&op.count)?;
        let others = self.parameters(&op.template_params)?;
        let template = op.node_template_path.as_ref().map(|path| self.template(path)).transpose()?;
        let mut actions = Vec::new();
        for index in 0..count {
            let value = match &template {
                Some(template) => template.object(&Values { index, count, others: &others })?,
                None => json!({
                    "metadata": {"generateName": "node-"},
                    "status": {"capacity": {"pods": "110", "cpu": "4", "memory": "32Gi"}},
                }),
            };
            let name = name_of(&value, number, index);
            let mut node = objects::node(value, &name).map_err(|error| self.wrong(error))?;
            let labels = node.metadata.labels.get_or_insert_default();
            if let Some(LabelNodes { label_key, label_values }) = &op.label_node_prepare_strategy {
                let values = label_values.len().max(1) as u64;
                let value = label_values.get((index % values) as usize).cloned().unwrap_or_default();
                labels.insert(label_key.clone(), value);
            }
            if let Some(unique) = &op.unique_node_label_strategy {
                labels.insert(unique.label_key.clone(), name.clone());
            }
            if let Some(strategy) = &op.node_allocatable_strategy {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let allocatable = node.status.get_or_insert_default().allocatable.get_or_insert_default();
                for (resource, amount) in &strategy.node_allocatable {
                    let amount = k8s_openapi::apimachinery::pkg::api::resource::Quantity(text(amount));
                    allocatable.insert(resource.clone(), amount);
                }
                let drivers: Vec<Value> = strategy
                    .csi_node_allocatable
                    .iter()
                    .map(|(driver, limits)| json!({"name": driver, "nodeID": name, "allocatable": limits}))
                    .collect();
                let migrated = strategy.migrated_plugins.join(",");
                let csi_node = json!({
                    "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "spec": {"drivers": drivers},
                    "metadata": {"annotations": {"storage.alpha.kubernetes.io/migrated-plugins": migrated}},
                });
                let csi_node = objects::other(csi_node, &name, None).map_err(|error| self.wrong(error))?;
                actions.push(Action::Apply(csi_node));
            }
            actions.push(Action::SetNode(Arc::new(node)));
            self.nodes.push(name);
        }
        self.at_once(actions);
        Ok(())
    }

    fn create_namespaces(&mut self, op: &CreateNamespaces) -> Result<(), PerfError> {
        let count = self.count(&op.count)?;
        let template = op.namespace_template_path.as_ref().map(|path| self.template(path)).transpose()?;
        let mut actions = Vec::new();
        for index in 0..count {
            let name = format!("{}-{index}", op.prefix);
            let labels = match &template {
                Some(template) => template.object(&Values { index, count, others: &[] })?["metadata"]["labels"].clone(),
                None => json!({}),
            };
            actions.push(namespace(&name, &labels).map_err(|error| self.wrong(error))?);
            self.namespaces.insert(name);
        }
        self.at_once(actions);
        Ok(())
    }

    /// A namespace that is only named is made without labels.
    pub(super) fn ensure_namespace(&mut self, name: &str) -> Result<(), PerfError> {
        if self.namespaces.insert(name.to_owned()) {
            let action = namespace(name, &json!({})).map_err(|error| self.wrong(error))?;
            self.at_once(vec![action]);
        }
        Ok(())
    }

    fn create_pods(&mut self, number: usize, op: &CreatePods, within: Option<String>) -> Result<(), PerfError> {
        let namespace = within.or_else(|| op.namespace.clone()).unwrap_or_else(|| format!("namespace-{number}"));
        self.ensure_namespace(&namespace)?;
        let count = self.count(&op.count)?;
        let others = self.parameters(&op.template_params)?;
        let template = match op.pod_template_path.as_ref().or(self.case.default_pod_template_path.as_ref()) {
            Some(path) => self.template(path)?,
            None => Arc::new(base_pod()),
        };
        if self.is_steady(op)? {
            return self.create_pods_steadily(number, op, &namespace, (count, others), template);
        }
        let mut actions = self.volumes(&namespace, count, op)?;
        let with_claims = op.persistent_volume_claim_template_path.is_some();
        let alike = template.fixed.as_ref().is_some_and(|fixed| !fixed["metadata"]["name"].is_string());
        let mut same: Option<Pod> = None;
        for index in 0..count {
            let mut pod = match &same {
                Some(pod) => pod.clone(),
                None => {
                    let value = template.object(&Values { index, count, others: &others })?;
                    let name = name_of(&value, number, index);
                    let pod = objects::pod(value, &name, &namespace);
                    pod.map_err(|error| PerfError::new(&template.path, error))?
                }
            };
            if alike {
                let prefix = pod.metadata.generate_name.clone().unwrap_or_default();
                let name = format!("{prefix}{number}-{index}");
                pod.metadata.uid = Some(full_name(&namespace, &name));
                pod.metadata.name = Some(name);
                same.get_or_insert_with(|| pod.clone());
            }
            if with_claims {
                let volume = json!({"name": "vol", "persistentVolumeClaim": {"claimName": format!("pvc-{index}")}});
                let volume = serde_json::from_value(volume).map_err(|error| self.wrong(error))?;
                pod.spec.get_or_insert_default().volumes.get_or_insert_default().push(volume);
            }
            actions.push(Action::CreatePod(Arc::new(Job { pod: Arc::new(pod), duration: None, restarts: false })));
        }
        if op.collect_metrics {
            self.steps.push(Step::StartMeasuring(Scope::namespace(&namespace)));
        }
        self.at_once(actions);
        if !op.skip_wait_to_completion {
            self.steps.push(Step::Await { stage: Stage::Scheduled, scope: Scope::namespace(&namespace) });
        }
        if op.collect_metrics {
            self.steps.push(Step::StopMeasuring);
        }
        Ok(())
    }

    /// A claim for each pod, and a volume that it is bound to.
    fn volumes(&mut self, namespace: &str, count: u64, op: &CreatePods) -> Result<Vec<Action>, PerfError> {
        let (Some(volume), Some(claim)) =
            (&op.persistent_volume_template_path, &op.persistent_volume_claim_template_path)
        else {
            return Ok(Vec::new());
        };
        let (volume, claim) = (self.template(volume)?, self.template(claim)?);
        let mut actions = Vec::new();
        for index in 0..count {
            let values = Values { index, count, others: &[] };
            let (mut volume, mut claim) = (volume.object(&values)?, claim.object(&values)?);
            let (claim_name, volume_name) = (format!("pvc-{index}"), format!("{namespace}-pv-{index}"));
            volume["spec"]["claimRef"] = json!({
                "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": namespace, "name": claim_name,
            });
            volume["status"]["phase"] = "Bound".into();
            if volume["spec"]["csi"].is_object() {
                volume["spec"]["csi"]["volumeHandle"] = volume_name.as_str().into();
            }
            claim["spec"]["volumeName"] = volume_name.as_str().into();
            claim["status"]["phase"] = "Bound".into();
            for (object, name, namespace) in [(claim, claim_name, Some(namespace)), (volume, volume_name, None)] {
                let object = objects::other(object, &name, namespace).map_err(|error| self.wrong(error))?;
                actions.push(Action::Apply(object));
            }
        }
        Ok(actions)
    }

    fn create_any(&mut self, number: usize, op: &CreateAny) -> Result<(), PerfError> {
        if !op.namespace.is_empty() {
            self.ensure_namespace(&op.namespace)?;
        }
        let count = self.count(&op.count)?;
        let others = self.parameters(&op.template_params)?;
        let template = self.template(&op.template_path)?;
        let mut actions = Vec::new();
        for index in 0..count {
            let value = template.object(&Values { index, count, others: &others })?;
            let name = name_of(&value, number, index);
            let action = action(value, &name, &op.namespace).map_err(|error| PerfError::new(&template.path, error))?;
            actions.push(action);
        }
        self.at_once(actions);
        Ok(())
    }

    fn update_any(&mut self, number: usize, op: &UpdateAny) -> Result<(), PerfError> {
        let count = self.count(&op.count)?;
        let others = self.parameters(&op.template_params)?;
        let template = self.template(&op.template_path)?;
        let mut actions = Vec::new();
        for index in 0..count {
            let value = template.object(&Values { index, count, others: &others })?;
            let name = name_of(&value, number, index);
            let action = action(value, &name, &op.namespace).map_err(|error| PerfError::new(&template.path, error))?;
            let action = match action {
                Action::CreatePod(job) => Action::UpdatePod(Arc::clone(&job.pod)),
                other => other,
            };
            // The first comes after a tick, as from a ticker.
            let tick = u32::try_from(index + 1).unwrap_or(u32::MAX);
            actions.push((interval(op.update_per_second).saturating_mul(tick), action));
        }
        self.steps.push(Step::Play { actions, background: false });
        Ok(())
    }

    fn delete_pods(&mut self, op: &DeletePods) {
        self.steps.push(Step::DeletePods {
            scope: scope(std::slice::from_ref(&op.namespace), &op.label_selector),
            interval: interval(op.delete_pods_per_second),
            background: op.skip_wait_to_completion,
        });
    }

    fn churn(&mut self, number: usize, op: &ChurnOp) -> Result<(), PerfError> {
        let namespace = op.namespace.clone().unwrap_or_else(|| format!("namespace-{number}"));
        self.ensure_namespace(&namespace)?;
        let mut objects = Vec::new();
        for path in &op.template_paths {
            let template = self.template(path)?;
            let value = template.object(&Values { index: 0, count: 1, others: &[] })?;
            // What is of no use is told now, and not while it runs.
            action(value.clone(), &name_of(&value, number, 0), &namespace)
                .map_err(|error| PerfError::new(&template.path, error))?;
            objects.push(value);
        }
        let make = move |turn: u64| {
            let made = objects
                .iter()
                .filter_map(|value| action(value.clone(), &name_of(value, number, turn), &namespace).ok());
            made.collect()
        };
        let some = |number: u64| (number > 0).then_some(number);
        let (recreate, turns) = match op.mode {
            ChurnMode::Create => (None, some(op.number)),
            ChurnMode::Recreate => (Some(op.number.max(1)), None),
        };
        let interval = Duration::from_millis(op.interval_milliseconds.filter(|time| *time > 0).unwrap_or(500));
        self.steps.push(Step::Churn(Churn { interval, recreate, turns, make: Arc::new(make) }));
        Ok(())
    }

    fn barrier(&mut self, op: &Barrier) {
        let stage = match op.stage_requirement {
            StageName::Attempted => Stage::Attempted,
            StageName::Scheduled => Stage::Scheduled,
        };
        self.steps.push(Step::Await { stage, scope: scope(&op.namespaces, &op.label_selector) });
    }

    /// A duration, or the parameter that has it; `what` wants it.
    pub(super) fn duration(
        &self,
        what: &str,
        text: Option<&str>,
        parameter: Option<&str>,
    ) -> Result<Duration, PerfError> {
        let text = match (text, parameter) {
            (_, Some(name)) => self.parameter(name)?.as_str().unwrap_or_default(),
            (Some(text), None) => text,
            (None, None) => "",
        };
        duration(text).ok_or_else(|| self.wrong(format!("{what}: {text:?} is no duration")))
    }

    fn sleep(&mut self, op: &Sleep) -> Result<(), PerfError> {
        let time = self.duration("sleep", op.duration.as_deref(), op.duration_param.as_deref())?;
        self.steps.push(Step::Sleep(time));
        Ok(())
    }
}

/// The pod of operations that name no template.
fn base_pod() -> Template {
    let resources = json!({"requests": {"cpu": "100m", "memory": "500Mi"}});
    let pod = json!({
        "metadata": {"generateName": "pod-"}, "spec": {"containers": [{"name": "pause", "resources": resources}]},
    });
    Template { path: PathBuf::new(), text: String::new(), fixed: Some(pod) }
}

/// Creates an object of any kind.
fn action(value: Value, name: &str, namespace: &str) -> Result<Action, objects::BadObject> {
    Ok(match value["kind"].as_str().unwrap_or_default() {
        "Pod" => {
            let pod = Arc::new(objects::pod(value, name, namespace)?);
            Action::CreatePod(Arc::new(Job { pod, duration: None, restarts: false }))
        }
        "Node" => Action::SetNode(Arc::new(objects::node(value, name)?)),
        kind => {
            let within = (!cluster_scoped(kind)).then_some(namespace);
            Action::Apply(objects::other(value, name, within)?)
        }
    })
}

/// A duration as Go writes it: `1m30s`, `500ms`.
fn duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        for wrong in ["", "5", "s", "1x", "-1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
