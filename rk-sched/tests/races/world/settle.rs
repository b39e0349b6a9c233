//! The time after the faults: everything comes to rest, and nothing was lost. Pods that wait are not tried again for want of an event, so a
//! plugin that sleeps through one is found out.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};

use super::{World, node};
use crate::api::{Kind, cores, ended, group_of, node_of, number, uid};

/// Longer than what waits for time alone: the longest back-off, a permit, the binding of volumes.
const LONG: Duration = Duration::from_secs(120);
/// How long bindings wait at a time, for their next look or try.
const A_WHILE: Duration = Duration::from_millis(500);

impl World {
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        self.note(|| "the faults stop".to_owned());
        while !self.unborn.is_empty() || !self.unborn_groups.is_empty() {
            self.bear();
        }
        self.rest()?;
        self.check_views();
        self.check_waiting(false);
        self.check()?;
        self.licences.limit.store(usize::MAX, Ordering::Relaxed);
        for (name, _) in self.api.copies(Kind::Pod) {
            self.api.change(Kind::Pod, &name, |pod| pod["spec"]["schedulingGates"] = Value::Null);
        }
        let mut large = node("large", 1000);
        large["status"]["allocatable"]["pods"] = "1000".into();
        self.note(|| "a large node comes".to_owned());
        self.api.set(Kind::Node, "large", large);
        self.rest()?;
        self.check_views();
        self.check_waiting(true);
        self.check()
    }

    /// Goes on until nothing happens for a long time.
    fn rest(&mut self) -> Result<(), String> {
        let mut end = self.now + LONG;
        let mut busy = false;
        for _ in 0..20_000 {
            let before = (self.history.len(), self.api.log.len());
            // Kubelets and controllers have their turn once the schedulers have nothing to do.
            let their_turn = !busy;
            if their_turn {
                self.kubelets();
                self.volume_controller();
            }
            busy = false;
            for which in 0..self.schedulers.len() {
                for kind in Kind::ALL {
                    while self.schedulers[which].behind(kind, &self.api) {
                        self.schedulers[which].hear(kind, &self.api, self.now);
                        busy = true;
                    }
                }
                while !self.schedulers[which].waiting.is_empty() {
                    self.permit(which);
                    busy = true;
                }
                while !self.schedulers[which].late.is_empty() {
                    self.late(which);
                    busy = true;
                }
                let count = self.schedulers[which].bindings.len();
                self.advance(which);
                busy |=
                    count != self.schedulers[which].bindings.len() || !self.schedulers[which].wire.0.lock().is_empty();
                while !self.schedulers[which].evictions.is_empty() {
                    self.evict(which);
                    busy = true;
                }
                busy |= self.cycle(which);
            }
            self.check()?;
            if busy || !their_turn || before != (self.history.len(), self.api.log.len()) {
                end = self.now + LONG;
                continue;
            }
            if self.now >= end {
                return Ok(());
            }
            let binds = self.schedulers.iter().any(|scheduler| !scheduler.bindings.is_empty());
            let wakes = self.schedulers.iter().filter_map(|scheduler| scheduler.engine.wake_at());
            let wake = wakes.min().map_or(LONG, |at| at.saturating_duration_since(self.now));
            let time = if binds { wake.min(A_WHILE) } else { wake };
            self.pass(time.clamp(Duration::from_millis(1), LONG));
        }
        self.fail("it does not come to rest".to_owned());
        self.check()
    }

    /// Every scheduler sees what is in the API.
    fn check_views(&mut self) {
        let mut wrong = Vec::new();
        for scheduler in &self.schedulers {
            let (of, snapshot) = (scheduler.name, scheduler.engine.snapshot());
            let nodes: BTreeSet<&str> = self.api.all(Kind::Node).map(|(name, _)| name).collect();
            let known: BTreeSet<&str> = snapshot.nodes().map(|(_, node)| node.name.as_ref()).collect();
            if nodes != known {
                wrong.push(format!("{of} sees nodes {known:?}, there are {nodes:?}"));
            }
            for (_, node) in snapshot.nodes() {
                let there: BTreeSet<&str> = self.api.on(&node.name).map(|(_, pod)| uid(pod)).collect();
                let known: BTreeSet<&str> = node.pods.iter().map(|entry| &*entry.pod.uid).collect();
                if there != known {
                    wrong.push(format!("{of} sees {known:?} on {}, there are {there:?}", node.name));
                }
            }
            let uids = self.api.all(Kind::Pod).map(|(_, pod)| uid(pod));
            wrong.extend(uids.filter(|uid| scheduler.engine.is_assumed(uid)).map(|uid| format!("{of} assumes {uid}")));
            if !self.two() {
                let holding = self.api.all(Kind::Pod).filter(|(_, pod)| {
                    pod["metadata"]["labels"]["licence"].is_string() && !node_of(pod).is_empty() && !ended(pod)
                });
                let there: BTreeSet<String> = holding.map(|(_, pod)| uid(pod).to_owned()).collect();
                let held: BTreeSet<String> = scheduler.licences.held.lock().iter().map(ToString::to_string).collect();
                if there != held {
                    wrong.push(format!("licences are held by {held:?}, and needed by {there:?}"));
                }
            }
        }
        for what in wrong {
            self.fail(what);
        }
    }

    /// Whether a pod waits for more than a node: its gate, a licence, a permit that was refused, the rest of its gang.
    fn waits_for_more(&self, pod: &Value, last: bool) -> bool {
        let held = self.schedulers[0].licences.held.lock().len();
        let no_licence = held >= self.licences.limit.load(Ordering::Relaxed);
        let label = |name: &str| pod["metadata"]["labels"][name].is_string();
        let gang = group_of(pod);
        let least = self
            .api
            .get(Kind::Group, gang)
            .map_or(0, |group| group["spec"]["schedulingPolicy"]["gang"]["minCount"].as_u64().unwrap_or(0));
        let alive =
            self.api.all(Kind::Pod).filter(|(_, other)| group_of(other) == gang && !ended(other)).count() as u64;
        pod["spec"]["schedulingGates"].is_array()
            || (label("licence") && no_licence)
            || (!last && (label("permit") || !gang.is_empty()))
            || (!gang.is_empty() && alive < least)
    }

    /// Pods that wait fit nowhere. The last time, with a large node, there is room for all but those whose volumes are elsewhere.
    fn check_waiting(&mut self, last: bool) {
        let mut lost = Vec::new();
        for (name, pod) in self.api.all(Kind::Pod) {
            if !node_of(pod).is_empty() || self.waits_for_more(pod, last) {
                continue;
            }
            let tolerant = pod["spec"]["tolerations"].is_array();
            let fits = |(name, node): &(&str, &Value)| {
                let used: u64 = self.api.on(name).map(|(_, pod)| cores(pod)).sum();
                let open = node["spec"]["unschedulable"] != json!(true) && !node["spec"]["taints"].is_array();
                (open || tolerant)
                    && used + cores(pod) <= number(node, "cpu")
                    && (self.api.on(name).count() as u64) < number(node, "pods")
                    && self.api.volumes_allow(pod, name)
            };
            if let Some((node, _)) = self.api.all(Kind::Node).find(fits) {
                lost.push(format!("lost: {name} waits, and fits on {node}"));
            }
        }
        for what in lost {
            self.fail(what);
        }
    }
}
