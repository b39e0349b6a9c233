//! The time after the faults: everything comes to rest, and nothing was lost.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};

use super::{World, node};
use crate::api::{Kind, cores, ended, node_of, number, text};

/// Longer than a pod can wait without being tried: the flush of the unschedulable, its interval, and the longest back-off.
const LONG: Duration = Duration::from_secs(300 + 30 + 10 + 1);

impl World {
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        self.note(|| "the faults stop".to_owned());
        self.rest(LONG)?;
        self.check_views();
        self.check_waiting();
        self.check()?;
        self.licences.limit.store(usize::MAX, Ordering::Relaxed);
        let pods: Vec<String> = self.api.all(Kind::Pod).map(|(name, _)| name.to_owned()).collect();
        for name in pods {
            self.api.change(Kind::Pod, &name, |pod| pod["spec"]["schedulingGates"] = Value::Null);
        }
        let mut large = node(1000);
        large["status"]["allocatable"]["pods"] = "1000".into();
        self.note(|| "a large node comes".to_owned());
        self.api.set(Kind::Node, "large", large);
        self.rest(Duration::from_secs(60))?;
        self.check_views();
        let waiting = self.api.all(Kind::Pod).filter(|(_, pod)| node_of(pod).is_empty());
        let waiting: Vec<String> = waiting.map(|(name, _)| name.to_owned()).collect();
        if !waiting.is_empty() {
            self.fail(format!("lost: {waiting:?} still wait with room for all"));
        }
        self.check()
    }

    /// Goes on until nothing happens for so long.
    fn rest(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        for _ in 0..20_000 {
            let before = (self.history.len(), self.api.log.len());
            self.kubelets();
            let mut busy = false;
            for which in 0..self.schedulers.len() {
                for kind in [Kind::Node, Kind::Pod] {
                    while self.schedulers[which].behind(kind, &self.api) {
                        self.schedulers[which].hear(kind, &self.api, self.now);
                        busy = true;
                    }
                }
                while !self.schedulers[which].bindings.is_empty() {
                    self.advance_binding(which);
                    busy = true;
                }
                while !self.schedulers[which].evictions.is_empty() {
                    self.evict(which);
                    busy = true;
                }
                busy |= self.cycle(which);
            }
            self.check()?;
            if busy || before != (self.history.len(), self.api.log.len()) {
                continue;
            }
            let wakes = self.schedulers.iter().filter_map(|scheduler| scheduler.engine.wake_at());
            match wakes.min() {
                Some(at) if at <= end => self.now = at.max(self.now + Duration::from_millis(1)),
                _ => return Ok(()),
            }
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
                let uid = |pod: &Value| text(pod, "/metadata/uid").to_owned();
                let there: BTreeSet<String> = self.api.on(&node.name).map(|(_, pod)| uid(pod)).collect();
                let known: BTreeSet<String> = node.pods.iter().map(|entry| entry.pod.uid.to_string()).collect();
                if there != known {
                    wrong.push(format!("{of} sees {known:?} on {}, there are {there:?}", node.name));
                }
            }
            let uids = self.api.all(Kind::Pod).map(|(_, pod)| text(pod, "/metadata/uid"));
            wrong.extend(uids.filter(|uid| scheduler.engine.is_assumed(uid)).map(|uid| format!("{of} assumes {uid}")));
            if !self.two() {
                let holding = self.api.all(Kind::Pod).filter(|(_, pod)| {
                    pod["metadata"]["labels"]["licence"].is_string() && !node_of(pod).is_empty() && !ended(pod)
                });
                let there: BTreeSet<String> = holding.map(|(_, pod)| text(pod, "/metadata/uid").to_owned()).collect();
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

    /// Pods that wait fit nowhere.
    fn check_waiting(&mut self) {
        let held = self.schedulers[0].licences.held.lock().len();
        let no_licence = held >= self.licences.limit.load(Ordering::Relaxed);
        let mut lost = Vec::new();
        for (name, pod) in self.api.all(Kind::Pod) {
            let gated = pod["spec"]["schedulingGates"].is_array();
            if !node_of(pod).is_empty() || gated || (pod["metadata"]["labels"]["licence"].is_string() && no_licence) {
                continue;
            }
            let tolerant = pod["spec"]["tolerations"].is_array();
            let fits = |(name, node): &(&str, &Value)| {
                let used: u64 = self.api.on(name).map(|(_, pod)| cores(pod)).sum();
                let open = node["spec"]["unschedulable"] != json!(true) && !node["spec"]["taints"].is_array();
                (open || tolerant)
                    && used + cores(pod) <= number(node, "cpu")
                    && (self.api.on(name).count() as u64) < number(node, "pods")
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
