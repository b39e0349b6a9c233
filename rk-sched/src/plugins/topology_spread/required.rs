//! Constraints that must hold.

use std::sync::Arc;

use super::{Constraint, HARD, PodTopologySpread};
use crate::{
    framework::{CycleState, Filter, PreFilter, Status},
    model::{NodeInfo, PodInfo, Snapshot},
};

/// A constraint with the pods of each place.
#[derive(Clone)]
struct Counted {
    constraint: Constraint,
    /// Matching pods by place; `None` for places that don't count.
    counts: Vec<Option<i64>>,
    /// The smallest of the counts; 0 with fewer places than the constraint wants.
    least: i64,
    /// 1 if the pod itself matches.
    own: i64,
}

impl Counted {
    fn find_least(&mut self) {
        let counted = self.counts.iter().flatten();
        let places = counted.clone().count();
        let least = counted.min().copied().unwrap_or(0);
        self.least = if places < self.constraint.min_domains { 0 } else { least };
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
        let counted = constraints.into_iter().map(|constraint| Counted {
            counts: vec![None; constraint.topology.places.len()],
            least: 0,
            own: constraint.selector.matches(pod.labels()).into(),
            constraint,
        });
        let mut all: Vec<Counted> = counted.collect();
        for (index, node) in snapshot.nodes() {
            if !everywhere(&all, node) {
                continue;
            }
            for counted in &mut all {
                if let Some(place) = counted.constraint.topology.place(index)
                    && (counted.constraint.includes_all(pod) || counted.constraint.includes(pod, node))
                {
                    counted.counts[place as usize].get_or_insert(0);
                }
            }
        }
        let mut found = Vec::new();
        for counted in &all {
            let matching = counted.constraint.matching(pod, snapshot);
            found.push(
                matching
                    .filter(|(node, _)| everywhere(&all, node) && counted.constraint.includes(pod, node))
                    .filter_map(|(node, count)| Some((counted.constraint.topology.place(node.index)?, count)))
                    .collect::<Vec<_>>(),
            );
        }
        for (counted, found) in all.iter_mut().zip(found) {
            for (place, count) in found {
                *counted.counts[place as usize].get_or_insert(0) += count;
            }
            counted.find_least();
        }
        state.insert(State(all));
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
        if constraint.selector.matches(other.labels())
            && constraint.includes(pod, node)
            && let Some(place) = constraint.topology.place(node.index)
        {
            *counted.counts[place as usize].get_or_insert(0) += by;
            counted.find_least();
        }
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        let Some(State(all)) = state.get::<State>() else { return Status::success() };
        for counted in all {
            let Some(place) = counted.constraint.topology.place(node.index) else {
                return Status::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                );
            };
            let count = counted.counts[place as usize].unwrap_or(0);
            if count + counted.own - counted.least > counted.constraint.max_skew {
                return Status::unschedulable("node(s) didn't match pod topology spread constraints");
            }
        }
        Status::success()
    }
}
