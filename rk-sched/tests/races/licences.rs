//! A plugin with an account of its own: some pods need one of a few licences, from Reserve until they are gone.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rk_sched::{
    framework::{CycleState, Filter, Plugin, Reserve, Status},
    model::{NodeInfo, PodInfo},
};

#[derive(Clone, Default)]
pub struct Licences {
    pub held: Arc<Mutex<BTreeSet<Arc<str>>>>,
    pub limit: Arc<AtomicUsize>,
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
