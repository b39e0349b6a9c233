//! The pod group cycle: all pods of a gang that wait are tried on one picture of the cluster, and placed together or not at all
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/podgroup-scheduling/>, KEP-4671).

use std::sync::Arc;

use tokio::time::Instant;

use super::{Cause, Decision, Engine, Placement};
use crate::{
    cycle::{Cluster, Failure},
    framework::{CycleState, Diagnosis, Profile, Status},
    model::{GroupKey, PodInfo, group_of},
    plugins::GangScheduling,
    queue::QueuedPod,
};

/// A gang that is to be placed.
pub(super) struct Gang {
    key: GroupKey,
    min_count: usize,
}

/// How one pod of the gang fared.
enum Tried {
    /// It is on its node, for now.
    Placed(QueuedPod, Placement),
    Unfit(QueuedPod, Box<Diagnosis>, CycleState),
    /// A Reserve plugin was against it.
    Rejected(QueuedPod, Status),
    Failed(QueuedPod, Status),
}

impl Engine {
    /// The gang that the pod is one of, if the profile places gangs together.
    pub(super) fn gang_of(&self, pod: &PodInfo, profile: &Profile) -> Option<Gang> {
        let key = group_of(pod)?;
        let enabled = profile.enabled().iter().any(|enabled| enabled.plugin.name() == GangScheduling::NAME);
        let min_count = self.snapshot.groups.min_count(&key).filter(|_| enabled)?;
        Some(Gang { key, min_count })
    }

    /// Tries all of the gang's pods that wait. There is a decision for each of them.
    pub(super) fn schedule_gang(
        &mut self,
        first: QueuedPod,
        gang: &Gang,
        profile: &Arc<Profile>,
        now: Instant,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut members = vec![first];
        members.extend(self.queue.take(self.snapshot.groups.members(&gang.key), profile, &self.snapshot, now));
        members.retain(|queued| {
            if queued.pod.terminating() {
                self.queue.remove(&queued.pod.uid);
                decisions.push(Decision::Skip(Arc::clone(&queued.pod)));
            }
            !queued.pod.terminating()
        });
        let on_nodes = self.snapshot.groups.members(&gang.key).filter(|uid| self.snapshot.node_of(uid).is_some());
        let mut scheduled = on_nodes.count();
        let mut members = members.into_iter();
        let mut verdict = GangScheduling::feasible(gang.min_count, scheduled, members.len());
        let mut tried = Vec::with_capacity(members.len());
        while !verdict.is_rejected()
            && let Some(queued) = members.next()
        {
            let outcome = self.try_member(queued, profile);
            scheduled += usize::from(matches!(outcome, Tried::Placed(..)));
            tried.push(outcome);
            verdict = GangScheduling::feasible(gang.min_count, scheduled, members.len());
        }
        if verdict.is_success() {
            decisions.extend(tried.into_iter().map(|tried| self.settle(tried, profile, now)));
            return decisions;
        }
        // What nobody has seen is taken back without a word: the nodes are as free as they were.
        for tried in tried.iter().rev() {
            if let Tried::Placed(queued, placement) = tried {
                placement.unreserve();
                self.snapshot.remove_pod(&queued.pod.uid);
            }
        }
        let verdict = verdict.from_plugin(GangScheduling::NAME);
        for tried in tried {
            let (queued, cause) = match tried {
                Tried::Placed(queued, _) => (queued, Cause::Rejected(verdict.clone())),
                // What makes room for this one brings the whole gang back.
                Tried::Unfit(queued, diagnosis, _) => (queued, Cause::Unfit(diagnosis)),
                Tried::Rejected(queued, status) => (queued, Cause::Rejected(status)),
                Tried::Failed(queued, status) => (queued, Cause::Failed(status)),
            };
            decisions.push(Decision::Refused(self.refuse(queued, cause, None, now)));
        }
        for queued in members {
            decisions.push(Decision::Refused(self.refuse(queued, Cause::Rejected(verdict.clone()), None, now)));
        }
        decisions
    }

    /// Finds a node for one of the gang's pods, and assumes it there.
    fn try_member(&mut self, queued: QueuedPod, profile: &Arc<Profile>) -> Tried {
        let percent = self.percent(profile);
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        match cluster.schedule(&queued.pod, percent, &mut self.start, &mut self.random) {
            Ok(chosen) => {
                let node = Arc::clone(&self.snapshot.node(chosen.node).name);
                match self.assume(&queued, profile, node, chosen.state) {
                    Ok(placement) => Tried::Placed(queued, placement),
                    Err(status) => {
                        self.snapshot.remove_pod(&queued.pod.uid);
                        if status.is_rejected() {
                            Tried::Rejected(queued, status)
                        } else {
                            Tried::Failed(queued, status)
                        }
                    }
                }
            }
            Err(Failure::Unfit(diagnosis, state)) => Tried::Unfit(queued, diagnosis, state),
            Err(Failure::Error(status)) => Tried::Failed(queued, status),
        }
    }

    /// The gang is placed; what becomes of one of its pods.
    fn settle(&mut self, tried: Tried, profile: &Arc<Profile>, now: Instant) -> Decision {
        match tried {
            Tried::Placed(queued, placement) => self.permit(queued, placement, now),
            Tried::Unfit(queued, diagnosis, state) => {
                Decision::Refused(self.unfit(queued, profile, &state, diagnosis, now))
            }
            Tried::Rejected(queued, status) => {
                Decision::Refused(self.refuse(queued, Cause::Rejected(status), None, now))
            }
            Tried::Failed(queued, status) => Decision::Refused(self.refuse(queued, Cause::Failed(status), None, now)),
        }
    }
}
