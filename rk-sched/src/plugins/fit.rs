//! NodeResourcesFit.

use std::{borrow::Cow, sync::Arc};

use crate::{
    framework::{ClusterEvent, CycleState, Filter, Hint, MAX_SCORE, Plugin, Score, Status},
    model::{NodeInfo, PodInfo, Resources},
};

/// A resource that is scored, with its weight among the scored ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceSpec {
    /// Such as `cpu`.
    pub name: Cow<'static, str>,
    /// At least 1.
    pub weight: i64,
}

impl ResourceSpec {
    /// Cpu and memory alike: the default.
    pub fn cpu_and_memory() -> Vec<Self> {
        ["cpu", "memory"].map(|name| Self { name: Cow::Borrowed(name), weight: 1 }).into()
    }

    /// What of this resource the node's pods and this one would ask for, and what there is. With `nonzero`, cpu and memory of pods without a
    /// request count as small.
    pub(super) fn use_of(&self, pod: &PodInfo, node: &NodeInfo, nonzero: bool) -> (i64, i64) {
        let total = node.allocatable.get(&self.name);
        let asked = match self.name.as_ref() {
            "cpu" if nonzero => node.nonzero_milli_cpu + pod.nonzero_milli_cpu,
            "memory" if nonzero => node.nonzero_memory + pod.nonzero_memory,
            name => node.requested.get(name) + pod.requests.get(name),
        };
        (asked, total)
    }

    /// Whether it plays no part for the pod: a special resource that the pod does not ask for.
    pub(super) fn beside(&self, pod: &PodInfo) -> bool {
        !matches!(self.name.as_ref(), "cpu" | "memory" | "ephemeral-storage") && pod.requests.get(&self.name) == 0
    }
}

/// How nodes on which a pod fits are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScoringStrategy {
    /// The emptier the better: spreads.
    LeastAllocated,
    /// The fuller the better: packs.
    MostAllocated,
    /// By a curve: points of utilisation (0..=100) and score (0..=10), by rising utilisation.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Only nodes with room for what the pod asks for; better those that the strategy favours.
#[derive(Debug, Clone)]
pub struct NodeResourcesFit {
    /// The strategy; by default LeastAllocated.
    pub strategy: ScoringStrategy,
    /// The resources that are scored; by default cpu and memory.
    pub resources: Vec<ResourceSpec>,
    /// Extended resources that are not counted, such as those that an extender of the scheduler manages.
    pub ignored: Vec<String>,
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        Self {
            strategy: ScoringStrategy::LeastAllocated,
            resources: ResourceSpec::cpu_and_memory(),
            ignored: Vec::new(),
        }
    }
}

impl NodeResourcesFit {
    fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored == name)
    }

    /// Whether a node of that capacity could take the pod if it were empty.
    fn could_fit(&self, pod: &PodInfo, allocatable: &Resources) -> bool {
        pod.requests.milli_cpu <= allocatable.milli_cpu
            && pod.requests.memory <= allocatable.memory
            && pod.requests.ephemeral_storage <= allocatable.ephemeral_storage
            && pod.requests.scalars.iter().all(|(name, amount)| self.ignores(name) || *amount <= allocatable.get(name))
    }
}

/// Whether there is less in `one` than in `other` of something that the pod asks for.
fn any_less(pod: &PodInfo, one: &Resources, other: &Resources) -> bool {
    let scalars = pod.requests.scalars.iter().map(|(name, _)| name.as_ref());
    let mut names = ["cpu", "memory", "ephemeral-storage"].into_iter().chain(scalars);
    names.any(|name| pod.requests.get(name) > 0 && one.get(name) < other.get(name))
}

/// The resources that a status lists.
fn allocatable(node: &k8s_openapi::api::core::v1::Node) -> Resources {
    let list = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    list.map(Resources::from_list).unwrap_or_default()
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(node) => self.could_fit(pod, &allocatable(node)),
            ClusterEvent::NodeUpdate { old, new } => {
                let (before, now) = (NodeInfo::new(Arc::clone(old)), NodeInfo::new(Arc::clone(new)));
                let more =
                    now.allowed_pods > before.allowed_pods || any_less(pod, &before.allocatable, &now.allocatable);
                more && self.could_fit(pod, &now.allocatable)
            }
            // Any pod that goes makes room for one more.
            ClusterEvent::AssignedPodDelete(_) => true,
            ClusterEvent::AssignedPodUpdate { old, new } => any_less(pod, &new.requests, &old.requests),
            ClusterEvent::UnscheduledPodUpdate { old, new } => old.requests != new.requests,
            _ => false,
        })
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        let (wanted, free) = (&pod.requests, |total: i64, used: i64| total - used);
        let mut refusal: Option<Status> = None;
        let mut refuse = |reason: Cow<'static, str>| {
            refusal = Some(match refusal.take() {
                None => Status::unschedulable(reason),
                Some(status) => status.because(reason),
            });
        };
        if node.pods.len() as i64 + 1 > node.allowed_pods {
            refuse("Too many pods".into());
        }
        let (all, used) = (&node.allocatable, &node.requested);
        if wanted.milli_cpu > 0 && wanted.milli_cpu > free(all.milli_cpu, used.milli_cpu) {
            refuse("Insufficient cpu".into());
        }
        if wanted.memory > 0 && wanted.memory > free(all.memory, used.memory) {
            refuse("Insufficient memory".into());
        }
        if wanted.ephemeral_storage > 0
            && wanted.ephemeral_storage > free(all.ephemeral_storage, used.ephemeral_storage)
        {
            refuse("Insufficient ephemeral-storage".into());
        }
        for (name, amount) in &wanted.scalars {
            if *amount == 0 || self.ignores(name) {
                continue;
            }
            if *amount > free(all.get(name), used.get(name)) {
                refuse(format!("Insufficient {name}").into());
            }
        }
        match refusal {
            None => Status::success(),
            // Where the node is too small even if empty, no preemption helps.
            Some(status) if !self.could_fit(pod, all) => status.made_unresolvable(),
            Some(status) => status,
        }
    }
}

/// The curve's score at a utilisation, on straight lines between its points and on the scale of nodes' scores.
fn on_curve(points: &[(i64, i64)], utilisation: i64) -> i64 {
    let scaled = |score: i64| score * (MAX_SCORE / 10);
    let Some(after) = points.iter().position(|(at, _)| utilisation <= *at) else {
        return points.last().map_or(0, |(_, score)| scaled(*score));
    };
    let (x1, y1) = points[after];
    if after == 0 {
        return scaled(y1);
    }
    let (x0, y0) = points[after - 1];
    scaled(y0) + (scaled(y1) - scaled(y0)) * (utilisation - x0) / (x1 - x0)
}

impl Score for NodeResourcesFit {
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let (mut sum, mut weights) = (0, 0);
        for resource in self.resources.iter().filter(|resource| !resource.beside(pod)) {
            let (asked, total) = resource.use_of(pod, node, true);
            if total == 0 {
                continue;
            }
            let score = match &self.strategy {
                ScoringStrategy::LeastAllocated if asked > total => 0,
                ScoringStrategy::LeastAllocated => (total - asked) * MAX_SCORE / total,
                // A node can be asked for more than it has, as pods without requests count here.
                ScoringStrategy::MostAllocated => asked.min(total) * MAX_SCORE / total,
                ScoringStrategy::RequestedToCapacityRatio(points) => {
                    let utilisation = if asked > total { 100 } else { asked * 100 / total };
                    on_curve(points, utilisation)
                }
            };
            sum += score * resource.weight;
            // Resources that score nothing on the curve don't count.
            if score > 0 || !matches!(self.strategy, ScoringStrategy::RequestedToCapacityRatio(_)) {
                weights += resource.weight;
            }
        }
        if weights == 0 {
            return Ok(0);
        }
        Ok(match self.strategy {
            ScoringStrategy::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        })
    }
}
