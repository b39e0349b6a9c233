//! A group that has no room is tried with all less important pods gone (KEP-5710, workload-aware preemption).
//!
//! Extenders are asked about its pods as if those were gone, as kube-scheduler's pod group cycle does, whose preemption runs the same
//! algorithm again (`PodGroupEvaluator.Preempt`). They have no say on who goes: the preempt verb of an extender is about one pod and the
//! victims on each node (`ExtenderPreemptionArgs`), and kube-scheduler 1.36 does not call it (`ProcessPreemption`) for a group.
//! While they are asked the less important pods are where they are, so that what is heard of them meanwhile counts.

use std::mem;

use tokio::time::Instant;

use super::{
    Attempt, Engine, GangCycle, Promise, Reason, Step, Tried,
    ask::Answered,
    preempt::{Place, Plan, TooMany, Unit},
};
use crate::{
    engine::{Cause, Decision},
    framework::Status,
    plugins::LEAVING,
};

/// Why the group has no room as things are.
pub(super) struct NoRoom {
    pub(super) verdict: Status,
    pub(super) reasons: Vec<Reason>,
}

impl NoRoom {
    /// Whether something failed.
    pub(super) fn failed(&self) -> bool {
        self.reasons.iter().any(|reason| matches!(reason.cause, Cause::Failed(_)))
    }
}

/// A group that is tried with less important pods gone.
pub(super) struct Trial {
    no_room: NoRoom,
    /// Whoever has less may have to go.
    priority: i32,
}

impl Trial {
    /// A pod is no part of the cycle any more.
    pub(super) fn forget(&mut self, uid: &str) {
        self.no_room.reasons.retain(|reason| *reason.uid != *uid);
    }
}

fn said<T>(text: &str) -> Result<T, String> {
    Err(format!("preemption: {text}"))
}

impl Engine {
    /// Tries the group with all less important pods gone, if they may have to go for it; else it waits.
    pub(super) fn make_room(&mut self, mut cycle: Box<GangCycle>, no_room: NoRoom, now: Instant) -> Decision {
        match self.may_make_room(&cycle, now) {
            Ok(priority) => {
                cycle.at = 0;
                cycle.attempt.scheduled = cycle.before;
                cycle.trial = Some(Trial { no_room, priority });
                self.go_on_without_victims(cycle, None, now)
            }
            Err(why) => self.wait_for_room(cycle, no_room, Err(why), now),
        }
    }

    /// Whether less important pods may have to go: the priority of the group.
    ///
    /// # Errors
    /// What to say of why they may not; empty for nothing.
    fn may_make_room(&mut self, cycle: &GangCycle, now: Instant) -> Result<i32, String> {
        let members = || cycle.attempt.waiting.iter().map(|queued| &queued.pod);
        if members().any(|pod| self.awaits_victims(&pod.uid, now) || self.room_is_being_made(pod)) {
            return said(LEAVING);
        }
        // Earlier promises are void: there is no room by them. Those that they kept away may fit now; nobody has seen one of this cycle.
        for pod in members() {
            match cycle.again {
                true => drop(self.nominated.remove(&pod.uid)),
                false => self.take_promise(&pod.uid, now),
            }
            self.evicting.remove(&pod.uid);
        }
        let possible = cycle.before + members().count() >= cycle.gang.min_count;
        if cycle.domains.is_empty() || !possible || !cycle.profile.has("DefaultPreemption") {
            return Err(String::new());
        }
        if members().any(|pod| pod.spec().preemption_policy.as_deref() == Some("Never")) {
            return said("not eligible due to preemptionPolicy=Never.");
        }
        let least = members().map(|pod| pod.priority).min().unwrap_or(0);
        let priority = cycle.gang.group.spec.priority.unwrap_or(least);
        if self.units(&cycle.gang.key, priority).is_empty() {
            return said("No preemption victims found for incoming pod group.");
        }
        Ok(priority)
    }

    /// Tries the group's pods with the less important ones gone, in the first domain that will do, until it is known who has to go or
    /// extenders are to be asked.
    pub(super) fn go_on_without_victims(
        &mut self,
        mut cycle: Box<GangCycle>,
        mut answered: Option<Answered>,
        now: Instant,
    ) -> Decision {
        let Some(priority) = cycle.trial.as_ref().map(|trial| trial.priority) else {
            return self.go_on(cycle, answered, now);
        };
        let units = self.units(&cycle.gang.key, priority);
        units.iter().for_each(|unit| self.take_away(unit));
        loop {
            let verdict = cycle.verdict();
            let step = match answered.take() {
                Some(answered) => Some(self.heed(answered, &cycle)),
                None if verdict.is_rejected() => None,
                None => {
                    let next = cycle.attempt.waiting.pop_front();
                    next.map(|queued| self.try_member(queued, &cycle, false))
                }
            };
            match step {
                Some(Step::Done(tried)) => {
                    let failed = matches!(tried, Tried::Failed(..));
                    cycle.note(tried);
                    if !failed {
                        continue;
                    }
                }
                Some(Step::Ask(queued, extenders, found, promised)) => {
                    units.iter().for_each(|unit| self.put_back(unit));
                    return self.ask_about(cycle, queued, extenders, found, promised);
                }
                None if verdict.is_success() => {
                    let plan = match self.plan(&mut cycle, &units) {
                        Ok(plan) if plan.victims.is_empty() && !cycle.again => {
                            return self.once_more(cycle, plan, now);
                        }
                        Ok(plan) => Ok(plan),
                        Err(TooMany) => said("there are too many pods to choose victims among."),
                    };
                    return self.end_trial(cycle, None, plan, now);
                }
                None => {}
            }
            let reasons = self.take_back(&mut cycle.attempt);
            let failure = reasons.into_iter().find(|reason| matches!(reason.cause, Cause::Failed(_)));
            if failure.is_none() && cycle.at + 1 < cycle.domains.len() {
                cycle.attempt.scheduled = cycle.before;
                cycle.at += 1;
                continue;
            }
            units.iter().for_each(|unit| self.put_back(unit));
            let none = match failure {
                Some(_) => Err(String::new()),
                None => said("the pod group would not fit if all less important pods were gone."),
            };
            return self.end_trial(cycle, failure, none, now);
        }
    }

    /// The group fits, and nobody has to go: the cluster has changed while extenders were asked, or the pods found better places this time.
    /// It is tried there as things are.
    fn once_more(&mut self, mut cycle: Box<GangCycle>, plan: Plan, now: Instant) -> Decision {
        self.promise_places(&cycle, plan.places);
        (cycle.again, cycle.trial) = (true, None);
        (cycle.at, cycle.fitting, cycle.best) = (0, 0, None);
        cycle.attempt.scheduled = cycle.before;
        self.go_on(cycle, None, now)
    }

    /// The group waits: for the room that is made, for an event, or for a while where something failed.
    fn end_trial(
        &mut self,
        mut cycle: Box<GangCycle>,
        failure: Option<Reason>,
        room: Result<Plan, String>,
        now: Instant,
    ) -> Decision {
        let verdict = cycle.verdict();
        let mut no_room = match cycle.trial.take() {
            Some(trial) => trial.no_room,
            None => NoRoom { verdict, reasons: Vec::new() },
        };
        if let Some(failure) = failure {
            no_room.reasons.retain(|reason| reason.uid != failure.uid);
            no_room.reasons.insert(0, failure);
        }
        self.wait_for_room(cycle, no_room, room, now)
    }

    /// The group fits with all of these units gone: who of them has to go. All is as it was afterwards.
    fn plan(&mut self, cycle: &mut GangCycle, units: &[Unit]) -> Result<Plan, TooMany> {
        let Attempt { tried, waiting, .. } = mem::take(&mut cycle.attempt);
        let mut placed: Vec<Place> = Vec::new();
        for tried in tried {
            placed.push(match tried {
                Tried::Placed(queued, placement, promise) => {
                    // What plugins keep for it has nothing to do with the victims, and would be in its own way.
                    placement.unreserve();
                    (queued, Some(placement.node), promise)
                }
                Tried::Unfit(queued, ..) | Tried::Rejected(queued, _) | Tried::Failed(queued, _) => {
                    (queued, None, Promise::default())
                }
            });
        }
        placed.extend(waiting.into_iter().map(|queued| (queued, None, Promise::default())));
        let plan = self.spare_most(&placed, units, &cycle.profile);
        for (queued, node, promise) in placed {
            if node.is_some() {
                self.snapshot.remove_pod(&queued.pod.uid);
                self.promise_again(&queued.pod, promise);
            }
            cycle.attempt.waiting.push_back(queued);
        }
        for unit in units {
            self.put_back(unit);
        }
        plan
    }
}
