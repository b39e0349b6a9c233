//! Who has to go for a group that fits with all less important pods gone (KEP-5710, workload-aware preemption): as many of them as
//! possible stay, the most important first, with the group's pods where they were tried.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{Cluster, Engine, Promise};
use crate::{
    framework::{CycleState, Diagnosis, Profile},
    model::{Budget, GroupKey, PodInfo, group_of},
    plugins::{split_by_budgets, started},
    queue::QueuedPod,
};

/// A pod on its node.
type OnNode = (Arc<PodInfo>, Arc<str>);

/// A pod of the group with the node that it is tried on, if one would do, and what was promised to it before.
pub(super) type Place = (QueuedPod, Option<Arc<str>>, Promise);

/// Where the group's pods will be, by their uids, and who has to go for that.
pub(super) struct Plan {
    pub(super) places: Vec<(Arc<str>, Arc<str>)>,
    pub(super) victims: Vec<OnNode>,
    /// Groups of which all pods go.
    pub(super) groups: Vec<GroupKey>,
}

/// Pods that stay or go together: one pod, or all of a group whose disruption mode says so.
pub(super) struct Unit {
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
pub(super) struct TooMany;

impl Engine {
    pub(super) fn take_away(&mut self, unit: &Unit) {
        unit.pods.iter().for_each(|(pod, _)| drop(self.snapshot.remove_pod(&pod.uid)));
    }

    pub(super) fn put_back(&mut self, unit: &Unit) {
        unit.pods.iter().for_each(|(pod, node)| self.snapshot.set_pod(Arc::clone(pod), node));
    }

    /// The pods and groups that are of less priority than the group, the most important first.
    pub(super) fn units(&self, gang: &GroupKey, priority: i32) -> Vec<Unit> {
        let (mut alone, mut groups) = (Vec::new(), BTreeMap::<GroupKey, Unit>::new());
        for (_, node) in self.snapshot.nodes() {
            for pod in node.pods.iter().map(|entry| &entry.pod) {
                let on_node = (Arc::clone(pod), Arc::clone(&node.name));
                let key = group_of(pod);
                if key.as_ref() == Some(gang) {
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

    /// Lets all units stay without which the group fits as it is placed now: first those that a budget protects, then the others, the more
    /// important ones first. The others go.
    pub(super) fn spare_most(
        &mut self,
        placed: &[Place],
        units: &[Unit],
        profile: &Arc<Profile>,
    ) -> Result<Plan, TooMany> {
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
