//! NodeResourcesBalancedAllocation.

use super::ResourceSpec;
use crate::{
    framework::{CycleState, MAX_SCORE, Plugin, PreScore, Score, Status},
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
};

/// Better a node whose resources are used to like parts with the pod on it.
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

impl Score for NodeResourcesBalancedAllocation {
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let counted = self.resources.iter().filter(|resource| !resource.beside(pod));
        let uses = counted.map(|resource| resource.use_of(pod, node, false)).filter(|(_, total)| *total > 0);
        let parts: Vec<f64> = uses.map(|(asked, total)| (asked as f64 / total as f64).min(1.0)).collect();
        let deviation = match parts[..] {
            [] | [_] => 0.0,
            [a, b] => ((a - b) / 2.0).abs(),
            _ => {
                let mean = parts.iter().sum::<f64>() / parts.len() as f64;
                (parts.iter().map(|part| (part - mean).powi(2)).sum::<f64>() / parts.len() as f64).sqrt()
            }
        };
        Ok(((1.0 - deviation) * MAX_SCORE as f64) as i64)
    }
}
