//! Constraints that should hold.

use std::collections::HashSet;

use super::{Constraint, HOSTNAME, PodTopologySpread, SOFT};
use crate::{
    framework::{CycleState, MAX_SCORE, NodeScore, PreScore, Score, Status},
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
};

/// A constraint with the pods of each place, and how much a place's count weighs: more where there are more places.
#[derive(Clone)]
struct Weighed {
    constraint: Constraint,
    /// Matching pods by place; of a constraint on host names by the node's index, as hosts are as many as nodes.
    counts: Vec<i64>,
    by_node: bool,
    weight: f64,
}

#[derive(Clone)]
struct State {
    all: Vec<Weighed>,
    /// Nodes that lack a label that is needed; their score is the lowest.
    ignored: HashSet<NodeIndex>,
}

impl PreScore for PodTopologySpread {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, nodes: &[NodeIndex]) -> Status {
        let (constraints, strict) = self.constraints(pod, SOFT, snapshot);
        if constraints.is_empty() {
            return Status::skip();
        }
        let everywhere = |node: NodeIndex| constraints.iter().all(|c| c.topology.place(node).is_some());
        let ignored: HashSet<NodeIndex> = nodes.iter().copied().filter(|node| strict && !everywhere(*node)).collect();
        let candidates: Vec<NodeIndex> = nodes.iter().copied().filter(|node| !ignored.contains(node)).collect();
        let mut all = Vec::new();
        for constraint in &constraints {
            let by_node = constraint.topology.key.as_ref() == HOSTNAME;
            let mut among = vec![false; constraint.topology.places.len()];
            let mut size = 0;
            let mut nowhere = false;
            for node in &candidates {
                match constraint.topology.place(*node) {
                    Some(place) => size += usize::from(!std::mem::replace(&mut among[place as usize], true)),
                    None => nowhere = true,
                }
            }
            // Nodes without the label, where those count, are one place together.
            size += usize::from(nowhere);
            let places = if by_node { candidates.len() } else { size };
            let mut counts = vec![0; if by_node { snapshot.slots() } else { among.len() }];
            for (node, count) in constraint.matching(pod, snapshot) {
                let Some(place) = constraint.topology.place(node.index) else { continue };
                if by_node {
                    counts[node.index.0 as usize] += count;
                } else if among[place as usize] && (!strict || everywhere(node.index)) && constraint.includes(pod, node)
                {
                    counts[place as usize] += count;
                }
            }
            let weight = (places as f64 + 2.0).ln();
            all.push(Weighed { constraint: constraint.clone(), counts, by_node, weight });
        }
        state.insert(State { all, ignored });
        Status::success()
    }
}

impl Score for PodTopologySpread {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        let Some(State { all, ignored }) = state.get::<State>() else { return Ok(0) };
        if ignored.contains(&node.index) {
            return Ok(0);
        }
        let mut score = 0.0;
        for weighed in all {
            let Some(place) = weighed.constraint.topology.place(node.index) else { continue };
            let at = if weighed.by_node { node.index.0 } else { place };
            // The skew that is allowed makes small counts matter less.
            score += weighed.counts[at as usize] as f64 * weighed.weight + (weighed.constraint.max_skew - 1) as f64;
        }
        Ok(score.round() as i64)
    }

    fn normalize(&self, state: &CycleState, _pod: &PodInfo, scores: &mut [NodeScore]) -> Result<(), Status> {
        let Some(State { ignored, .. }) = state.get::<State>() else { return Ok(()) };
        let counted = || scores.iter().filter(|score| !ignored.contains(&score.node)).map(|score| score.score);
        let (least, most) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for score in scores {
            score.score = if ignored.contains(&score.node) {
                0
            } else if most == 0 {
                MAX_SCORE
            } else {
                MAX_SCORE * (most + least - score.score) / most
            };
        }
        Ok(())
    }
}
