//! The scheduler's heart: queue, snapshot and cycles, without client, tasks or clock.
//!
//! Whoever drives an [`Engine`] brings the cluster's changes in ([`Engine::apply`]), asks for decisions ([`Engine::next`]), carries
//! them out, and tells how that went ([`Engine::bound`]). Every call is handed the time, and all chance comes from
//! [`SchedulerConfig::seed`], so the same calls give the same decisions. [`Scheduler`](crate::Scheduler) drives one against an
//! API; a simulation drives one in virtual time.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use rk_sched::{SchedulerConfig, engine::{Decision, Engine}};
//! use serde_json::json;
//! use tokio::time::Instant;
//!
//! let mut now = Instant::now();
//! let mut engine = Engine::new(&SchedulerConfig { seed: Some(1), ..SchedulerConfig::default() }, now)?;
//! let pod = json!({"metadata": {"name": "p", "namespace": "default", "uid": "1"}, "spec": {"containers": []}});
//! engine.set_pod(Arc::new(serde_json::from_value(pod)?), now);
//! let Some(Decision::Refused(refusal)) = engine.next(now) else { panic!("there is no node") };
//! assert_eq!(refusal.message(), "no nodes available to schedule pods");
//!
//! now += Duration::from_secs(5);
//! let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"pods": "10"}}});
//! engine.set_node(Arc::new(serde_json::from_value(node)?), now);
//! let Some(Decision::Place(placement)) = engine.next(now) else { panic!("there is one now") };
//! assert_eq!(&*placement.node, "n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ask;
mod binding;
mod changes;
mod decision;
mod explanations;
mod gang;
mod room;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::resource::v1::ResourceClaim;
use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

pub(crate) use self::gang::with_condition;
use self::room::{Evicting, Unfit};
pub use self::{
    ask::{Answer, Question},
    decision::{Cause, Decision, Eviction, Placement, Refusal},
    explanations::Explanations,
    gang::GroupOutcome,
};
pub use crate::cycle::{Explanation, GroupExplanation, NodeExplanation, NodeRefusal, PluginScore};
use crate::{
    cycle::{Cluster, Failure, Nominated},
    framework::{ClusterEvent, CycleState, Diagnosis, Extender, PermitAnswer, Profile, Status, WaitingPods},
    model::{PodInfo, Snapshot},
    queue::{Queue, QueuedPod, Waits},
    scheduler::{ConfigError, SchedulerConfig},
};

/// How often pods that have been unschedulable for too long are looked for (`flushUnschedulablePodsLeftover`).
const FLUSH: Duration = Duration::from_secs(30);

/// Decides which pod goes to which node.
pub struct Engine {
    profiles: Arc<HashMap<String, Arc<Profile>>>,
    percentage_of_nodes_to_score: u8,
    waiting: WaitingPods,
    extenders: Vec<Arc<dyn Extender>>,
    explanations: Explanations,
    queue: Queue,
    snapshot: Snapshot,
    nominated: Nominated,
    /// Pods that were just placed elsewhere than promised, and of which that is still to be told.
    vacated: Vec<Arc<PodInfo>>,
    /// Pods that were placed and that the cluster does not show on their nodes yet.
    assumed: HashMap<Arc<str>, QueuedPod>,
    /// Pods that went while they were being bound: what Reserve plugins hold for them is free once that has ended.
    leaving: HashMap<Arc<str>, Arc<PodInfo>>,
    /// Who has to go for a pod that waits for it.
    evicting: HashMap<Arc<str>, Evicting>,
    random: StdRng,
    /// Where the last cycle stopped trying nodes.
    start: usize,
    /// Decisions on a gang that are still to be handed out.
    ready: VecDeque<Decision>,
    /// The claim whose allocation PostFilter has just asked to take back.
    deallocation: Option<Arc<ResourceClaim>>,
    /// When those that have been unschedulable for too long are looked for next.
    flush: Instant,
}

impl Engine {
    /// An engine that knows of no node and no pod.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(config: &SchedulerConfig, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let sort = config.profiles.first().ok_or(ConfigError::NoProfile)?.queue_sort();
        let named = |profile: &Profile| (profile.scheduler_name().to_owned(), Arc::new(profile.clone()));
        let profiles: Arc<HashMap<_, _>> = Arc::new(config.profiles.iter().map(named).collect());
        let waits = Waits {
            initial_backoff: config.initial_backoff,
            max_backoff: config.max_backoff,
            unschedulable: config.unschedulable_timeout,
        };
        Ok(Self {
            queue: Queue::new(Arc::clone(&profiles), Arc::clone(sort), waits),
            random: config.seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64),
            profiles,
            percentage_of_nodes_to_score: config.percentage_of_nodes_to_score,
            waiting: config.waiting.clone(),
            extenders: config.extenders.clone(),
            explanations: config.explanations.clone(),
            snapshot: Snapshot::default(),
            nominated: Nominated::default(),
            vacated: Vec::new(),
            assumed: HashMap::new(),
            leaving: HashMap::new(),
            evicting: HashMap::new(),
            start: 0,
            ready: VecDeque::new(),
            deallocation: None,
            flush: now + FLUSH,
        })
    }

    /// The cluster as the engine sees it, pods included that it has placed and that are not bound yet.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many pods are active, in back-off and unschedulable.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.queue.counts()
    }

    /// Whether a pod was placed, and the cluster does not show it on its node yet.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains_key(uid)
    }

    /// Runs the cycle of the pod whose turn it is; `None` if no pod is to be tried now. Then ask again after a change of
    /// the cluster, or by [`Engine::wake_at`].
    pub fn next(&mut self, now: Instant) -> Option<Decision> {
        if let Some(decision) = self.ready.pop_front() {
            return Some(decision);
        }
        if self.flush <= now {
            self.queue.flush_unschedulable(&self.snapshot, now);
            self.flush = now + FLUSH;
        }
        loop {
            let queued = self.queue.pop(&self.snapshot, now)?;
            match self.profiles.get(queued.pod.scheduler_name()).map(Arc::clone) {
                Some(profile) => match self.gang_of(&queued.pod, &profile) {
                    Some(gang) => return Some(self.schedule_gang(queued, gang, &profile, now)),
                    None if self.explanations.want(&queued.pod) => {
                        return Some(self.schedule_explained(queued, &profile, now));
                    }
                    None => return Some(self.schedule(queued, &profile, now)),
                },
                None => self.queue.remove(&queued.pod.uid),
            }
        }
    }

    /// When a pod is to be tried again that waits for time to pass.
    pub fn wake_at(&self) -> Option<Instant> {
        let (_, _, unschedulable) = self.queue.counts();
        [self.queue.next_backoff(), (unschedulable > 0).then_some(self.flush)].into_iter().flatten().min()
    }

    /// What the plugins say of a pod that waits on each node as things are, and what it went through; `None` for a pod that does not
    /// wait, or that no profile is for.
    pub fn explain(&self, uid: &str) -> Option<Explanation> {
        let queued = self.queue.queued(uid)?;
        Some(self.explanation(queued, self.profiles.get(queued.pod.scheduler_name())?))
    }

    fn explanation(&self, queued: &QueuedPod, profile: &Profile) -> Explanation {
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let pod = &queued.pod;
        let history = queued.history().cloned().collect();
        Explanation { history, gate: self.gate(pod, profile), group: self.group_of(pod), ..cluster.explain(pod) }
    }

    /// The first word of a PreEnqueue plugin against a pod.
    fn gate(&self, pod: &PodInfo, profile: &Profile) -> Option<NodeRefusal> {
        let plugins = profile.enabled().iter().filter_map(|enabled| enabled.points.pre_enqueue.as_ref());
        let mut words = plugins.map(|plugin| plugin.pre_enqueue(pod, &self.snapshot).from_plugin(plugin.name()));
        words.find(|status| !status.is_success()).map(|status| NodeRefusal::new(&status))
    }

    fn schedule_explained(&mut self, queued: QueuedPod, profile: &Arc<Profile>, now: Instant) -> Decision {
        let mut explanation = self.explanation(&queued, profile);
        let decision = self.schedule(queued, profile, now);
        explanation.decision = decision.shown();
        self.explanations.note(explanation);
        decision
    }

    /// One pod's scheduling cycle.
    fn schedule(&mut self, queued: QueuedPod, profile: &Arc<Profile>, now: Instant) -> Decision {
        let pod = Arc::clone(&queued.pod);
        if pod.terminating() {
            self.queue.remove(&pod.uid);
            return Decision::Skip(pod);
        }
        if let Some(extenders) = self.interested(&pod) {
            return self.put_to(extenders, queued, profile, true, now);
        }
        let percent = self.percent(profile);
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        match cluster.schedule(&pod, percent, &mut self.start, &mut self.random) {
            Ok(chosen) => {
                let node = Arc::clone(&self.snapshot.node(chosen.node).name);
                self.place(queued, profile, node, chosen.state, now)
            }
            Err(Failure::Unfit(diagnosis, state)) => {
                Decision::Refused(self.unfit(queued, profile, &state, diagnosis, now))
            }
            Err(Failure::Error(status)) => Decision::Refused(self.refuse(queued, Cause::Failed(status), None, now)),
        }
    }

    /// No node would do: runs PostFilter, and puts the pod back into the queue.
    fn unfit(
        &mut self,
        queued: QueuedPod,
        profile: &Profile,
        state: &CycleState,
        mut diagnosis: Box<Diagnosis>,
        now: Instant,
    ) -> Refusal {
        let unfit = Unfit::new(&queued.pod, profile, state, &mut diagnosis);
        let room = self.find_room(unfit, now);
        let eviction = self.promise(&queued.pod, room, now);
        self.refuse(queued, Cause::Unfit(diagnosis), eviction, now)
    }

    fn percent(&self, profile: &Profile) -> u8 {
        profile.percentage_of_nodes_to_score.unwrap_or(self.percentage_of_nodes_to_score)
    }

    /// The pod has a node: assumes it there, then Reserve and Permit.
    fn place(
        &mut self,
        queued: QueuedPod,
        profile: &Arc<Profile>,
        node: Arc<str>,
        state: CycleState,
        now: Instant,
    ) -> Decision {
        match self.assume(&queued, profile, node, state) {
            Ok(placement) => self.permit(queued, placement, now),
            Err(status) => Decision::Refused(self.turned_away(queued, status, now)),
        }
    }

    /// A Reserve or Permit plugin is against the node: the pod was never anywhere, so nobody has more room for it.
    fn turned_away(&mut self, queued: QueuedPod, status: Status, now: Instant) -> Refusal {
        self.snapshot.remove_pod(&queued.pod.uid);
        self.refuse_placed(queued, status, now)
    }

    /// Assumes the pod on its node, and runs Reserve.
    ///
    /// # Errors
    /// A plugin is against it; what was reserved is not any more, but the pod is still on the node.
    fn assume(
        &mut self,
        queued: &QueuedPod,
        profile: &Arc<Profile>,
        node: Arc<str>,
        state: CycleState,
    ) -> Result<Placement, Status> {
        let (pod, attempts, since) = (Arc::clone(&queued.pod), queued.attempts, queued.since);
        self.snapshot.set_pod(Arc::clone(&pod), &node);
        let promised = self.nominated.node_of(&pod.uid).is_some_and(|promised| *promised != node);
        self.vacated.extend(self.nominated.remove(&pod.uid).filter(|_| promised));
        self.evicting.remove(&pod.uid);
        let binders = self.binders(&pod);
        let own = Arc::clone(profile);
        let mut placement = Placement { profile: own, state, pod, node, waited: None, binders, attempts, since };
        for plugin in profile.enabled().iter().filter_map(|enabled| enabled.points.reserve.as_ref()) {
            let status = plugin.reserve(&mut placement.state, &placement.pod, &placement.node);
            if !status.is_success() {
                placement.unreserve();
                return Err(status.failed_at("Reserve", plugin.name()));
            }
        }
        Ok(placement)
    }

    /// Runs Permit for a pod that has its node.
    fn permit(&mut self, queued: QueuedPod, mut placement: Placement, now: Instant) -> Decision {
        self.vacate(now);
        let profile = Arc::clone(&placement.profile);
        let mut waits = Vec::new();
        for plugin in profile.enabled().iter().filter_map(|enabled| enabled.points.permit.as_ref()) {
            match plugin.permit(&placement.state, &placement.pod, &placement.node) {
                PermitAnswer::Allow => {}
                PermitAnswer::Wait(patience) => waits.push((plugin.name(), patience)),
                PermitAnswer::Deny(status) => {
                    placement.unreserve();
                    let status = status.failed_at("Permit", plugin.name());
                    return Decision::Refused(self.turned_away(queued, status, now));
                }
            }
        }
        if waits.is_empty() {
            self.queue.landed(&placement.pod.uid);
        } else {
            let (pod, node) = (Arc::clone(&placement.pod), Arc::clone(&placement.node));
            placement.waited = Some(self.waiting.insert(pod, node, waits, now));
        }
        self.assumed.insert(Arc::clone(&placement.pod.uid), queued);
        Decision::Place(placement)
    }

    /// Tells how the binding of a placed pod ended. One that failed was [unreserved](Placement::unreserve) before; its node is free again
    /// for others, and why it was refused is answered. For a pod that was deleted meanwhile others are told that what it held is free; nothing
    /// is left to do for one that was seen on its node.
    pub fn bound(&mut self, uid: &str, status: Status, now: Instant) -> Option<Refusal> {
        if let Some(pod) = self.leaving.remove(uid) {
            self.queue.on_event(&ClusterEvent::AssignedPodDelete(pod), &self.snapshot, now);
            return None;
        }
        if status.is_success() {
            if self.assumed.contains_key(uid) {
                self.queue.remove(uid);
            }
            return None;
        }
        let queued = self.assumed.remove(uid)?;
        self.snapshot.remove_pod(&queued.pod.uid);
        self.queue.on_event(&ClusterEvent::AssignedPodDelete(Arc::clone(&queued.pod)), &self.snapshot, now);
        Some(self.refuse_placed(queued, status, now))
    }

    /// A placed pod does not get to its node.
    fn refuse_placed(&mut self, queued: QueuedPod, status: Status, now: Instant) -> Refusal {
        let cause = match status.is_rejected() {
            true => Cause::Unfit(Box::new(Diagnosis::of_chosen(status))),
            false => Cause::Failed(status),
        };
        self.refuse(queued, cause, None, now)
    }

    /// Puts a pod back into the queue.
    fn refuse(&mut self, queued: QueuedPod, cause: Cause, eviction: Option<Eviction>, now: Instant) -> Refusal {
        self.refuse_for(queued, cause, &BTreeSet::new(), eviction, now)
    }

    /// Puts a pod back into the queue; a rejection is for others that these plugins refused, so what changes their mind wakes it as well.
    fn refuse_for(
        &mut self,
        mut queued: QueuedPod,
        cause: Cause,
        others: &BTreeSet<&'static str>,
        eviction: Option<Eviction>,
        now: Instant,
    ) -> Refusal {
        self.vacate(now);
        let pod = Arc::clone(&queued.pod);
        let attempts = queued.attempts;
        match &cause {
            Cause::Unfit(diagnosis) => {
                queued.plugins.clone_from(&diagnosis.plugins);
                queued.pending.clone_from(&diagnosis.pending);
                self.queue.refused(queued, &self.snapshot, now);
            }
            Cause::Rejected(status) => {
                let mut blamed = Diagnosis::new(0);
                blamed.blame(status);
                blamed.plugins.extend(others);
                (queued.plugins, queued.pending) = (blamed.plugins, blamed.pending);
                self.queue.refused(queued, &self.snapshot, now);
            }
            Cause::Failed(_) => self.queue.failed(queued, now),
        }
        let nominated = self.nominated.node_of(&pod.uid).map(Arc::clone);
        Refusal { pod, cause, nominated, eviction, deallocation: self.deallocation.take(), attempts }
    }
}
