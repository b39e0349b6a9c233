//! Plugins of the user's: one with an account of its own, and one that holds pods back.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rk_sched::{
    framework::{ClusterEvent, CycleState, Filter, Hint, Permit, PermitAnswer, Plugin, Reserve, Status},
    model::{NodeInfo, PodInfo},
};

/// Some pods need one of a few licences, from Reserve until they are gone.
#[derive(Clone, Default)]
pub struct Licences {
    pub held: Arc<Mutex<BTreeSet<Arc<str>>>>,
    pub limit: Arc<AtomicUsize>,
    /// Whether no event is of any interest, which is wrong.
    pub deaf: bool,
}

pub fn needs_one(pod: &PodInfo) -> bool {
    pod.labels().contains_key("licence")
}

impl Licences {
    fn left(&self, pod: &PodInfo) -> bool {
        let held = self.held.lock();
        held.contains(&pod.uid) || held.len() < self.limit.load(Ordering::Relaxed)
    }
}

impl Plugin for Licences {
    fn name(&self) -> &'static str {
        "Licences"
    }

    fn hint(&self, _: &PodInfo, _: &ClusterEvent) -> Hint {
        Hint::queue_if(!self.deaf)
    }
}

impl Filter for Licences {
    fn filter(&self, _state: &CycleState, pod: &PodInfo, _node: &NodeInfo) -> Status {
        if !needs_one(pod) || self.left(pod) { Status::success() } else { Status::unresolvable("no licence left") }
    }
}

impl Reserve for Licences {
    fn reserve(&self, _state: &mut CycleState, pod: &PodInfo, _node: &str) -> Status {
        if needs_one(pod) {
            self.held.lock().insert(Arc::clone(&pod.uid));
        }
        Status::success()
    }

    fn unreserve(&self, _state: &CycleState, pod: &PodInfo, _node: &str) {
        self.held.lock().remove(&pod.uid);
    }
}

/// Holds some pods back until somebody allows them.
pub struct Gate;

impl Plugin for Gate {
    fn name(&self) -> &'static str {
        "Gate"
    }
}

impl Permit for Gate {
    fn permit(&self, _state: &CycleState, pod: &PodInfo, _node: &str) -> PermitAnswer {
        match pod.labels().contains_key("permit") {
            true => PermitAnswer::Wait(Duration::from_secs(20)),
            false => PermitAnswer::Allow,
        }
    }
}
