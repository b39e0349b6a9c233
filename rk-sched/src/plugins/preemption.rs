//! DefaultPreemption: room for a pod at the cost of less important ones.

use std::{cmp::Reverse, sync::Arc};

use jiff::Timestamp;

use crate::{
    framework::{Code, CycleState, Diagnosis, Filter, NodeVictims, Plugin, PostFilter, PostFilterContext, Status},
    model::{Budget, ClassId, NodeIndex, NodeInfo, PodInfo},
};

/// Finds the node where the least important pods have to go for the pod to fit.
#[derive(Debug, Clone)]
pub struct DefaultPreemption {
    /// At least so many percent of the nodes are tried,
    pub min_candidate_nodes_percentage: usize,
    /// and at least so many.
    pub min_candidate_nodes_absolute: usize,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

/// The best of the proposals, the first among equals.
pub(crate) fn best(proposals: Vec<NodeVictims>) -> Option<NodeVictims> {
    proposals.into_iter().min_by_key(rank)
}

/// When a pod began to run; one that has not is the youngest.
pub(crate) fn started(pod: &PodInfo) -> Timestamp {
    let started = pod.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    started.map_or(Timestamp::MAX, |time| time.0)
}

/// Orders pods from the most important: higher priority, then longer running.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), started(pod))
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(&self, context: &PostFilterContext<'_>) -> Result<(Arc<str>, Vec<Arc<PodInfo>>), Status> {
        if !context.preempts {
            return Err(Status::new(Code::Unschedulable));
        }
        let said = |status: Status| {
            let text = status.message();
            if text.is_empty() { status } else { Status::unschedulable(format!("preemption: {text}")) }
        };
        eligible(context).map_err(said)?;
        let candidates = self.candidates(context).map_err(said)?;
        if let Some(proposals) = context.proposals {
            proposals.lock().clone_from(&candidates);
        }
        let best = best(candidates).ok_or_else(|| Status::new(Code::Unschedulable))?;
        Ok((best.node, best.pods))
    }
}

/// Why a pod makes no others go while some do already.
pub(crate) const LEAVING: &str = "not eligible due to a terminating pod on the nominated node.";

/// Whether a node is none for the pod whoever goes.
pub(crate) fn is_hopeless(index: NodeIndex, diagnosis: &Diagnosis) -> bool {
    diagnosis.tried.get(index).unwrap_or(&diagnosis.others).code() == Code::UnschedulableAndUnresolvable
}

/// Whether the pod may make others go (`PodEligibleToPreemptOthers`).
fn eligible(context: &PostFilterContext<'_>) -> Result<(), Status> {
    let pod = context.pod;
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Err(Status::unschedulable("not eligible due to preemptionPolicy=Never."));
    }
    let Some(index) = context.cluster.promised(pod) else { return Ok(()) };
    let node = context.snapshot().node(index);
    if !is_hopeless(index, context.diagnosis) && node.pods.iter().any(|entry| entry.pod.leaves_for(pod)) {
        return Err(Status::unschedulable(LEAVING));
    }
    Ok(())
}

/// The fewer budgets are broken, the less important the most important victim, the less the victims' priorities together, the fewer
/// they are, and the shorter the most important ones have run, the better (`pickOneNodeForPreemption`).
fn rank(candidate: &NodeVictims) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let highest = candidate.pods.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // Shifted to be positive, so that more victims never make a smaller sum.
    let sum = candidate.pods.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let of_highest = candidate.pods.iter().filter(|victim| victim.priority == highest);
    let earliest = of_highest.map(|victim| started(victim)).min().unwrap_or(Timestamp::MAX);
    (candidate.violations, highest, sum, candidate.pods.len(), Reverse(earliest))
}

impl DefaultPreemption {
    /// Tries nodes until enough can be made to fit.
    fn candidates(&self, context: &PostFilterContext<'_>) -> Result<Vec<NodeVictims>, Status> {
        let nodes = context.diagnosis.nodes;
        let (tried, others) = (&context.diagnosis.tried, &context.diagnosis.others);
        let could = |(_, status): &(NodeIndex, &Status)| status.code() == Code::Unschedulable;
        let mut worth: Vec<NodeIndex> = tried.iter().filter(could).map(|(node, _)| node).collect();
        // A PreFilter plugin may have said it of all nodes that were not tried.
        if others.code() == Code::Unschedulable {
            worth.extend(context.snapshot().order().iter().filter(|node| tried.get(**node).is_none()));
        }
        let mut failed = Diagnosis::new(nodes);
        failed.others = Status::unresolvable("Preemption is not helpful for scheduling");
        if !worth.is_empty() {
            let first = context.offset % worth.len();
            worth.rotate_left(first);
        }
        let all = worth.len();
        let wanted = (all * self.min_candidate_nodes_percentage / 100).max(self.min_candidate_nodes_absolute).min(all);
        let budgets: Vec<&Budget> = context.snapshot().workloads.budgets().collect();
        let filters = context.cluster.filters(context.state);
        let mut found = Vec::new();
        let mut without_violations = false;
        // Each trial leaves it as it was: to copy it for each of thousands of nodes would cost more than the trials.
        let mut state = context.state.clone();
        for index in worth {
            match victims(context, &filters, &mut state, context.snapshot().node(index), &budgets) {
                Ok(candidate) => {
                    without_violations |= candidate.violations == 0;
                    found.push(candidate);
                    if found.len() >= wanted && without_violations {
                        break;
                    }
                }
                Err(status) => failed.tried.push(index, status),
            }
            if state.failure().is_some() {
                // What a plugin that failed has left of it is of no use for the next node.
                state = context.state.clone();
            }
        }
        if found.is_empty() { Err(Status::unschedulable(failed.to_string())) } else { Ok(found) }
    }
}

/// A node and a cycle's state as they would be with some pods gone.
struct Trial<'a> {
    context: &'a PostFilterContext<'a>,
    filters: &'a [&'a dyn Filter],
    state: &'a mut CycleState,
    node: NodeInfo,
}

impl Trial<'_> {
    fn remove(&mut self, other: &Arc<PodInfo>) {
        self.node.remove_same(other);
        self.context.cluster.remove_pod(self.state, self.context.pod, other, &self.node);
    }

    fn add(&mut self, other: &Arc<PodInfo>) {
        self.node.add_pod(Arc::clone(other), ClassId::MAX);
        self.context.cluster.add_pod(self.state, self.context.pod, other, &self.node);
    }

    fn fits(&self) -> Status {
        self.context.cluster.fits_with(self.filters, self.state, self.context.pod, &self.node)
    }
}

/// The fewest of the less important pods on a node that have to go (`SelectVictimsOnNode`). The state is as before afterwards.
fn victims(
    context: &PostFilterContext<'_>,
    filters: &[&dyn Filter],
    state: &mut CycleState,
    node: &NodeInfo,
    budgets: &[&Budget],
) -> Result<NodeVictims, Status> {
    let lesser = node.pods.iter().map(|entry| &entry.pod).filter(|other| other.priority < context.pod.priority);
    let mut potential: Vec<Arc<PodInfo>> = lesser.cloned().collect();
    if potential.is_empty() {
        return Err(Status::unresolvable("No preemption victims found for incoming pod"));
    }
    let mut trial = Trial { context, filters, state, node: node.clone() };
    potential.iter().for_each(|other| trial.remove(other));
    let fits = trial.fits();
    if !fits.is_success() {
        potential.iter().for_each(|other| trial.add(other));
        return Err(fits);
    }
    potential.sort_by_key(|other| importance(other));
    let (violating, others) = split_by_budgets(potential, budgets);
    let mut candidate = NodeVictims { node: Arc::clone(&node.name), pods: Vec::new(), violations: 0 };
    // Those whose going would break a budget are spared first, then the more important ones.
    let violating = violating.into_iter().map(|other| (other, true));
    for (other, violates) in violating.chain(others.into_iter().map(|other| (other, false))) {
        trial.add(&other);
        if !trial.fits().is_success() {
            trial.remove(&other);
            candidate.violations += usize::from(violates);
            candidate.pods.push(other);
        }
    }
    if candidate.pods.is_empty() {
        return Err(Status::error("expected at least one victim pod on the node"));
    }
    candidate.pods.iter().for_each(|other| trial.add(other));
    candidate.pods.sort_by_key(|other| importance(other));
    Ok(candidate)
}

/// Pods whose eviction would break a budget, if all were evicted in this order, and the others.
pub(crate) fn split_by_budgets(pods: Vec<Arc<PodInfo>>, budgets: &[&Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (_, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| budget.covers(pod)) {
            *left -= 1;
            violates |= *left < 0;
        }
        violates
    })
}
