//! Constraints that should hold.

use std::{collections::HashSet, sync::Arc};

use super::{
    HOSTNAME, PodTopologySpread, SOFT,
    tally::{PerNode, Tally},
    topologies,
};
use crate::{
    framework::{CycleState, MAX_SCORE, NodeScore, PreScore, Score, Status},
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot, Topology},
};

/// Matching pods by place; of a constraint on host names by node, as hosts are as many as nodes.
#[derive(Clone)]
enum Counts {
    ByPlace(Arc<Tally>),
    ByNode(Arc<PerNode>),
}

/// A constraint with the pods of each place, and how much a place's count weighs: more where there are more places.
#[derive(Clone)]
struct Weighed {
    topology: Arc<Topology>,
    max_skew: i64,
    counts: Counts,
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
        let needed = if strict { topologies(&constraints) } else { Vec::new() };
        let weighed = constraints.iter().map(|constraint| {
            let (counts, places) = if constraint.topology.key.as_ref() == HOSTNAME {
                (Counts::ByNode(constraint.per_node(pod, snapshot)), nodes.len() - ignored.len())
            } else {
                let mut among = vec![false; constraint.topology.places.len() + 1];
                for node in nodes.iter().filter(|node| !ignored.contains(node)) {
                    // Nodes without the label, where those count, are one place together.
                    let place = constraint.topology.place(*node).map_or(among.len() - 1, |place| place as usize);
                    among[place] = true;
                }
                let places = among.iter().filter(|there| **there).count();
                (Counts::ByPlace(constraint.tally(pod, &needed, snapshot)), places)
            };
            let weight = (places as f64 + 2.0).ln();
            Weighed { topology: Arc::clone(&constraint.topology), max_skew: constraint.max_skew, counts, weight }
        });
        let all = weighed.collect();
        state.insert_brief(State { all, ignored });
        Status::success()
    }
}

impl State {
    fn score(&self, node: NodeIndex) -> i64 {
        if !self.ignored.is_empty() && self.ignored.contains(&node) {
            return 0;
        }
        let mut score = 0.0;
        for weighed in &self.all {
            let Some(place) = weighed.topology.place(node) else { continue };
            let count = match &weighed.counts {
                Counts::ByPlace(tally) => tally.counts[place as usize],
                Counts::ByNode(counts) => counts.0[node.slot()],
            };
            // The skew that is allowed makes small counts matter less.
            score += count as f64 * weighed.weight + (weighed.max_skew - 1) as f64;
        }
        score.round() as i64
    }
}

impl Score for PodTopologySpread {
    fn score(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Result<i64, Status> {
        Ok(state.get::<State>().map_or(0, |state| state.score(node.index)))
    }

    fn score_batch(
        &self,
        state: &CycleState,
        _pod: &PodInfo,
        _snapshot: &Snapshot,
        scores: &mut [NodeScore],
    ) -> Result<(), Status> {
        let state = state.get::<State>();
        for score in scores {
            score.score = state.map_or(0, |state| state.score(score.node));
        }
        Ok(())
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
