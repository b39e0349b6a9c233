//! Extenders that have a say on the group's pods: the cycle waits for their answer, and goes on with it. The cluster may have changed
//! meanwhile, so those of the group that went are left out first.

use std::{mem, sync::Arc};

use tokio::time::Instant;

use super::{Engine, GangCycle, Step, Tried};
use crate::{
    cycle::Found,
    engine::{
        Decision,
        ask::{About, Answer, Kind, Question},
    },
    framework::{Extender, Status},
    model::PodInfo,
    queue::QueuedPod,
};

/// What extenders answered about a pod of the group.
pub(super) struct Answered {
    queued: QueuedPod,
    found: Box<Found>,
    /// Whether the node is one that was promised to the pod; others were not tried yet.
    promised: bool,
    kind: Kind,
}

impl Tried {
    fn pod(&self) -> &Arc<PodInfo> {
        match self {
            Self::Placed(queued, ..)
            | Self::Unfit(queued, ..)
            | Self::Rejected(queued, _)
            | Self::Failed(queued, _) => &queued.pod,
        }
    }
}

impl Engine {
    /// Answers with what extenders are to be asked about a pod of the group; the cycle goes on with their answer.
    pub(super) fn ask_about(
        &self,
        cycle: Box<GangCycle>,
        queued: QueuedPod,
        extenders: Vec<Arc<dyn Extender>>,
        found: Box<Found>,
        promised: bool,
    ) -> Decision {
        let nodes = found.nodes.iter().map(|index| Arc::clone(&self.snapshot.node(*index).node)).collect();
        Decision::Ask(Box::new(Question {
            pod: Arc::clone(&queued.pod),
            extenders,
            about: About::Nodes(nodes),
            queued,
            profile: Arc::clone(&cycle.profile),
            found,
            promised,
            layout: self.snapshot.layout(),
            gang: Some(cycle),
            deallocation: None,
        }))
    }

    /// The cycle goes on with what extenders answered about one of its pods.
    pub(in crate::engine) fn answer_member(
        &mut self,
        mut cycle: Box<GangCycle>,
        question: Question,
        answer: Answer,
        now: Instant,
    ) -> Decision {
        let Question { queued, found, promised, layout, .. } = question;
        self.leave_out_gone(&mut cycle);
        let gone = self.has_gone(&queued.pod.uid);
        if gone {
            cycle.leave_out(Arc::clone(&queued.pod));
            if cycle.attempt.waiting.is_empty() && cycle.attempt.tried.is_empty() {
                let skipped = mem::take(&mut cycle.skipped);
                return self.hand_out(&mut cycle, skipped, None);
            }
        }
        if layout != self.snapshot.layout() {
            // What was found is of nodes that may be gone, as may be the domains.
            if !gone {
                cycle.attempt.waiting.push_front(queued);
            }
            return self.fail_gang(cycle, Status::error("nodes came or went while extenders were asked"), now);
        }
        let answered = (!gone).then_some(Answered { queued, found, promised, kind: answer.0 });
        match cycle.trial {
            Some(_) => self.go_on_without_victims(cycle, answered, now),
            None => self.go_on(cycle, answered, now),
        }
    }

    /// What becomes of a pod by what extenders answered.
    pub(super) fn heed(&mut self, answered: Answered, cycle: &GangCycle) -> Step {
        let Answered { queued, mut found, promised, kind } = answered;
        Step::Done(match kind {
            Kind::Nodes(nodes) => {
                self.narrow(&mut found, &nodes);
                if !found.nodes.is_empty() {
                    self.choose_member(queued, &cycle.profile, *found, Some(&nodes))
                } else if promised {
                    // The others have not been tried.
                    return self.try_member(queued, cycle, false);
                } else {
                    found.diagnosis.blame_tried();
                    Tried::Unfit(queued, found.diagnosis, found.state)
                }
            }
            Kind::Failed(status) => Tried::Failed(queued, status),
            Kind::Victims(_) => Tried::Failed(queued, Status::error("the answer is to another question")),
        })
    }

    /// Those of the group that went, got a node from elsewhere or are on their way out while extenders were asked are no part of the cycle
    /// any more; what was kept for them is given back. Pods of the group that were on nodes before may be gone as well.
    fn leave_out_gone(&mut self, cycle: &mut GangCycle) {
        for queued in mem::take(&mut cycle.attempt.waiting) {
            match self.has_gone(&queued.pod.uid) {
                true => cycle.leave_out(queued.pod),
                false => cycle.attempt.waiting.push_back(queued),
            }
        }
        for tried in mem::take(&mut cycle.attempt.tried) {
            let pod = Arc::clone(tried.pod());
            // One that is on its way out is still where it was assumed to be.
            let assumed = self.queue.in_flight(&pod.uid).is_some();
            if !self.has_gone(&pod.uid) {
                cycle.attempt.tried.push(tried);
                continue;
            }
            if let Tried::Placed(queued, placement, promise) = tried {
                placement.unreserve();
                if assumed {
                    self.snapshot.remove_pod(&queued.pod.uid);
                    self.promise_again(&queued.pod, promise);
                }
            }
            cycle.leave_out(pod);
        }
        let placed = cycle.attempt.tried.iter().filter(|tried| matches!(tried, Tried::Placed(..))).count();
        cycle.attempt.scheduled = self.on_nodes(&cycle.gang.key);
        cycle.before = cycle.attempt.scheduled.saturating_sub(placed);
    }
}

impl GangCycle {
    /// A pod is no part of the cycle any more.
    fn leave_out(&mut self, pod: Arc<PodInfo>) {
        if let Some(trial) = &mut self.trial {
            trial.forget(&pod.uid);
        }
        self.skipped.push(Decision::Skip(pod));
    }
}
