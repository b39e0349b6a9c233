//! Room that is made for a pod: PostFilter, the promise of a node, and who is on the way out for it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::RngExt;
use tokio::time::Instant;

use super::{Engine, Eviction};
use crate::{
    cycle::{Cluster, Room},
    framework::{ClusterEvent, CycleState, Diagnosis, NodeVictims, PostFilterContext, Profile},
    model::PodInfo,
    plugins::{LEAVING, is_hopeless},
};

/// After so long a victim that does not even begin to go is given up.
const EVICTION: Duration = Duration::from_secs(60);

/// Pods that have to go for another one, and when that was decided.
pub(super) struct Evicting {
    pub(super) victims: BTreeSet<Arc<str>>,
    pub(super) since: Instant,
}

/// A pod that no node would do for, as PostFilter is asked about it.
pub(super) struct Unfit<'a> {
    pub(super) pod: &'a PodInfo,
    pub(super) profile: &'a Profile,
    pub(super) state: &'a CycleState,
    pub(super) diagnosis: &'a mut Diagnosis,
    /// Where to note all proposals of preemption.
    pub(super) proposals: Option<&'a Mutex<Vec<NodeVictims>>>,
    /// Whether pods may go for this one alone.
    pub(super) preempts: bool,
}

impl<'a> Unfit<'a> {
    /// One that pods may go for, and whose proposals nobody else has a say on.
    pub(super) fn new(
        pod: &'a PodInfo,
        profile: &'a Profile,
        state: &'a CycleState,
        diagnosis: &'a mut Diagnosis,
    ) -> Self {
        Self { pod, profile, state, diagnosis, proposals: None, preempts: true }
    }
}

impl Engine {
    /// Runs PostFilter: room on a node for the pod, at the cost of other pods.
    pub(super) fn find_room(&mut self, unfit: Unfit<'_>, now: Instant) -> Option<Room> {
        let cluster = Cluster { profile: unfit.profile, snapshot: &self.snapshot, nominated: &self.nominated };
        if cluster.promised(unfit.pod).is_some_and(|node| is_hopeless(node, unfit.diagnosis)) {
            // What was promised is of no use, whoever goes.
            self.evicting.remove(&unfit.pod.uid);
            self.take_promise(&unfit.pod.uid, now);
        }
        if unfit.diagnosis.nodes > 0 && self.awaits_victims(&unfit.pod.uid, now) {
            unfit.diagnosis.post_filter = format!("preemption: {LEAVING}");
            return None;
        }
        self.ask_post_filter(unfit)
    }

    /// Runs PostFilter, whoever is on the way out for the pod already.
    pub(super) fn ask_post_filter(&mut self, unfit: Unfit<'_>) -> Option<Room> {
        let Unfit { pod, profile, state, diagnosis, proposals, preempts } = unfit;
        if diagnosis.nodes == 0 {
            return None;
        }
        let offset = self.random.random_range(0..diagnosis.nodes);
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let deallocated = Mutex::default();
        let context = PostFilterContext { pod, state, diagnosis, offset, cluster, proposals, deallocated, preempts };
        let (room, said) = cluster.post_filter(&context);
        self.deallocation = context.deallocated.into_inner();
        diagnosis.post_filter = said;
        room
    }

    /// Promises the room that was found, if any, to the pod.
    pub(super) fn promise(&mut self, pod: &Arc<PodInfo>, room: Option<Room>, now: Instant) -> Option<Eviction> {
        match room {
            Some((node, mut victims)) => {
                self.give_promise(Arc::clone(pod), Arc::clone(&node), now);
                let uids = victims.iter().map(|victim| Arc::clone(&victim.uid)).collect();
                self.evicting.insert(Arc::clone(&pod.uid), Evicting { victims: uids, since: now });
                // One that is held back by a Permit plugin never ran: it goes back to the queue.
                victims.retain(|victim| !self.waiting.reject(&victim.uid, "DefaultPreemption", "preempted"));
                return Some(Eviction { node, victims, groups: Vec::new() });
            }
            // The promise stands for as long as pods that had to go for it are on their way.
            None if self.awaits_victims(&pod.uid, now) || self.room_is_being_made(pod) => {}
            None => self.take_promise(&pod.uid, now),
        }
        None
    }

    /// Promises room on a node to a pod; an earlier promise on another one is void.
    pub(super) fn give_promise(&mut self, pod: Arc<PodInfo>, node: Arc<str>, now: Instant) {
        if self.nominated.node_of(&pod.uid).is_some_and(|known| *known != node) {
            self.take_promise(&pod.uid, now);
        }
        self.nominated.insert(pod, node);
    }

    /// The promise to a pod, if there is one, is void: for those that it matters to it is as if the pod had left the node.
    pub(super) fn take_promise(&mut self, uid: &str, now: Instant) {
        if let Some(pod) = self.nominated.remove(uid) {
            self.queue.on_event(&ClusterEvent::AssignedPodDelete(pod), &self.snapshot, now);
        }
    }

    /// Tells of the room that was promised to pods that have another node now.
    pub(super) fn vacate(&mut self, now: Instant) {
        for pod in std::mem::take(&mut self.vacated) {
            self.queue.on_event(&ClusterEvent::AssignedPodDelete(pod), &self.snapshot, now);
        }
    }

    /// Whether pods are leaving the node that was promised to this one.
    pub(super) fn room_is_being_made(&self, pod: &PodInfo) -> bool {
        let node = self.nominated.node_of(&pod.uid).and_then(|name| self.snapshot.find(name));
        node.is_some_and(|index| self.snapshot.node(index).pods.iter().any(|entry| entry.pod.leaves_for(pod)))
    }

    /// Whether pods that were told to go for this one are still there.
    pub(super) fn awaits_victims(&self, uid: &str, now: Instant) -> bool {
        self.evicting.get(uid).is_some_and(|evicting| {
            let patient = now < evicting.since + EVICTION;
            let there = |victim: &Arc<str>| self.snapshot.pod(victim).is_some_and(|pod| patient || pod.terminating());
            evicting.victims.iter().any(there)
        })
    }

    /// Tells that a pod that was to go for another could not be evicted: that one is tried again.
    pub fn not_evicted(&mut self, preemptor: &str, victim: &str, now: Instant) {
        if let Some(evicting) = self.evicting.get_mut(preemptor) {
            evicting.victims.remove(victim);
            self.queue.try_again(preemptor, &self.snapshot, now);
        }
    }
}
