//! The pods that want a node.
//!
//! A pod is *active* (to be tried next, ordered by the QueueSort plugin), in *back-off* (to be tried again after a
//! time that doubles with its attempts), *unschedulable* (waiting for an event that a plugin's hint wants,
//! gated pods among them), or in flight (popped). What is unschedulable for five minutes is tried again anyway.
//! It has no clock: every call is handed the time.

mod flights;
mod heap;
mod history;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

pub use self::history::{Step, What};
use self::{flights::Flights, heap::Heap, history::History};
use crate::{
    framework::{ClusterEvent, Profile, QueueSort},
    model::{PodInfo, Snapshot},
    time::after,
};

/// A pod that wants a node, and how it went so far.
#[derive(Debug, Clone)]
pub struct QueuedPod {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// When it was last put into the queue.
    pub since: Instant,
    /// How often it was tried.
    pub attempts: u32,
    /// How often plugins refused it (`UnschedulableCount`): each time its back-off doubles.
    pub refusals: u32,
    /// How often in a row trying it has failed (`ConsecutiveErrorsCount`); the back-off goes by this while there are any, as it spares the API
    /// and does not punish the pod.
    pub failures: u32,
    /// The plugins that refused it last.
    pub plugins: BTreeSet<&'static str>,
    /// The plugins that refused it until something outside of the scheduler is done.
    pub pending: BTreeSet<&'static str>,
    history: History,
}

impl QueuedPod {
    fn new(pod: Arc<PodInfo>, now: Instant) -> Self {
        let (plugins, pending) = (BTreeSet::new(), BTreeSet::new());
        Self { pod, since: now, attempts: 0, refusals: 0, failures: 0, plugins, pending, history: History::new(now) }
    }

    /// What it went through in the queue, the oldest of the steps that are kept first.
    pub fn history(&self) -> impl Iterator<Item = &Step> {
        self.history.steps()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct BackoffKey {
    until: Instant,
    sequence: u64,
}

enum Place {
    Active,
    Backoff(BackoffKey),
    /// Under the number of its refusal.
    Unschedulable(u64),
    /// Since so many events, with the newest version of the pod.
    InFlight(u64, Arc<PodInfo>),
    /// Tried, and no more in flight: it is being bound.
    Landed,
}

struct BackedOff {
    pod: QueuedPod,
    /// After a failure, as opposed to a refusal, the wait is never cut short.
    failed: bool,
}

/// The lengths of the queue's waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) initial_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) unschedulable: Duration,
}

/// The PreEnqueue plugin that is against a pod.
fn refusing(profile: &Profile, pod: &PodInfo, snapshot: &Snapshot) -> Option<&'static str> {
    let plugins = profile.enabled().iter().filter_map(|enabled| enabled.points.pre_enqueue.as_ref());
    let mut against = plugins.filter(|plugin| !plugin.pre_enqueue(pod, snapshot).is_success());
    against.next().map(|plugin| plugin.name())
}

/// The queue of one scheduler, for all its profiles.
pub(crate) struct Queue {
    profiles: Arc<HashMap<String, Arc<Profile>>>,
    waits: Waits,
    places: HashMap<Arc<str>, Place>,
    active: Heap,
    backoff: BTreeMap<BackoffKey, BackedOff>,
    /// By the number of the refusal, so that they wake in the order in which they were refused.
    unschedulable: BTreeMap<u64, QueuedPod>,
    sequence: u64,
    flights: Flights,
}

impl Queue {
    pub(crate) fn new(profiles: Arc<HashMap<String, Arc<Profile>>>, sort: Arc<dyn QueueSort>, waits: Waits) -> Self {
        Self {
            profiles,
            waits,
            places: HashMap::new(),
            active: Heap::new(sort),
            backoff: BTreeMap::new(),
            unschedulable: BTreeMap::new(),
            sequence: 0,
            flights: Flights::default(),
        }
    }

    fn profile(&self, pod: &PodInfo) -> Option<Arc<Profile>> {
        self.profiles.get(pod.scheduler_name()).cloned()
    }

    /// A new pod.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>, snapshot: &Snapshot, now: Instant) {
        if !self.places.contains_key(&pod.uid) {
            self.activate(QueuedPod::new(pod, now), snapshot, now);
        }
    }

    /// Makes a pod active, unless a PreEnqueue plugin is against it.
    fn activate(&mut self, mut queued: QueuedPod, snapshot: &Snapshot, now: Instant) {
        let profile = self.profile(&queued.pod);
        let refused = profile.and_then(|profile| refusing(&profile, &queued.pod, snapshot));
        if let Some(plugin) = refused {
            queued.since = now;
            queued.plugins = BTreeSet::from([plugin]);
            queued.history.note(now, What::Gated(plugin));
            self.park(queued);
        } else {
            self.places.insert(Arc::clone(&queued.pod.uid), Place::Active);
            self.active.push(queued);
        }
    }

    /// A pod waits for an event.
    fn park(&mut self, queued: QueuedPod) {
        self.sequence += 1;
        self.places.insert(Arc::clone(&queued.pod.uid), Place::Unschedulable(self.sequence));
        self.unschedulable.insert(self.sequence, queued);
    }

    /// The pod to try next. It is in flight until it is forgotten, put back or refused.
    pub(crate) fn pop(&mut self, snapshot: &Snapshot, now: Instant) -> Option<QueuedPod> {
        self.flush(snapshot, now);
        let pod = loop {
            if let Some(pod) = self.active.pop() {
                break pod;
            }
            // Nothing better to do: those in back-off that were merely refused need not wait (KEP-5142).
            let key = self.backoff.iter().find(|(_, waiting)| !waiting.failed).map(|(key, _)| *key)?;
            let waited = self.backoff.remove(&key)?;
            self.activate(waited.pod, snapshot, now);
        };
        Some(self.take_off(pod, now))
    }

    fn take_off(&mut self, mut queued: QueuedPod, now: Instant) -> QueuedPod {
        self.places
            .insert(Arc::clone(&queued.pod.uid), Place::InFlight(self.flights.take_off(), Arc::clone(&queued.pod)));
        queued.attempts += 1;
        queued.history.note(now, What::Tried(queued.attempts));
        queued
    }

    /// Moves on what has waited long enough.
    fn flush(&mut self, snapshot: &Snapshot, now: Instant) {
        while let Some(first) = self.backoff.first_entry() {
            if first.key().until > now {
                break;
            }
            let waited = first.remove();
            self.activate(waited.pod, snapshot, now);
        }
    }

    /// Tries again those that have been unschedulable for too long.
    pub(crate) fn flush_unschedulable(&mut self, snapshot: &Snapshot, now: Instant) {
        let long = self.waits.unschedulable;
        let stale = self.unschedulable.iter().filter(|(_, queued)| after(queued.since, long) <= now);
        let stale: Vec<u64> = stale.map(|(number, _)| *number).collect();
        for number in stale {
            if let Some(mut queued) = self.unschedulable.remove(&number) {
                queued.history.note(now, What::TimedOut);
                self.requeue(queued, snapshot, now);
            }
        }
    }

    fn backoff_of(&self, queued: &QueuedPod) -> Duration {
        let count = if queued.failures > 0 { queued.failures } else { queued.refusals };
        if count == 0 {
            return Duration::ZERO;
        }
        let doubled = 1_u32.checked_shl(count - 1).filter(|factor| *factor > 0).unwrap_or(u32::MAX);
        self.waits.initial_backoff.saturating_mul(doubled).min(self.waits.max_backoff)
    }

    fn back_off(&mut self, queued: QueuedPod, until: Instant, failed: bool) {
        self.sequence += 1;
        let key = BackoffKey { until, sequence: self.sequence };
        self.places.insert(Arc::clone(&queued.pod.uid), Place::Backoff(key));
        self.backoff.insert(key, BackedOff { pod: queued, failed });
    }

    /// Out of the unschedulable ones: active, or in back-off if that is not over.
    fn requeue(&mut self, queued: QueuedPod, snapshot: &Snapshot, now: Instant) {
        let until = after(queued.since, self.backoff_of(&queued));
        if until > now { self.back_off(queued, until, false) } else { self.activate(queued, snapshot, now) }
    }

    /// A pod is in flight no more; answers what it missed if `wanted`.
    fn land(&mut self, uid: &str, wanted: bool) -> Vec<ClusterEvent> {
        match self.places.get(uid) {
            Some(Place::InFlight(start, _)) => self.flights.land(*start, wanted),
            _ => Vec::new(),
        }
    }

    /// The newest version of a pod that was popped, and neither put back nor placed since.
    pub(crate) fn in_flight(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        match self.places.get(uid) {
            Some(Place::InFlight(_, newest)) => Some(newest),
            _ => None,
        }
    }

    /// A pod that comes back has the version that it was given while it was in flight.
    fn renew(&self, queued: &mut QueuedPod) {
        if let Some(newest) = self.in_flight(&queued.pod.uid) {
            queued.pod = Arc::clone(newest);
        }
    }

    /// A pod in flight is being bound from now on, which may take long: events are not kept for it any more.
    pub(crate) fn landed(&mut self, uid: &Arc<str>) {
        self.land(uid, false);
        self.places.insert(Arc::clone(uid), Place::Landed);
    }

    /// A pod that waits for an event is tried again without one.
    pub(crate) fn try_again(&mut self, uid: &str, snapshot: &Snapshot, now: Instant) {
        if let Some(Place::Unschedulable(number)) = self.places.get(uid)
            && let Some(queued) = self.unschedulable.remove(number)
        {
            self.requeue(queued, snapshot, now);
        }
    }

    /// A pod in flight failed for no fault of its own: again after its back-off.
    pub(crate) fn failed(&mut self, mut queued: QueuedPod, now: Instant) {
        self.renew(&mut queued);
        self.land(&queued.pod.uid, false);
        queued.failures += 1;
        queued.history.note(now, What::Failed);
        queued.since = now;
        let until = after(queued.since, self.backoff_of(&queued));
        self.back_off(queued, until, true);
    }

    /// A pod in flight was refused by `queued.plugins` and `queued.pending`: it waits for an event, unless one that they
    /// want came while it was in flight.
    pub(crate) fn refused(&mut self, mut queued: QueuedPod, snapshot: &Snapshot, now: Instant) {
        self.renew(&mut queued);
        queued.since = now;
        if queued.plugins.is_empty() && queued.pending.is_empty() {
            queued.failures += 1;
        } else {
            (queued.refusals, queued.failures) = (queued.refusals + 1, 0);
        }
        queued.history.note(now, What::Refused(queued.plugins.union(&queued.pending).copied().collect()));
        if matches!(self.places.get(&queued.pod.uid), Some(Place::Landed)) {
            // What it missed is not known: it is tried again after its back-off.
            let until = after(queued.since, self.backoff_of(&queued));
            return self.back_off(queued, until, true);
        }
        let missed = self.land(&queued.pod.uid, true);
        match missed.iter().find(|event| self.wants(&queued, event)) {
            Some(event) => self.wake(queued, event, snapshot, now),
            None => self.park(queued),
        }
    }

    /// Removes a pod, wherever it is.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.land(uid, false);
        match self.places.remove(uid) {
            Some(Place::Active) => drop(self.active.remove(uid)),
            Some(Place::Backoff(key)) => drop(self.backoff.remove(&key)),
            Some(Place::Unschedulable(number)) => drop(self.unschedulable.remove(&number)),
            Some(Place::InFlight(..) | Place::Landed) | None => {}
        }
    }

    /// A pod that waits; `None` for one that is unknown or in flight.
    pub(crate) fn queued(&self, uid: &str) -> Option<&QueuedPod> {
        match self.places.get(uid)? {
            Place::Active => self.active.get(uid),
            Place::Backoff(key) => Some(&self.backoff.get(key)?.pod),
            Place::Unschedulable(number) => self.unschedulable.get(number),
            Place::InFlight(..) | Place::Landed => None,
        }
    }

    /// A waiting pod has a new version that changes nothing for its scheduling.
    pub(crate) fn refresh(&mut self, pod: Arc<PodInfo>) {
        let queued = match self.places.get(&pod.uid) {
            Some(Place::Active) => self.active.get_mut(&pod.uid),
            Some(Place::Backoff(key)) => self.backoff.get_mut(key).map(|waiting| &mut waiting.pod),
            Some(Place::Unschedulable(number)) => self.unschedulable.get_mut(number),
            Some(Place::InFlight(..) | Place::Landed) | None => None,
        };
        if let Some(queued) = queued {
            queued.pod = pod;
        }
    }

    /// A waiting pod has a new version.
    pub(crate) fn update(&mut self, pod: Arc<PodInfo>, snapshot: &Snapshot, now: Instant) {
        match self.places.get_mut(&pod.uid) {
            None => self.add(pod, snapshot, now),
            Some(Place::Landed) => {}
            Some(Place::InFlight(_, newest)) => {
                let old = std::mem::replace(newest, Arc::clone(&pod));
                self.flights.note(&ClusterEvent::UnscheduledPodUpdate { old, new: pod });
            }
            Some(Place::Active) => {
                if let Some(mut queued) = self.active.remove(&pod.uid) {
                    queued.pod = pod;
                    self.active.push(queued);
                }
            }
            Some(Place::Backoff(key)) => {
                if let Some(waiting) = self.backoff.get_mut(key) {
                    waiting.pod.pod = pod;
                }
            }
            Some(Place::Unschedulable(number)) => {
                let number = *number;
                let Some(mut queued) = self.unschedulable.remove(&number) else { return };
                let old = std::mem::replace(&mut queued.pod, Arc::clone(&pod));
                let event = ClusterEvent::UnscheduledPodUpdate { old, new: pod };
                if self.wants(&queued, &event) {
                    queued.history.note(now, What::Woken(event.name()));
                    self.requeue(queued, snapshot, now);
                } else {
                    self.unschedulable.insert(number, queued);
                }
            }
        }
    }

    fn wants(&self, queued: &QueuedPod, event: &ClusterEvent) -> bool {
        // Its own leaving makes no room for a pod, and another's change does not change it.
        match event {
            ClusterEvent::AssignedPodDelete(gone) if gone.uid == queued.pod.uid => return false,
            ClusterEvent::UnscheduledPodUpdate { new, .. } if new.uid != queued.pod.uid => return false,
            _ => {}
        }
        // A pod that no plugin is to blame for waits for any event.
        let blamed = queued.plugins.iter().chain(&queued.pending).copied();
        queued.plugins.is_empty() && queued.pending.is_empty()
            || self.profile(&queued.pod).is_none_or(|profile| profile.hint(blamed, &queued.pod, event))
    }

    /// The cluster changed: those that may fit now are tried again.
    pub(crate) fn on_event(&mut self, event: &ClusterEvent, snapshot: &Snapshot, now: Instant) {
        self.flights.note(event);
        let wanting = self.unschedulable.iter().filter(|(_, queued)| self.wants(queued, event));
        let numbers: Vec<u64> = wanting.map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(queued) = self.unschedulable.remove(&number) {
                self.wake(queued, event, snapshot, now);
            }
        }
    }

    /// Tries a pod again that waited for this event: at once if a plugin was pending on it.
    fn wake(&mut self, mut queued: QueuedPod, event: &ClusterEvent, snapshot: &Snapshot, now: Instant) {
        queued.history.note(now, What::Woken(event.name()));
        let pending = queued.pending.iter().copied();
        let profile = self.profile(&queued.pod);
        if !queued.pending.is_empty() && profile.is_some_and(|p| p.hint(pending, &queued.pod, event)) {
            self.activate(queued, snapshot, now);
        } else {
            self.requeue(queued, snapshot, now);
        }
    }

    /// Takes the pods of these uids out, wherever they wait, to be tried beside one that was popped. Those that are in flight, of
    /// another scheduler or that a PreEnqueue plugin is against stay.
    pub(crate) fn take<'u>(
        &mut self,
        uids: impl Iterator<Item = &'u Arc<str>>,
        profile: &Profile,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Vec<QueuedPod> {
        let mut taken = Vec::new();
        for uid in uids {
            let Some(pod) = self.queued(uid).map(|queued| &queued.pod) else { continue };
            if pod.scheduler_name() != profile.scheduler_name() || refusing(profile, pod, snapshot).is_some() {
                continue;
            }
            let queued = match self.places.get(uid) {
                Some(Place::Active) => self.active.remove(uid),
                Some(Place::Backoff(key)) => self.backoff.remove(key).map(|waiting| waiting.pod),
                Some(Place::Unschedulable(number)) => self.unschedulable.remove(number),
                Some(Place::InFlight(..) | Place::Landed) | None => None,
            };
            if let Some(queued) = queued {
                taken.push(self.take_off(queued, now));
            }
        }
        let sort = self.active.sort();
        taken.sort_by(|a, b| {
            if sort.less(a, b) {
                Ordering::Less
            } else if sort.less(b, a) {
                Ordering::Greater
            } else {
                Ordering::Equal
            }
        });
        taken
    }

    /// When the next back-off ends.
    pub(crate) fn next_backoff(&self) -> Option<Instant> {
        self.backoff.first_key_value().map(|(key, _)| key.until)
    }

    /// How many pods are active, in back-off and unschedulable.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.active.len(), self.backoff.len(), self.unschedulable.len())
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
