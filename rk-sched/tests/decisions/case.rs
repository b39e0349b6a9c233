//! The form of a table.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A file of cases about one plugin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The plugin that is asked, alone; empty for the whole default profile.
    pub plugin: String,
    /// Where it is documented, for cases without a source of their own.
    pub source: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A cluster, a pod, and what is expected. Pods and nodes are in the short form of `short.rs`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    pub name: String,
    pub source: Option<String>,
    /// Plugin arguments by plugin, as in a KubeSchedulerConfiguration.
    pub args: BTreeMap<String, Value>,
    pub nodes: BTreeMap<String, Value>,
    /// Pods on nodes.
    pub pods: Vec<Value>,
    /// Other pods without a node, in the order of their arrival; room may be promised to them.
    pub waiting: Vec<Value>,
    /// Services, controllers, budgets, claims, volumes, classes, what CSI drivers say: as manifests.
    pub objects: Vec<Value>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The pod that is asked about.
    pub pod: Option<Value>,

    /// Nodes that would do. With `refused` and `hopeless` these are all nodes.
    pub fits: Option<Vec<String>>,
    /// Nodes that would not, with the reasons; preemption may help.
    pub refused: BTreeMap<String, Reasons>,
    /// Nodes that would not, with the reasons, and preemption does not help.
    pub hopeless: BTreeMap<String, Reasons>,
    /// Scores after normalizing, times the plugin's weight in a profile.
    pub scores: Option<BTreeMap<String, i64>>,
    /// Nodes from the best score to the worst; equals together.
    pub ranking: Vec<Vec<String>>,
    /// The node that the pod gets; one of these.
    pub placed: Option<Reasons>,
    /// The node that the pod gets once pods have gone, and those.
    pub evicts: Option<Evicts>,
    /// The text of the FailedScheduling event.
    pub message: Option<String>,
    /// What PreEnqueue says; empty if nothing.
    pub gated: Option<String>,
    /// The order in which the waiting pods are tried.
    pub order: Vec<String>,
    /// The pod group cycle of the waiting pods: the node that each gets, or one of several; null for none.
    pub together: Option<BTreeMap<String, Option<Reasons>>>,
    /// What the group's condition says after that cycle: reason and message.
    pub group: Option<String>,
    /// Who has to go for the group after that cycle.
    pub evicted: Option<Vec<String>>,
    /// Events, and whether a pod that the plugin refused is tried again after them.
    pub events: Vec<Event>,
}

/// One text or several.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub enum Reasons {
    One(String),
    Many(Vec<String>),
}

impl Reasons {
    pub fn all(&self) -> Vec<&str> {
        match self {
            Self::One(reason) => vec![reason],
            Self::Many(reasons) => reasons.iter().map(String::as_str).collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evicts {
    pub node: String,
    pub pods: Vec<String>,
}

/// An event; one of the fields besides `wakes` is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub wakes: bool,
    pub assigned_add: Option<Value>,
    pub assigned_update: Option<(Value, Value)>,
    pub assigned_delete: Option<Value>,
    /// The pod itself, before and after.
    pub pod_update: Option<(Value, Value)>,
    pub node_add: Option<Value>,
    pub node_update: Option<(Value, Value)>,
    pub node_delete: Option<Value>,
    /// A ResourceClaim, before and after; null where there was none, or is none.
    pub claim_update: Option<(Value, Value)>,
    /// A PodGroup, before and after.
    pub group_update: Option<(Value, Value)>,
    /// A pod of a group that waits.
    pub waiting_add: Option<Value>,
    /// An object of another kind.
    pub object: Option<Value>,
}
