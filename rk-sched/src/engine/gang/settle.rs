//! What becomes of a group's pods once it is known whether it is placed.

use std::{mem, sync::Arc};

use tokio::time::Instant;

use super::{Engine, GangCycle, GroupOutcome, Tried, preempt};
use crate::{
    engine::{Cause, Decision, Evicting, Eviction},
    framework::{Diagnosis, Status},
    plugins::GangScheduling,
};

impl Engine {
    /// The group is placed: what becomes of each of its pods.
    pub(super) fn settle_gang(&mut self, mut cycle: GangCycle, now: Instant) -> Decision {
        let mut decisions = mem::take(&mut cycle.skipped);
        let mut placed = cycle.before;
        for tried in mem::take(&mut cycle.attempt.tried) {
            let decision = match tried {
                Tried::Placed(queued, placement, _) => self.permit(queued, placement, now),
                // Beyond the minimum each pod makes room for itself, where no extender has a say on that.
                Tried::Unfit(queued, mut diagnosis, state) => {
                    diagnosis.plugins.extend(&cycle.blamed);
                    let mut parts = self.interested(&queued.pod).into_iter().flatten();
                    Decision::Refused(if parts.any(|extender| extender.parts().preempt) {
                        self.refuse(queued, Cause::Unfit(diagnosis), None, now)
                    } else {
                        self.unfit(queued, &cycle.profile, &state, diagnosis, now)
                    })
                }
                Tried::Rejected(queued, status) => {
                    Decision::Refused(self.refuse(queued, Cause::Rejected(status), None, now))
                }
                Tried::Failed(queued, status) => {
                    Decision::Refused(self.refuse(queued, Cause::Failed(status), None, now))
                }
            };
            placed += usize::from(matches!(decision, Decision::Place(_)));
            decisions.push(decision);
        }
        let verdict = GangScheduling::feasible(cycle.gang.min_count, placed, 0);
        let outcome = Self::outcome(&cycle.gang, verdict.is_success(), false, verdict.message());
        self.hand_out(cycle, decisions, outcome)
    }

    /// There is no room for the group: it makes some at the cost of less important pods, or waits.
    pub(super) fn refuse_gang(&mut self, mut cycle: GangCycle, verdict: &Status, now: Instant) -> Decision {
        let verdict = verdict.clone().from_plugin(GangScheduling::NAME);
        let mut causes = self.take_back(&mut cycle.attempt);
        for (uid, cause, state) in &mut causes {
            let Cause::Unfit(diagnosis) = cause else { continue };
            diagnosis.plugins.extend(&cycle.blamed);
            let pod = cycle.attempt.waiting.iter().find(|queued| queued.pod.uid == *uid);
            let (Some(pod), Some(state)) = (pod.map(|queued| Arc::clone(&queued.pod)), state) else { continue };
            // Claims that nobody uses where they are may be freed for one pod; others pods don't go for one alone.
            let before = self.deallocation.take();
            self.ask_post_filter(&pod, &cycle.profile, state, diagnosis, None, false);
            self.deallocation = before.or(self.deallocation.take());
        }
        let failed = causes.iter().any(|(_, cause, _)| matches!(cause, Cause::Failed(_)));
        let first = causes.iter().find(|(_, cause, _)| matches!(cause, Cause::Unfit(_) | Cause::Failed(_)));
        let first = first.map(|(uid, cause, _)| {
            let pod = cycle.attempt.waiting.iter().find(|queued| queued.pod.uid == *uid);
            let name = pod.map(|queued| Arc::clone(&queued.pod.name)).unwrap_or_default();
            format!("pod {name:?}: {}", cause.message())
        });
        let room = if failed { Err(String::new()) } else { self.room_for_gang(&mut cycle, now) };
        let (mut eviction, said) = match room {
            Ok(plan) => (Some(self.promise_gang(&cycle, plan, now)), String::new()),
            Err(said) => (None, said),
        };
        let mut text = verdict.message();
        if cycle.domains.len() > 1 {
            text.push_str(&format!(" in the last of {} domains", cycle.domains.len()));
        }
        let first = first.map(|first| format!("; {first}")).unwrap_or_default();
        let separator = if said.is_empty() { "" } else { " " };
        let text = format!("{text}{first}{separator}{said}");
        let mut decisions = mem::take(&mut cycle.skipped);
        for queued in mem::take(&mut cycle.attempt.waiting) {
            let own = causes.iter().position(|(uid, ..)| *uid == queued.pod.uid);
            let cause = match own.map(|at| causes.swap_remove(at).1) {
                Some(Cause::Unfit(mut diagnosis)) => {
                    let both = [mem::take(&mut diagnosis.post_filter), said.clone()];
                    diagnosis.post_filter =
                        both.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
                    // What makes room for this one brings the whole group back.
                    Cause::Unfit(diagnosis)
                }
                Some(cause) => cause,
                None => {
                    let mut refused = Diagnosis::new(0);
                    refused.blame(&verdict);
                    let blamed = refused.plugins.first().copied().unwrap_or(GangScheduling::NAME);
                    Cause::Rejected(Status::unschedulable(text.clone()).from_plugin(blamed))
                }
            };
            decisions.push(Decision::Refused(self.refuse(queued, cause, eviction.take(), now)));
        }
        let outcome = Self::outcome(&cycle.gang, false, failed, text);
        self.hand_out(cycle, decisions, outcome)
    }

    /// The group's pods are promised the nodes on which there will be room once the victims have gone.
    fn promise_gang(&mut self, cycle: &GangCycle, plan: preempt::Plan, now: Instant) -> Eviction {
        let preempt::Plan { places, mut victims, groups } = plan;
        let node = victims.first().map(|(_, node)| Arc::clone(node)).unwrap_or_default();
        for (uid, node) in places {
            if let Some(queued) = cycle.attempt.waiting.iter().find(|queued| queued.pod.uid == uid) {
                self.nominated.insert(Arc::clone(&queued.pod), node);
            }
        }
        if let Some(first) = cycle.attempt.waiting.front() {
            let uids = victims.iter().map(|(victim, _)| Arc::clone(&victim.uid)).collect();
            self.evicting.insert(Arc::clone(&first.pod.uid), Evicting { victims: uids, since: now });
        }
        victims.retain(|(victim, _)| !self.waiting.reject(&victim.uid, "DefaultPreemption", "preempted"));
        let groups = groups.iter().filter_map(|key| self.snapshot.groups.group(key).map(Arc::clone)).collect();
        Eviction { node, victims: victims.into_iter().map(|(victim, _)| victim).collect(), groups }
    }

    /// Answers the first decision; the others follow.
    fn hand_out(&mut self, mut cycle: GangCycle, decisions: Vec<Decision>, outcome: Option<GroupOutcome>) -> Decision {
        for decision in &decisions {
            let Some(uid) = decision.pod().filter(|pod| self.explanations.want(pod)).map(|pod| &pod.uid) else {
                continue;
            };
            let at = cycle.explained.iter().rposition(|(known, _)| known == uid);
            // One whose turn did not come is told of as things are now.
            let explanation = at.map(|at| cycle.explained.swap_remove(at).1).or_else(|| self.explain(uid));
            let Some(mut explanation) = explanation else { continue };
            explanation.decision = decision.shown();
            self.explanations.note(explanation);
        }
        self.ready = decisions.into_iter().chain(outcome.map(|outcome| Decision::Group(Box::new(outcome)))).collect();
        self.ready.pop_front().expect("a cycle is about one pod at least")
    }
}
