//! NodeResourcesFit.

use std::sync::Arc;

use super::scored_resources::{ResourceSpec, Stocks};
use crate::{
    framework::{
        Candidates, ClusterEvent, Code, CycleState, Filter, Hint, MAX_SCORE, NodeScore, Plugin, PreFilter, PreScore,
        Score, Status,
    },
    model::{NodeIndex, NodeInfo, PodInfo, Resources, Snapshot},
};

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
    /// Groups of such: `example.com` stands for all `example.com/...`.
    pub ignored_groups: Vec<String>,
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        Self {
            strategy: ScoringStrategy::LeastAllocated,
            resources: ResourceSpec::cpu_and_memory(),
            ignored: Vec::new(),
            ignored_groups: Vec::new(),
        }
    }
}

impl NodeResourcesFit {
    fn ignores(&self, name: &str) -> bool {
        let group = name.split_once('/').map(|(group, _)| group);
        self.ignored.iter().any(|ignored| ignored == name)
            || group.is_some_and(|group| self.ignored_groups.iter().any(|ignored| ignored == group))
    }

    /// Whether a node of that capacity could take the pod if it were empty. `backed` are the resources that devices may stand for.
    fn could_fit(&self, pod: &PodInfo, allocatable: &Resources, backed: &Backed) -> bool {
        pod.requests.milli_cpu <= allocatable.milli_cpu
            && pod.requests.memory <= allocatable.memory
            && pod.requests.ephemeral_storage <= allocatable.ephemeral_storage
            && pod.requests.scalars.iter().all(|(name, amount)| {
                self.ignores(name) || backed.elsewhere(name, allocatable) || *amount <= allocatable.get(name)
            })
    }

    /// As [`NodeResourcesFit::could_fit`], where it is not known what devices stand for: they may where the node does not list the resource.
    fn may_fit(&self, pod: &PodInfo, allocatable: &Resources) -> bool {
        let scalars = pod.requests.scalars.iter().map(|(name, _)| Arc::clone(name));
        self.could_fit(pod, allocatable, &Backed(scalars.filter(|name| name.contains('/')).collect()))
    }
}

/// The extended resources that the pod asks for and that devices may stand for (KEP-5004).
#[derive(Clone, Default)]
struct Backed(Vec<Arc<str>>);

impl Backed {
    /// Whether a node that has so much does not give the resource itself, so that DynamicResources decides.
    fn elsewhere(&self, name: &str, allocatable: &Resources) -> bool {
        allocatable.get(name) == 0 && self.0.iter().any(|backed| backed.as_ref() == name)
    }
}

impl PreFilter for NodeResourcesFit {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        let scalars = pod.requests.scalars.iter().map(|(name, _)| name);
        let backed = scalars.filter(|name| snapshot.devices.class_of_resource(name).is_some());
        let backed: Vec<Arc<str>> = backed.map(Arc::clone).collect();
        if !backed.is_empty() {
            state.insert_brief(Backed(backed));
        }
        Ok(None)
    }
}

/// Whether there is less in `one` than in `other` of something that the pod asks for.
fn any_less(pod: &PodInfo, one: &Resources, other: &Resources) -> bool {
    let scalars = pod.requests.scalars.iter().map(|(name, _)| name.as_ref());
    let mut names = ["cpu", "memory", "ephemeral-storage"].into_iter().chain(scalars);
    names.any(|name| pod.requests.get(name) > 0 && one.get(name) < other.get(name))
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::NodeAdd(node) => self.may_fit(pod, &node.allocatable),
            ClusterEvent::NodeUpdate { old, new } => {
                let more = new.allowed_pods > old.allowed_pods || any_less(pod, &old.allocatable, &new.allocatable);
                more && self.may_fit(pod, &new.allocatable)
            }
            // Any pod that goes makes room for one more.
            ClusterEvent::AssignedPodDelete(_) => true,
            ClusterEvent::AssignedPodUpdate { old, new } => any_less(pod, &new.requests, &old.requests),
            ClusterEvent::UnscheduledPodUpdate { old, new } => old.requests != new.requests,
            _ => false,
        })
    }
}

/// What a node lacks for a pod.
struct Lacks;

impl Lacks {
    const PODS: u32 = 1;
    const CPU: u32 = 2;
    const MEMORY: u32 = 4;
    const EPHEMERAL_STORAGE: u32 = 8;
    /// It would lack something even if it were empty: no preemption helps.
    const EVEN_EMPTY: u32 = 16;

    const REASONS: [(u32, &str); 4] = [
        (Self::PODS, "Too many pods"),
        (Self::CPU, "Insufficient cpu"),
        (Self::MEMORY, "Insufficient memory"),
        (Self::EPHEMERAL_STORAGE, "Insufficient ephemeral-storage"),
    ];

    /// Of the resources that every node has, by what is free of them.
    fn of(wanted: &Resources, pods: i64, milli_cpu: i64, memory: i64, ephemeral_storage: i64) -> u32 {
        let short = |wanted: i64, free: i64, lack: u32| if wanted > 0 && wanted > free { lack } else { 0 };
        short(1, pods, Self::PODS)
            | short(wanted.milli_cpu, milli_cpu, Self::CPU)
            | short(wanted.memory, memory, Self::MEMORY)
            | short(wanted.ephemeral_storage, ephemeral_storage, Self::EPHEMERAL_STORAGE)
    }

    fn explain(lacks: u32) -> Status {
        let reasons = Self::REASONS.iter().filter(|(lack, _)| lacks & lack != 0);
        let status = reasons.fold(Status::new(Code::Unschedulable), |status, (_, reason)| status.because(*reason));
        if lacks & Self::EVEN_EMPTY != 0 { status.made_unresolvable() } else { status }
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Status {
        const NONE: &Backed = &Backed(Vec::new());
        let backed = if pod.requests.scalars.is_empty() { NONE } else { state.get::<Backed>().unwrap_or(NONE) };
        let (wanted, all, used) = (&pod.requests, &node.allocatable, &node.requested);
        let lacks = Lacks::of(
            wanted,
            node.allowed_pods - node.pods.len() as i64,
            all.milli_cpu - used.milli_cpu,
            all.memory - used.memory,
            all.ephemeral_storage - used.ephemeral_storage,
        );
        let counted = wanted.scalars.iter().filter(|(name, amount)| *amount > 0 && !self.ignores(name));
        let counted = counted.filter(|(name, _)| !backed.elsewhere(name, all));
        let mut scalars = counted.filter(|(name, amount)| *amount > all.get(name) - used.get(name)).peekable();
        if lacks == 0 && scalars.peek().is_none() {
            return Status::success();
        }
        let even_empty = if self.could_fit(pod, all, backed) { 0 } else { Lacks::EVEN_EMPTY };
        let status = Lacks::explain(lacks | even_empty);
        scalars.fold(status, |status, (name, _)| status.because(format!("Insufficient {name}")))
    }

    fn filter_batch(&self, state: &CycleState, pod: &PodInfo, nodes: &mut Candidates<'_>) {
        let wanted = &pod.requests;
        if wanted.ephemeral_storage > 0 || wanted.scalars.iter().any(|(_, amount)| *amount > 0) {
            return nodes.keep(|node| self.filter(state, pod, node));
        }
        let columns = nodes.columns();
        let code = |node: NodeIndex| {
            let at = node.slot();
            let (milli_cpu, memory) = (columns.allocatable_milli_cpu[at], columns.allocatable_memory[at]);
            let free_cpu = milli_cpu - columns.requested_milli_cpu[at];
            let lacks =
                Lacks::of(wanted, columns.free_pods[at], free_cpu, memory - columns.requested_memory[at], i64::MAX);
            if lacks != 0 && (wanted.milli_cpu > milli_cpu || wanted.memory > memory) {
                lacks | Lacks::EVEN_EMPTY
            } else {
                lacks
            }
        };
        nodes.keep_coded(code, Lacks::explain);
    }
}

/// How many hundredths of `total` the part is, rounded down.
fn percent(part: i64, total: i64) -> i64 {
    match part.checked_mul(MAX_SCORE) {
        Some(product) => product / total,
        None => i64::try_from(i128::from(part) * i128::from(MAX_SCORE) / i128::from(total)).unwrap_or(MAX_SCORE),
    }
}

fn least_allocated(asked: i64, total: i64) -> i64 {
    if asked > total { 0 } else { percent(total - asked, total) }
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

impl PreScore for NodeResourcesFit {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _nodes: &[NodeIndex]) -> Status {
        Stocks::note(state, pod, &snapshot.devices, &self.resources);
        Status::success()
    }
}

impl Score for NodeResourcesFit {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let (mut sum, mut weights) = (0, 0);
        for resource in self.resources.iter().filter(|resource| !resource.beside(pod)) {
            let (asked, total) = resource.use_of(state, pod, node, true);
            if total == 0 {
                continue;
            }
            let score = match &self.strategy {
                ScoringStrategy::LeastAllocated => least_allocated(asked, total),
                // A node can be asked for more than it has, as pods without requests count here.
                ScoringStrategy::MostAllocated => percent(asked.min(total), total),
                ScoringStrategy::RequestedToCapacityRatio(points) => {
                    let utilisation = percent(asked.min(total), total);
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

    fn score_batch(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        let columns = snapshot.columns();
        let column = |resource: &ResourceSpec| match resource.name.as_ref() {
            "cpu" => Some((
                &columns.nonzero_milli_cpu,
                &columns.allocatable_milli_cpu,
                pod.nonzero_milli_cpu,
                resource.weight,
            )),
            "memory" => {
                Some((&columns.nonzero_memory, &columns.allocatable_memory, pod.nonzero_memory, resource.weight))
            }
            _ => None,
        };
        let read: Option<Vec<_>> = self.resources.iter().map(column).collect();
        let Some(read) = read.filter(|_| self.strategy == ScoringStrategy::LeastAllocated) else {
            for score in scores {
                score.score = self.score(state, pod, snapshot.node(score.node))?;
            }
            return Ok(());
        };
        for score in scores {
            let at = score.node.slot();
            let (mut sum, mut weights) = (0, 0);
            for (asked, total, own, weight) in &read {
                if total[at] != 0 {
                    sum += least_allocated(asked[at] + own, total[at]) * weight;
                    weights += weight;
                }
            }
            score.score = if weights == 0 { 0 } else { sum / weights };
        }
        Ok(())
    }
}
