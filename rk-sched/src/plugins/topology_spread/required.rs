//! Constraints that must hold.

use std::sync::Arc;

use super::{Constraint, HARD, PodTopologySpread, tally::Tally, topologies};
use crate::{
    framework::{Candidates, CycleState, Filter, PreFilter, Status},
    model::{NodeIndex, NodeInfo, PodInfo, Snapshot},
};

/// A constraint with the pods of each place.
#[derive(Clone)]
struct Counted {
    constraint: Arc<Constraint>,
    tally: Arc<Tally>,
    /// 1 if the pod itself matches.
    own: i64,
}

impl Counted {
    /// The smallest of the counts; 0 with fewer places than the constraint wants.
    fn least(&self) -> i64 {
        if self.tally.places < self.constraint.min_domains { 0 } else { self.tally.least }
    }
}

#[derive(Clone)]
struct State(Vec<Counted>);

/// Whether a node has the labels of all constraints.
fn everywhere(constraints: &[Counted], node: &NodeInfo) -> bool {
    constraints.iter().all(|counted| counted.constraint.topology.place(node.index).is_some())
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        let (constraints, _) = self.constraints(pod, HARD, snapshot);
        if constraints.is_empty() {
            return Err(Status::skip());
        }
        let needed = topologies(&constraints);
        let counted = constraints.into_iter().map(|constraint| Counted {
            tally: constraint.tally(pod, &needed, snapshot),
            own: constraint.selector.matches(pod.labels()).into(),
            constraint: Arc::new(constraint),
        });
        state.insert_brief(State(counted.collect()));
        Ok(None)
    }

    fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, added: &PodInfo, node: &NodeInfo) {
        change(state, pod, added, node, 1);
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, removed: &PodInfo, node: &NodeInfo) {
        change(state, pod, removed, node, -1);
    }
}

fn change(state: &mut CycleState, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
    let Some(State(all)) = state.get_mut::<State>() else { return };
    if other.namespace != pod.namespace || other.terminating() || !everywhere(all, node) {
        return;
    }
    for counted in all {
        let constraint = &counted.constraint;
        if constraint.selector.matches(other.labels()) && constraint.includes(pod, node) {
            Arc::make_mut(&mut counted.tally).add(node.index, by);
        }
    }
}

const FITS: u32 = 0;
const NO_LABEL: u32 = 1;
const TOO_MANY: u32 = 2;

impl State {
    fn code(&self, node: NodeIndex) -> u32 {
        for counted in &self.0 {
            let Some(place) = counted.constraint.topology.place(node) else { return NO_LABEL };
            let count = counted.tally.counts[place as usize];
            if count + counted.own - counted.least() > counted.constraint.max_skew {
                return TOO_MANY;
            }
        }
        FITS
    }

    fn explain(code: u32) -> Status {
        match code {
            NO_LABEL => {
                Status::unresolvable("node(s) didn't match pod topology spread constraints (missing required label)")
            }
            _ => Status::unschedulable("node(s) didn't match pod topology spread constraints"),
        }
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        let code = state.get::<State>().map_or(FITS, |state| state.code(node.index));
        if code == FITS { Status::success() } else { State::explain(code) }
    }

    fn filter_batch(&self, state: &CycleState, _pod: &PodInfo, nodes: &mut Candidates<'_>) {
        if let Some(state) = state.get::<State>() {
            nodes.keep_coded(|node| state.code(node), State::explain);
        }
    }
}
