//! NodeResourcesBalancedAllocation.

use super::ResourceSpec;
use crate::{
    framework::{CycleState, MAX_SCORE, Plugin, PreScore, Score, Status},
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
        let parts: Vec<f64> = uses.map(|(asked, total)| (asked as f64 / total as f64).min(1.0)).collect();
        let deviation = match parts[..] {
            [] | [_] => 0.0,
            [a, b] => ((a - b) / 2.0).abs(),
            _ => {
                let mean = parts.iter().sum::<f64>() / parts.len() as f64;
                (parts.iter().map(|part| (part - mean) * (part - mean)).sum::<f64>() / parts.len() as f64).sqrt()
            }
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

impl Score for NodeResourcesBalancedAllocation {
    /// 75 where the pod leaves the balance as it is, more where it mends it, less where it harms it.
    fn score(&self, _state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        const HALF: i64 = MAX_SCORE / 2;
        Ok(HALF + (HALF + self.balance(pod, node, true) - self.balance(pod, node, false)) / 2)
    }
}
