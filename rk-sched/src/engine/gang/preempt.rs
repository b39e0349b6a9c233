//! Room for a whole group at the cost of less important pods (KEP-5710, workload-aware preemption): all of the group that it needs fits
//! then, or nobody has to go.
//!
//! The group is tried with all less important pods gone, wherever they are. Where that places it, as many of them as possible stay, the
//! most important first, with the group's pods where they are now.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Attempt, Cluster, Engine, Gang, GangCycle, Promise, Step, Tried};
use crate::{
    framework::{CycleState, Diagnosis, Profile},
    model::{Budget, GroupKey, PodInfo, group_of},
    plugins::{LEAVING, split_by_budgets, started},
    queue::QueuedPod,
};

/// A pod on its node.
type OnNode = (Arc<PodInfo>, Arc<str>);

/// A pod of the group with the node that it is tried on, if one would do, and what was promised to it before.
type Place = (QueuedPod, Option<Arc<str>>, Promise);

/// Where the group's pods will be, by their uids, and who has to go for that.
pub(super) struct Plan {
    pub(super) places: Vec<(Arc<str>, Arc<str>)>,
    pub(super) victims: Vec<OnNode>,
    /// Groups of which all pods go.
    pub(super) groups: Vec<GroupKey>,
}

/// Pods that stay or go together: one pod, or all of a group whose disruption mode says so.
struct Unit {
    pods: Vec<OnNode>,
    priority: i32,
    group: Option<GroupKey>,
    started: Timestamp,
    /// Whether a PodDisruptionBudget would have one of them stay.
    violates: bool,
}

impl Unit {
    /// Orders from the most important: higher priority, groups before pods, larger groups, those that began earlier.
    fn importance(&self) -> impl Ord + use<> {
        (Reverse(self.priority), self.group.is_none(), Reverse(self.pods.len()), self.started)
    }
}

/// How often it is looked at whether the group still fits, before the search for those who may stay is given up.
const MOST_CHECKS: usize = 20_000;

/// The search for those who may stay was given up.
struct TooMany;

impl Engine {
    /// Finds room for the group.
    ///
    /// # Errors
    /// What to say of why there is none; empty for nothing.
    pub(super) fn room_for_gang(&mut self, cycle: &mut GangCycle, now: Instant) -> Result<Plan, String> {
        let said = |text: &str| Err(format!("preemption: {text}"));
        let members: Vec<Arc<PodInfo>> = cycle.attempt.waiting.iter().map(|queued| Arc::clone(&queued.pod)).collect();
        let going = |pod: &Arc<PodInfo>| self.awaits_victims(&pod.uid, now) || self.room_is_being_made(pod);
        if members.iter().any(going) {
            return said(LEAVING);
        }
        // Earlier promises are void: there is no room by them.
        for pod in &members {
            self.nominated.remove(&pod.uid);
            self.evicting.remove(&pod.uid);
        }
        let possible = cycle.before + members.len() >= cycle.gang.min_count;
        if cycle.domains.is_empty() || !possible || !cycle.profile.has("DefaultPreemption") {
            return Err(String::new());
        }
        if members.iter().any(|pod| pod.spec().preemption_policy.as_deref() == Some("Never")) {
            return said("not eligible due to preemptionPolicy=Never.");
        }
        if members.iter().any(|pod| self.interested(pod).is_some()) {
            return said("not eligible, as extenders have a say on the group's pods.");
        }
        let mut units = self.units(&cycle.gang, &members);
        if units.is_empty() {
            return said("No preemption victims found for incoming pod group.");
        }
        units.sort_by_key(Unit::importance);
        units.iter().for_each(|unit| self.take_away(unit));
        let attempt = self.try_without_victims(cycle);
        let Some(placed) = attempt else {
            units.iter().for_each(|unit| self.put_back(unit));
            return said("the pod group would not fit if all less important pods were gone.");
        };
        let plan = self.spare_most(&placed, &units, &cycle.profile);
        // All as it was.
        for (queued, node, promise) in placed {
            if node.is_some() {
                self.snapshot.remove_pod(&queued.pod.uid);
                self.promise_again(&queued.pod, promise);
            }
            cycle.attempt.waiting.push_back(queued);
        }
        for unit in &units {
            if unit.pods.iter().any(|(pod, _)| self.snapshot.pod(&pod.uid).is_none()) {
                self.put_back(unit);
            }
        }
        plan.or_else(|TooMany| said("there are too many pods to choose victims among."))
    }

    fn take_away(&mut self, unit: &Unit) {
        unit.pods.iter().for_each(|(pod, _)| drop(self.snapshot.remove_pod(&pod.uid)));
    }

    fn put_back(&mut self, unit: &Unit) {
        unit.pods.iter().for_each(|(pod, node)| self.snapshot.set_pod(Arc::clone(pod), node));
    }

    /// The pods and groups that are less important than the group.
    fn units(&self, gang: &Gang, members: &[Arc<PodInfo>]) -> Vec<Unit> {
        let least = members.iter().map(|pod| pod.priority).min().unwrap_or(0);
        let priority = gang.group.spec.priority.unwrap_or(least);
        let (mut alone, mut groups) = (Vec::new(), BTreeMap::<GroupKey, Unit>::new());
        for (_, node) in self.snapshot.nodes() {
            for pod in node.pods.iter().map(|entry| &entry.pod) {
                let on_node = (Arc::clone(pod), Arc::clone(&node.name));
                let key = group_of(pod);
                if key.as_ref() == Some(&gang.key) {
                    continue;
                }
                let group = key.as_ref().and_then(|key| self.snapshot.groups.group(key));
                let own = group.and_then(|group| group.spec.priority);
                let whole = group.is_some_and(|group| group.spec.disruption_mode.as_deref() == Some("PodGroup"));
                let unit = Unit {
                    priority: own.unwrap_or(pod.priority),
                    group: key.clone().filter(|_| whole),
                    started: started(pod),
                    pods: vec![on_node],
                    violates: false,
                };
                match key.filter(|_| whole) {
                    None => alone.push(unit),
                    Some(key) => match groups.get_mut(&key) {
                        Some(known) => {
                            known.priority = known.priority.max(unit.priority);
                            known.started = known.started.min(unit.started);
                            known.pods.extend(unit.pods);
                        }
                        None => drop(groups.insert(key, unit)),
                    },
                }
            }
        }
        alone.extend(groups.into_values());
        alone.retain(|unit| unit.priority < priority);
        alone.sort_by_key(Unit::importance);
        let pods = alone.iter().flat_map(|unit| unit.pods.iter().map(|(pod, _)| Arc::clone(pod))).collect();
        let budgets: Vec<&Budget> = self.snapshot.workloads.budgets().collect();
        let (violating, _) = split_by_budgets(pods, &budgets);
        let violating: BTreeSet<&Arc<str>> = violating.iter().map(|pod| &pod.uid).collect();
        for unit in &mut alone {
            unit.violates = unit.pods.iter().any(|(pod, _)| violating.contains(&pod.uid));
        }
        alone
    }

    /// Tries the group with the victims gone, in the first domain that will do: its pods in their order, each with its node if it has one,
    /// where it is assumed without anything reserved. `None` if there is no room, and all pods wait.
    fn try_without_victims(&mut self, cycle: &mut GangCycle) -> Option<Vec<Place>> {
        for at in 0..cycle.domains.len() {
            cycle.at = at;
            cycle.attempt.scheduled = cycle.before;
            while !cycle.verdict().is_rejected()
                && let Some(queued) = cycle.attempt.waiting.pop_front()
            {
                match self.try_member(queued, cycle, false, false) {
                    Step::Done(tried) => cycle.note(tried),
                    // Nobody is asked here.
                    Step::Ask(queued, ..) => {
                        cycle.attempt.waiting.push_front(queued);
                        break;
                    }
                }
            }
            if !cycle.verdict().is_success() {
                self.take_back(&mut cycle.attempt);
                continue;
            }
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
            return Some(placed);
        }
        None
    }

    /// Lets all units stay without which the group fits as it is placed now: first those that a budget protects, then the others, the more
    /// important ones first. The others go.
    fn spare_most(&mut self, placed: &[Place], units: &[Unit], profile: &Arc<Profile>) -> Result<Plan, TooMany> {
        let on_node = |(queued, node, _): &Place| -> Option<OnNode> {
            Some((Arc::clone(&queued.pod), Arc::clone(node.as_ref()?)))
        };
        let members: Vec<OnNode> = placed.iter().filter_map(on_node).collect();
        let (protected, others): (Vec<&Unit>, Vec<&Unit>) = units.iter().partition(|unit| unit.violates);
        let (mut victims, mut left) = (Vec::new(), MOST_CHECKS);
        for units in [protected, others] {
            self.spare(&units, &members, profile, &mut left, &mut victims)?;
        }
        Ok(Plan {
            places: members.into_iter().map(|(pod, node)| (Arc::clone(&pod.uid), node)).collect(),
            groups: victims.iter().filter_map(|unit| unit.group.clone()).collect(),
            victims: victims.into_iter().flat_map(|unit| unit.pods.iter().cloned()).collect(),
        })
    }

    /// Lets these units stay if they can all stay; else half of them, then the other half.
    fn spare<'u>(
        &mut self,
        units: &[&'u Unit],
        members: &[OnNode],
        profile: &Arc<Profile>,
        left: &mut usize,
        victims: &mut Vec<&'u Unit>,
    ) -> Result<(), TooMany> {
        if units.is_empty() {
            return Ok(());
        }
        units.iter().for_each(|unit| self.put_back(unit));
        if self.all_fit(units, members, profile, left)? {
            return Ok(());
        }
        units.iter().for_each(|unit| self.take_away(unit));
        if let [unit] = units {
            victims.push(unit);
            return Ok(());
        }
        let (first, second) = units.split_at(units.len() / 2);
        self.spare(first, members, profile, left, victims)?;
        self.spare(second, members, profile, left, victims)
    }

    /// Whether all of the group's pods still fit where they are, now that these units are back.
    fn all_fit(
        &mut self,
        back: &[&Unit],
        members: &[OnNode],
        profile: &Arc<Profile>,
        left: &mut usize,
    ) -> Result<bool, TooMany> {
        let nodes: BTreeSet<&Arc<str>> = back.iter().flat_map(|unit| unit.pods.iter().map(|(_, node)| node)).collect();
        // Where they come back it is likeliest that something does not fit any more.
        let (beside, apart): (Vec<&OnNode>, Vec<&OnNode>) = members.iter().partition(|(_, node)| nodes.contains(node));
        for (pod, node) in beside.into_iter().chain(apart) {
            *left = left.checked_sub(1).ok_or(TooMany)?;
            self.snapshot.remove_pod(&pod.uid);
            let fits = self.fits_there(pod, node, profile);
            self.snapshot.set_pod(Arc::clone(pod), node);
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fits_there(&self, pod: &PodInfo, node: &str, profile: &Arc<Profile>) -> bool {
        let cluster = Cluster { profile, snapshot: &self.snapshot, nominated: &self.nominated };
        let (mut state, mut diagnosis) = (CycleState::default(), Diagnosis::new(self.snapshot.len()));
        let Some(index) = self.snapshot.find(node) else { return false };
        let Ok(only) = cluster.pre_filter(&mut state, pod, &mut diagnosis) else { return false };
        only.is_none_or(|only| only.contains(&index))
            && cluster.fits_with(&cluster.filters(&state), &state, pod, self.snapshot.node(index)).is_success()
    }
}
