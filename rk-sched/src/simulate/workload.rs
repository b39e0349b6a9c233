//! What happens to a simulated cluster.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use rk_api::{LabelSelector, Object};

/// A program of steps, done one after another; the simulation ends with the last one, once all pods are done that can be.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// Its name, for reports.
    pub name: String,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Workload {
    /// How many pods it creates, those of background churn and restarts aside.
    pub fn pods(&self) -> usize {
        let count = |step: &Step| match step {
            Step::Play { actions, .. } => {
                actions.iter().filter(|(_, action)| matches!(action, Action::CreatePod(_))).count()
            }
            _ => 0,
        };
        self.steps.iter().map(count).sum()
    }
}

/// A step of a workload.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// Does things at their times, counted from when the step begins, in any order.
    Play {
        /// The things.
        actions: Vec<(Duration, Action)>,
        /// Whether the next step begins at once.
        background: bool,
    },
    /// Waits until the pods that it is about are as far.
    Await {
        /// How far.
        stage: Stage,
        /// The pods.
        scope: Scope,
    },
    /// Lets time pass.
    Sleep(Duration),
    /// Deletes the pods that there are when it begins.
    DeletePods {
        /// The pods.
        scope: Scope,
        /// Between one deletion and the next; zero for all at once.
        interval: Duration,
        /// Whether the next step begins at once.
        background: bool,
    },
    /// Creates objects again and again beside the next steps, until the program ends.
    Churn(Churn),
    /// Creates pods, deletes each that is scheduled and creates another one, for a time.
    Steady(Steady),
    /// The pods of this scope that are created from now on are those that are measured, in place of all.
    StartMeasuring(Scope),
    /// Ends what [`Step::StartMeasuring`] began.
    StopMeasuring,
    /// Gives devices to the ResourceClaims that have none yet, before any pod uses them; where a claim can't have any, the run ends.
    AllocateClaims {
        /// The claims' namespace; empty for all.
        namespace: String,
    },
}

/// A thing that is done to the cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Action {
    /// Adds a node or changes it.
    SetNode(Arc<Node>),
    /// Takes a node away, with the pods on it.
    RemoveNode(String),
    /// Creates a pod.
    CreatePod(Arc<Job>),
    /// Gives a pod new labels and a new spec; it stays the same pod, on its node.
    UpdatePod(Arc<Pod>),
    /// Deletes a pod by namespace and name.
    DeletePod(String, String),
    /// Creates or changes an object of another kind.
    Apply(Arc<Object>),
    /// Deletes an object of another kind.
    Delete(Arc<Object>),
}

/// A pod and what becomes of it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The pod. One with a `nodeName` is on its node at once, and is not measured; another one in its place is scheduled.
    pub pod: Arc<Pod>,
    /// How long it runs; `None` until somebody deletes it.
    pub duration: Option<Duration>,
    /// Whether another one takes its place when it fails, is preempted or loses its node, as a controller sees to it.
    pub restarts: bool,
}

/// How far pods have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Tried at least once, or kept out of the queue by a gate.
    Attempted,
    /// On a node.
    Scheduled,
}

/// Some of the pods.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Their namespaces; empty for all.
    pub namespaces: Vec<String>,
    /// Their labels.
    pub labels: LabelSelector,
}

impl Scope {
    /// All pods of a namespace.
    pub fn namespace(name: &str) -> Self {
        Self { namespaces: vec![name.to_owned()], labels: LabelSelector::everything() }
    }

    /// Every pod.
    pub fn everything() -> Self {
        Self { namespaces: Vec::new(), labels: LabelSelector::everything() }
    }

    /// Whether a pod is one of them.
    pub fn contains(&self, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        (self.namespaces.is_empty() || self.namespaces.iter().any(|name| name == namespace))
            && match &pod.metadata.labels {
                Some(labels) => self.labels.matches(labels),
                None => self.labels.matches(&std::collections::BTreeMap::new()),
            }
    }
}

/// Pods that come as fast as others are scheduled.
#[derive(Clone)]
pub struct Steady {
    /// The pods: each of them that is scheduled is deleted.
    pub scope: Scope,
    /// How many there are at a time.
    pub count: u64,
    /// How long that goes on.
    pub duration: Duration,
    /// Creates the pod of this number.
    pub make: Arc<dyn Fn(u64) -> Option<Action> + Send + Sync>,
}

impl std::fmt::Debug for Steady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steady").field("count", &self.count).field("duration", &self.duration).finish_non_exhaustive()
    }
}

/// Objects that come again and again.
#[derive(Clone)]
pub struct Churn {
    /// Between one turn and the next.
    pub interval: Duration,
    /// With `Some(n)`, what a turn creates is deleted `n` turns later, in turn with creating; else it stays.
    pub recreate: Option<u64>,
    /// How many turns; `None` for no end.
    pub turns: Option<u64>,
    /// What the turn of this number creates.
    pub make: Arc<dyn Fn(u64) -> Vec<Action> + Send + Sync>,
}

impl std::fmt::Debug for Churn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Churn").field("interval", &self.interval).finish_non_exhaustive()
    }
}
