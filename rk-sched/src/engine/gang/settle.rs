//! What becomes of a group's pods once it is known whether it is placed.

use std::{collections::BTreeSet, mem, sync::Arc};

use tokio::time::Instant;

use super::{Engine, GangCycle, GroupOutcome, Reason, Tried, preempt::Plan, trial::NoRoom};
use crate::{
    engine::{Cause, Decision, Evicting, Eviction, Unfit},
    framework::{Diagnosis, Status},
    plugins::GangScheduling,
};

impl Engine {
    /// The group is placed: what becomes of each of its pods.
    pub(super) fn settle_gang(&mut self, mut cycle: Box<GangCycle>, now: Instant) -> Decision {
        let mut decisions = mem::take(&mut cycle.skipped);
        let mut placed = cycle.before;
        for tried in mem::take(&mut cycle.attempt.tried) {
            let decision = match tried {
                Tried::Placed(queued, placement, _) => self.permit(queued, placement, now),
                // Beyond the minimum each pod makes room for itself, on which extenders may have a say.
                Tried::Unfit(queued, mut diagnosis, state) => {
                    diagnosis.plugins.extend(&cycle.blamed);
                    match self.interested(&queued.pod) {
                        Some(extenders) => {
                            self.put_victims_to(extenders, queued, &cycle.profile, diagnosis, state, now)
                        }
                        None => Decision::Refused(self.unfit(queued, &cycle.profile, &state, diagnosis, now)),
                    }
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
        self.hand_out(&mut cycle, decisions, outcome)
    }

    /// There is no room for the group: it makes some at the cost of less important pods, or waits.
    pub(super) fn refuse_gang(&mut self, mut cycle: Box<GangCycle>, verdict: &Status, now: Instant) -> Decision {
        let verdict = verdict.clone().from_plugin(GangScheduling::NAME);
        let mut reasons = self.take_back(&mut cycle.attempt);
        for Reason { uid, cause, state } in &mut reasons {
            let Cause::Unfit(diagnosis) = cause else { continue };
            diagnosis.plugins.extend(&cycle.blamed);
            let pod = cycle.attempt.waiting.iter().find(|queued| queued.pod.uid == *uid);
            let (Some(pod), Some(state)) = (pod.map(|queued| Arc::clone(&queued.pod)), state) else { continue };
            // Claims that nobody uses where they are may be freed for one pod; others pods don't go for one alone.
            let before = self.deallocation.take();
            let unfit = Unfit { preempts: false, ..Unfit::new(&pod, &cycle.profile, state, diagnosis) };
            self.ask_post_filter(unfit);
            self.deallocation = before.or(self.deallocation.take());
        }
        let no_room = NoRoom { verdict, reasons };
        match no_room.failed() {
            true => self.wait_for_room(cycle, no_room, Err(String::new()), now),
            false => self.make_room(cycle, no_room, now),
        }
    }

    /// The cycle can't go on, for no fault of the group: it is tried again after a while.
    pub(super) fn fail_gang(&mut self, mut cycle: Box<GangCycle>, status: Status, now: Instant) -> Decision {
        self.take_back(&mut cycle.attempt);
        // With the first one the others are tried again.
        let first = cycle.attempt.waiting.front().map(|queued| Arc::clone(&queued.pod.uid));
        let reason = |uid| Reason { uid, cause: Cause::Failed(status.clone()), state: None };
        let reasons = first.map(reason).into_iter().collect();
        let no_room = NoRoom { verdict: status.from_plugin(GangScheduling::NAME), reasons };
        self.wait_for_room(cycle, no_room, Err(String::new()), now)
    }

    /// The group has no node: it waits for room that is made, if there is a plan, or for what its pods wait for; and is tried again after a
    /// while where something failed.
    pub(super) fn wait_for_room(
        &mut self,
        mut cycle: Box<GangCycle>,
        no_room: NoRoom,
        room: Result<Plan, String>,
        now: Instant,
    ) -> Decision {
        let failed = no_room.failed();
        let NoRoom { verdict, mut reasons } = no_room;
        let first = reasons.iter().find(|reason| matches!(reason.cause, Cause::Unfit(_) | Cause::Failed(_)));
        let first = first.map(|reason| {
            let pod = cycle.attempt.waiting.iter().find(|queued| queued.pod.uid == reason.uid);
            let name = pod.map(|queued| Arc::clone(&queued.pod.name)).unwrap_or_default();
            format!("pod {name:?}: {}", reason.cause.message())
        });
        let (mut eviction, said) = match room {
            Ok(plan) => (self.promise_gang(&cycle, plan, now), String::new()),
            Err(said) => (None, said),
        };
        let mut text = verdict.message();
        if cycle.domains.len() > 1 {
            text.push_str(&format!(" in the last of {} domains", cycle.domains.len()));
        }
        let first = first.map(|first| format!("; {first}")).unwrap_or_default();
        let separator = if said.is_empty() { "" } else { " " };
        let text = format!("{text}{first}{separator}{said}");
        // Whoever has to wait for the others is tried again with them, and without those that go meanwhile.
        let unfit = reasons.iter().filter_map(|reason| match &reason.cause {
            Cause::Unfit(diagnosis) => Some(&diagnosis.plugins),
            _ => None,
        });
        let others: BTreeSet<&'static str> = unfit.flatten().chain(&cycle.blamed).copied().collect();
        let mut decisions = mem::take(&mut cycle.skipped);
        for queued in mem::take(&mut cycle.attempt.waiting) {
            let own = reasons.iter().position(|reason| reason.uid == queued.pod.uid);
            let cause = match own.map(|at| reasons.swap_remove(at).cause) {
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
            decisions.push(Decision::Refused(self.refuse_for(queued, cause, &others, eviction.take(), now)));
        }
        let outcome = Self::outcome(&cycle.gang, false, failed, text);
        self.hand_out(&mut cycle, decisions, outcome)
    }

    /// The group's pods are promised the nodes on which there will be room once the victims have gone, if there are any.
    fn promise_gang(&mut self, cycle: &GangCycle, plan: Plan, now: Instant) -> Option<Eviction> {
        let Plan { places, mut victims, groups } = plan;
        let node = Arc::clone(&victims.first()?.1);
        self.promise_places(cycle, places);
        if let Some(first) = cycle.attempt.waiting.front() {
            let uids = victims.iter().map(|(victim, _)| Arc::clone(&victim.uid)).collect();
            self.evicting.insert(Arc::clone(&first.pod.uid), Evicting { victims: uids, since: now });
        }
        victims.retain(|(victim, _)| !self.waiting.reject(&victim.uid, "DefaultPreemption", "preempted"));
        let groups = groups.iter().filter_map(|key| self.snapshot.groups.group(key).map(Arc::clone)).collect();
        Some(Eviction { node, victims: victims.into_iter().map(|(victim, _)| victim).collect(), groups })
    }

    /// The group's pods are promised these nodes, by their uids.
    pub(super) fn promise_places(&mut self, cycle: &GangCycle, places: Vec<(Arc<str>, Arc<str>)>) {
        for (uid, node) in places {
            if let Some(queued) = cycle.attempt.waiting.iter().find(|queued| queued.pod.uid == uid) {
                self.nominated.insert(Arc::clone(&queued.pod), node);
            }
        }
    }

    /// Answers the first decision; the others follow.
    pub(super) fn hand_out(
        &mut self,
        cycle: &mut GangCycle,
        decisions: Vec<Decision>,
        outcome: Option<GroupOutcome>,
    ) -> Decision {
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
