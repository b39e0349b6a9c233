//! The pod group cycle: all pods of a group that wait are tried on one picture of the cluster, and of a gang they are placed together or
//! not at all (<https://kubernetes.io/docs/concepts/scheduling-eviction/podgroup-scheduling/>, KEP-4671).
//!
//! A cycle is a value that goes on where it stopped ([`GangCycle`]): where extenders have a say on a pod, the engine answers with what
//! is to be asked, and the cycle waits in the question (`ask.rs`). Without enough room the group is tried with all less important pods
//! gone (`trial.rs`), of which as many stay as can (`preempt.rs`); what is said of the group as a whole is in `outcome.rs`.

mod ask;
mod domains;
mod outcome;
mod preempt;
mod settle;
mod trial;

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    sync::Arc,
};

use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use tokio::time::Instant;

pub use self::outcome::GroupOutcome;
pub(crate) use self::outcome::with_condition;
use self::{ask::Answered, domains::Domain, trial::Trial};
use super::{Cause, Decision, Engine, Evicting, GroupExplanation, Placement, ask::Nodes};
use crate::{
    cycle::{Cluster, Explanation, Failure, Found},
    framework::{CycleState, Diagnosis, Extender, Profile, Status},
    model::{GroupKey, PodInfo, group_of},
    plugins::GangScheduling,
    queue::QueuedPod,
};

/// A group whose pods are to be placed.
#[derive(Debug, Clone)]
pub(super) struct Gang {
    key: GroupKey,
    group: Arc<PodGroup>,
    /// How many of its pods have to be on nodes for any to be; 1 for a group that is no gang.
    min_count: usize,
}

/// What was promised to a pod before it was tried.
#[derive(Default)]
struct Promise {
    node: Option<Arc<str>>,
    evicting: Option<Evicting>,
}

/// How one pod of the group fared.
#[allow(clippy::large_enum_variant, reason = "most are of the largest kind")]
enum Tried {
    /// It is on its node, for now.
    Placed(QueuedPod, Placement, Promise),
    Unfit(QueuedPod, Box<Diagnosis>, CycleState),
    /// A Reserve plugin was against it.
    Rejected(QueuedPod, Status),
    Failed(QueuedPod, Status),
}

/// Why one of the group's pods has no node.
struct Reason {
    uid: Arc<str>,
    cause: Cause,
    /// For PostFilter.
    state: Option<CycleState>,
}

/// What a try came to: how the pod fared, or what extenders are to be asked first.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Step {
    Done(Tried),
    Ask(QueuedPod, Vec<Arc<dyn Extender>>, Box<Found>, bool),
}

/// One try of all pods that wait, in one domain.
#[derive(Default)]
struct Attempt {
    waiting: VecDeque<QueuedPod>,
    tried: Vec<Tried>,
    /// Pods of the group on nodes, those that were so before included.
    scheduled: usize,
}

/// A pod group cycle that is under way.
pub(super) struct GangCycle {
    gang: Gang,
    profile: Arc<Profile>,
    /// Where the pods may go together; they are tried in one after the other.
    domains: Vec<Domain>,
    at: usize,
    /// How many of the domains would do, and the best of those so far by its score.
    fitting: usize,
    best: Option<(i64, usize)>,
    /// Pods that were on nodes before.
    before: usize,
    attempt: Attempt,
    /// Once there was no room: the group is tried with less important pods gone.
    trial: Option<Trial>,
    /// Whether it is tried again where it fitted without anybody going.
    again: bool,
    /// The plugins that said no in any domain.
    blamed: BTreeSet<&'static str>,
    skipped: Vec<Decision>,
    explained: Vec<(Arc<str>, Explanation)>,
}

/// So many domains that would do are compared.
const DOMAINS_COMPARED: usize = 16;

impl Engine {
    /// The group that the pod is one of, if the profile places groups together.
    pub(super) fn gang_of(&self, pod: &PodInfo, profile: &Profile) -> Option<Gang> {
        let key = group_of(pod).filter(|_| profile.has(GangScheduling::NAME))?;
        let group = Arc::clone(self.snapshot.groups.group(&key)?);
        let min_count = self.snapshot.groups.min_count(&key).unwrap_or(1);
        Some(Gang { key, group, min_count })
    }

    /// What there is to explain of a pod's group.
    pub(super) fn group_of(&self, pod: &PodInfo) -> Option<GroupExplanation> {
        let key = group_of(pod)?;
        let groups = &self.snapshot.groups;
        Some(GroupExplanation {
            name: key.1.to_string(),
            min_count: groups.min_count(&key),
            pods: groups.members(&key).len(),
            on_nodes: self.on_nodes(&key),
            condition: groups.group(&key).and_then(|group| outcome::shown(group)),
        })
    }

    fn on_nodes(&self, key: &GroupKey) -> usize {
        self.snapshot.groups.members(key).filter(|uid| self.snapshot.node_of(uid).is_some()).count()
    }

    /// Tries all of the group's pods that wait. There is a decision for each of them, of which this answers the first, and one for the
    /// group where there is something to tell.
    pub(super) fn schedule_gang(
        &mut self,
        first: QueuedPod,
        gang: Gang,
        profile: &Arc<Profile>,
        now: Instant,
    ) -> Decision {
        let mut skipped = Vec::new();
        let mut members = vec![first];
        members.extend(self.queue.take(self.snapshot.groups.members(&gang.key), profile, &self.snapshot, now));
        members.retain(|queued| {
            if queued.pod.terminating() {
                self.queue.remove(&queued.pod.uid);
                skipped.push(Decision::Skip(Arc::clone(&queued.pod)));
            }
            !queued.pod.terminating()
        });
        let before = self.on_nodes(&gang.key);
        let domains = self.domains(&gang);
        let attempt = Attempt { waiting: members.into(), tried: Vec::new(), scheduled: before };
        let mut cycle = Box::new(GangCycle {
            gang,
            profile: Arc::clone(profile),
            domains: Vec::new(),
            at: 0,
            fitting: 0,
            best: None,
            before,
            attempt,
            trial: None,
            again: false,
            blamed: BTreeSet::new(),
            skipped,
            explained: Vec::new(),
        });
        match domains {
            Ok(domains) => {
                cycle.domains = domains;
                self.go_on(cycle, None, now)
            }
            Err(status) => self.refuse_gang(cycle, &status, now),
        }
    }

    /// Tries one pod after the other, in one domain after the other, until it is known what becomes of the group or extenders are to be
    /// asked. What they `answered` about the pod whose turn it was comes first.
    fn go_on(&mut self, mut cycle: Box<GangCycle>, mut answered: Option<Answered>, now: Instant) -> Decision {
        loop {
            let verdict = cycle.verdict();
            let step = match answered.take() {
                Some(answered) => Some(self.heed(answered, &cycle)),
                None if verdict.is_rejected() => None,
                None => cycle.attempt.waiting.pop_front().map(|queued| {
                    if self.explanations.want(&queued.pod) {
                        let explanation = self.explanation(&queued, &cycle.profile);
                        cycle.explained.push((Arc::clone(&queued.pod.uid), explanation));
                    }
                    self.try_member(queued, &cycle, true)
                }),
            };
            match step {
                Some(Step::Done(tried)) => {
                    cycle.note(tried);
                    continue;
                }
                Some(Step::Ask(queued, extenders, found, promised)) => {
                    return self.ask_about(cycle, queued, extenders, found, promised);
                }
                None => {}
            }
            if verdict.is_success() && self.is_chosen(&mut cycle) {
                return self.settle_gang(cycle, now);
            }
            cycle.blame();
            if cycle.at + 1 < cycle.domains.len() && cycle.fitting < DOMAINS_COMPARED && !cycle.is_last() {
                cycle.at += 1;
            } else if let Some((_, best)) = cycle.best.take() {
                // The best of those that would do, once more.
                cycle.domains = vec![cycle.domains.swap_remove(best)];
                cycle.at = 0;
            } else {
                return self.refuse_gang(cycle, &verdict, now);
            }
            self.take_back(&mut cycle.attempt);
            cycle.attempt.scheduled = cycle.before;
        }
    }

    /// Whether the group stays where it is now, which will do: there is no other domain to compare this one with.
    fn is_chosen(&self, cycle: &mut GangCycle) -> bool {
        if cycle.domains.len() == 1 {
            return true;
        }
        cycle.fitting += 1;
        let score = self.score_of(&cycle.domains[cycle.at], &cycle.attempt);
        let better = cycle.best.is_none_or(|(best, _)| score > best);
        if better {
            cycle.best = Some((score, cycle.at));
        }
        better && cycle.is_last()
    }

    /// Finds a node for one of the group's pods, and assumes it there, unless extenders have a say on it. The node that was promised to it
    /// is tried alone first if `promised`.
    fn try_member(&mut self, queued: QueuedPod, cycle: &GangCycle, promised: bool) -> Step {
        let (profile, pod) = (&cycle.profile, Arc::clone(&queued.pod));
        let extenders = self.interested(&pod);
        let percent = self.percent(profile);
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let alone = cluster.promised(&pod).filter(|_| promised);
        let within = cycle.domains[cycle.at].within.as_ref();
        match (cluster.find(&pod, percent, &mut self.start, promised, within), extenders) {
            (Ok(found), Some(extenders)) => {
                let promised = alone.is_some_and(|node| found.nodes == [node]);
                Step::Ask(queued, extenders, Box::new(found), promised)
            }
            (Ok(found), None) => Step::Done(self.choose_member(queued, profile, found, None)),
            (Err(Failure::Unfit(diagnosis, state)), _) => Step::Done(Tried::Unfit(queued, diagnosis, state)),
            (Err(Failure::Error(status)), _) => Step::Done(Tried::Failed(queued, status)),
        }
    }

    /// Chooses one of the nodes that would do, and assumes the pod there. What extenders say is added to the scores of the plugins.
    fn choose_member(
        &mut self,
        queued: QueuedPod,
        profile: &Arc<Profile>,
        found: Found,
        said: Option<&Nodes>,
    ) -> Tried {
        let uid = Arc::clone(&queued.pod.uid);
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let more = |index| said.map_or(0, |nodes| nodes.score_of(&self.snapshot, index));
        let chosen = match cluster.choose(&queued.pod, found, more, &mut self.random) {
            Ok(chosen) => chosen,
            Err(Failure::Unfit(diagnosis, state)) => return Tried::Unfit(queued, diagnosis, state),
            Err(Failure::Error(status)) => return Tried::Failed(queued, status),
        };
        let node = Arc::clone(&self.snapshot.node(chosen.node).name);
        // To assume it ends what was promised; should the group not come to be placed, it is promised again.
        let promise =
            Promise { node: self.nominated.node_of(&uid).map(Arc::clone), evicting: self.evicting.remove(&uid) };
        match self.assume(&queued, profile, node, chosen.state) {
            Ok(placement) => Tried::Placed(queued, placement, promise),
            Err(status) => {
                self.snapshot.remove_pod(&uid);
                self.promise_again(&queued.pod, promise);
                if status.is_rejected() { Tried::Rejected(queued, status) } else { Tried::Failed(queued, status) }
            }
        }
    }

    fn promise_again(&mut self, pod: &Arc<PodInfo>, promise: Promise) {
        // So it left no room to anybody.
        self.vacated.retain(|vacated| vacated.uid != pod.uid);
        if let Some(node) = promise.node {
            self.nominated.insert(Arc::clone(pod), node);
        }
        if let Some(evicting) = promise.evicting {
            self.evicting.insert(Arc::clone(&pod.uid), evicting);
        }
    }

    /// What nobody has seen is taken back without a word: the nodes are as free as they were, and all pods wait in their order. Answers
    /// why those wait that could not be placed.
    fn take_back(&mut self, attempt: &mut Attempt) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for tried in mem::take(&mut attempt.tried).into_iter().rev() {
            let (queued, cause, state) = match tried {
                Tried::Placed(queued, placement, promise) => {
                    placement.unreserve();
                    self.snapshot.remove_pod(&queued.pod.uid);
                    self.promise_again(&queued.pod, promise);
                    attempt.waiting.push_front(queued);
                    continue;
                }
                Tried::Unfit(queued, diagnosis, state) => (queued, Cause::Unfit(diagnosis), Some(state)),
                Tried::Rejected(queued, status) => (queued, Cause::Rejected(status), None),
                Tried::Failed(queued, status) => (queued, Cause::Failed(status), None),
            };
            reasons.push(Reason { uid: Arc::clone(&queued.pod.uid), cause, state });
            attempt.waiting.push_front(queued);
        }
        reasons.reverse();
        reasons
    }
}

impl GangCycle {
    fn verdict(&self) -> Status {
        GangScheduling::feasible(self.gang.min_count, self.attempt.scheduled, self.attempt.waiting.len())
    }

    fn note(&mut self, tried: Tried) {
        self.attempt.scheduled += usize::from(matches!(tried, Tried::Placed(..)));
        self.attempt.tried.push(tried);
    }

    /// Whether no other domain is compared with this one.
    fn is_last(&self) -> bool {
        self.at + 1 == self.domains.len() || self.fitting >= DOMAINS_COMPARED
    }

    /// Notes which plugins refused a pod in this domain: what changes their mind may make it do.
    fn blame(&mut self) {
        for tried in &self.attempt.tried {
            if let Tried::Unfit(_, diagnosis, _) = tried {
                self.blamed.extend(diagnosis.plugins.iter().copied());
            }
        }
    }
}
