//! NodeResourcesBalancedAllocation.

use super::scored_resources::{ResourceSpec, Stocks};
use crate::{
    framework::{CycleState, MAX_SCORE, NodeScore, Plugin, PreScore, Score, Status},
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
};

/// Better a node whose balance the pod mends: whose resources are used to like parts with it on, and were not without it.
#[derive(Debug, Clone)]
pub struct NodeResourcesBalancedAllocation {
    /// The resources that are compared; by default cpu and memory.
    pub resources: Vec<ResourceSpec>,
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self { resources: ResourceSpec::cpu_and_memory() }
    }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

impl PreScore for NodeResourcesBalancedAllocation {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _nodes: &[NodeIndex]) -> Status {
        // A pod that asks for nothing changes no balance.
        if !self.resources.iter().any(|resource| pod.requests.get(&resource.name) > 0) {
            return Status::skip();
        }
        Stocks::note(state, pod, &snapshot.devices, &self.resources);
        Status::success()
    }
}

impl NodeResourcesBalancedAllocation {
    /// How alike the parts are to which resources are used, 50 to 100: with the pod, and without it.
    fn balance(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> (i64, i64) {
        let counted = self.resources.iter().filter(|resource| !resource.beside(pod));
        let (mut with_pod, mut without) = (Vec::new(), Vec::new());
        for resource in counted {
            let (asked, total) = resource.use_of(state, pod, node, false);
            if total > 0 {
                with_pod.push(part(asked, total));
                without.push(part(asked - pod.requests.get(&resource.name), total));
            }
        }
        (alike(&with_pod), alike(&without))
    }
}

fn part(asked: i64, total: i64) -> f64 {
    (asked as f64 / total as f64).min(1.0)
}

fn alike(parts: &[f64]) -> i64 {
    let deviation = match parts {
        [] | [_] => 0.0,
        [a, b] => ((a - b) / 2.0).abs(),
        _ => {
            let mean = parts.iter().sum::<f64>() / parts.len() as f64;
            (parts.iter().map(|part| (part - mean) * (part - mean)).sum::<f64>() / parts.len() as f64).sqrt()
        }
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

/// 75 where the pod leaves the balance as it is, more where it mends it, less where it harms it.
fn gain(with_pod: i64, without: i64) -> i64 {
    const HALF: i64 = MAX_SCORE / 2;
    HALF + (HALF + with_pod - without) / 2
}

impl Score for NodeResourcesBalancedAllocation {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let (with_pod, without) = self.balance(state, pod, node);
        Ok(gain(with_pod, without))
    }

    fn score_batch(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        let columns = snapshot.columns();
        let by_columns = self.resources.iter().map(|resource| resource.name.as_ref()).eq(["cpu", "memory"]);
        for score in scores {
            let at = score.node.slot();
            let (cores, memory) = (columns.allocatable_milli_cpu[at], columns.allocatable_memory[at]);
            score.score = if by_columns && cores > 0 && memory > 0 {
                let (cores_used, memory_used) = (columns.requested_milli_cpu[at], columns.requested_memory[at]);
                let with =
                    [part(cores_used + pod.requests.milli_cpu, cores), part(memory_used + pod.requests.memory, memory)];
                gain(alike(&with), alike(&[part(cores_used, cores), part(memory_used, memory)]))
            } else {
                self.score(state, pod, snapshot.node(score.node))?
            };
        }
        Ok(())
    }
}
