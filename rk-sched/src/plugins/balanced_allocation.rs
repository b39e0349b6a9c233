//! NodeResourcesBalancedAllocation.

use super::ResourceSpec;
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
    fn pre_score(&self, _state: &mut CycleState, pod: &PodInfo, _snapshot: &Snapshot, _nodes: &[NodeIndex]) -> Status {
        // A pod that asks for nothing changes no balance.
        let asks = self.resources.iter().any(|resource| pod.requests.get(&resource.name) > 0);
        if asks { Status::success() } else { Status::skip() }
    }
}

impl NodeResourcesBalancedAllocation {
    /// How alike the parts are to which resources are used, 50 to 100.
    fn balance(&self, pod: &PodInfo, node: &NodeInfo, with_pod: bool) -> i64 {
        let counted = self.resources.iter().filter(|resource| !resource.beside(pod));
        let used = |resource: &ResourceSpec| {
            let (asked, total) = resource.use_of(pod, node, false);
            (if with_pod { asked } else { asked - pod.requests.get(&resource.name) }, total)
        };
        let uses = counted.map(used).filter(|(_, total)| *total > 0);
        let parts: Vec<f64> = uses.map(|(asked, total)| part(asked, total)).collect();
        alike(&parts)
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
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        Ok(gain(self.balance(pod, node, true), self.balance(pod, node, false)))
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
