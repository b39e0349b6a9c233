//! Kubernetes' configuration file: what is refused and how that is told, and what comes of it.

mod args;
mod fields;

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_sched::{
    Profile, Registration, SchedulerConfig,
    config::{ArgsError, ConfigurationError, Registry},
    framework::{CycleState, Filter, Plugin, QueueSort, Score, Status},
    model::{NodeInfo, PodInfo},
    queue::QueuedPod,
    simulate::Simulator,
};
use serde_json::{Value, json};

/// A configuration with these fields.
fn file(fields: Value) -> Value {
    let mut file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"});
    file.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    file
}

fn load(fields: Value) -> Result<SchedulerConfig, ConfigurationError> {
    SchedulerConfig::from_json(&file(fields), &registry())
}

/// What is told of a configuration with these fields.
fn wrong(fields: Value) -> Vec<String> {
    let error = load(fields.clone()).err().unwrap_or_else(|| panic!("{fields} is right"));
    error.errors.iter().map(ToString::to_string).collect()
}

fn profile(profile: Value) -> Profile {
    load(json!({"profiles": [profile]})).unwrap_or_else(|error| panic!("{error}")).profiles.remove(0)
}

/// What is told of the arguments of a plugin, without the path of the arguments.
fn wrong_args(name: &str, args: Value) -> Vec<String> {
    let told = wrong(json!({"profiles": [{"pluginConfig": [{"name": name, "args": args}]}]}));
    told.into_iter().map(|text| text.replace("profiles[0].pluginConfig[0].args", "")).collect()
}

/// Filters by a label and scores by another.
struct Labels {
    filter: String,
    score: String,
}

impl Plugin for Labels {
    fn name(&self) -> &'static str {
        "Labels"
    }
}

impl Filter for Labels {
    fn filter(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Status {
        if node.labels().contains_key(&self.filter) {
            Status::success()
        } else {
            Status::unresolvable("node(s) lacked the label")
        }
    }
}

impl Score for Labels {
    fn score(&self, _: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        Ok(node.labels().get(&self.score).and_then(|value| value.parse().ok()).unwrap_or(0))
    }
}

struct ByName;

impl Plugin for ByName {
    fn name(&self) -> &'static str {
        "ByName"
    }
}

impl QueueSort for ByName {
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        a.pod.name < b.pod.name
    }
}

fn registry() -> Registry {
    Registry::kubernetes()
        .with("Labels", |args| {
            let text = |field: &str| {
                let wrong = || ArgsError { path: field.to_owned(), reason: "a label is wanted".to_owned() };
                args.json()[field].as_str().map(str::to_owned).ok_or_else(wrong)
            };
            Ok(Registration::new(Labels { filter: text("filter")?, score: text("score")? }).filter().score(1))
        })
        .with("ByName", |_| Ok(Registration::new(ByName).queue_sort()))
}

fn labels_config() -> Value {
    json!([{"name": "Labels", "args": {"filter": "in", "score": "rank"}}])
}

fn node(name: &str, change: Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "example.com/gpu": "1"}},
    });
    json_patch(&mut node, change);
    serde_json::from_value(node).unwrap()
}

fn pod(name: &str, change: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
    });
    json_patch(&mut pod, change);
    serde_json::from_value(pod).unwrap()
}

fn json_patch(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                json_patch(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

/// Where a pod goes among these nodes.
fn placed(profile: Profile, nodes: &[Node], pod: Pod) -> Result<String, String> {
    let mut cluster = Simulator::new(profile, 1);
    for node in nodes {
        cluster.set_node(node.clone());
    }
    cluster.schedule(pod).map(|node| node.to_string()).map_err(|error| error.to_string())
}
