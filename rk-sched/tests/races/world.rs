//! The cluster around the schedulers: its users, its kubelets, its faults, and what has to hold.

mod settle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rk_sched::{
    engine::{Decision, Placement, Refusal},
    framework::Status,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    api::{Api, Kind, Refused, cores, ended, leaving, node_of, number, text},
    licences::Licences,
    scheduler::{Binding, Scheduler, Stage},
};

/// What a careless scheduler would do, to see that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A placed pod's node is free again before it is bound.
    ForgetAssumed,
    /// Reserve is not taken back when a binding fails.
    NoUnreserve,
    /// The end of a binding that failed is not told.
    DropOutcome,
    /// A binding whose answer was lost counts as failed.
    BelieveSilence,
    /// What left while a watch was broken is not noticed.
    MissDeletions,
}

impl Bug {
    pub const ALL: [Self; 5] =
        [Self::ForgetAssumed, Self::NoUnreserve, Self::DropOutcome, Self::BelieveSilence, Self::MissDeletions];
}

const NAMES: [&str; 2] = ["one", "two"];

pub struct World {
    random: StdRng,
    bug: Option<Bug>,
    now: Instant,
    api: Api,
    schedulers: Vec<Scheduler>,
    licences: Licences,
    leaders: u64,
    pods: u32,
    /// Cores of each node that was; one that comes back has no less.
    sizes: BTreeMap<String, u64>,
    /// How often each pod was bound, by uid.
    bound: BTreeMap<String, u32>,
    /// Uids in the order of their binding.
    order: Vec<String>,
    /// With two schedulers: pods that their kubelet has taken.
    admitted: BTreeSet<String>,
    /// The pods that a pod's scheduler knew on the node when it chose it.
    seen: BTreeMap<String, BTreeSet<String>>,
    faults: bool,
    wrong: Option<String>,
    history: Vec<String>,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let now = Instant::now();
        let mut api = Api::default();
        let mut sizes = BTreeMap::new();
        for number in 0..random.random_range(1..4) {
            let (name, size) = (format!("node-{number}"), random.random_range(4..9));
            api.set(Kind::Node, &name, node(size));
            sizes.insert(name, size);
        }
        let two = seed % 3 == 2;
        let licences = Licences::default();
        licences.limit.store(random.random_range(1..4), Ordering::Relaxed);
        let names = &NAMES[..if two { 2 } else { 1 }];
        let start = |name: &&'static str| Scheduler::start(name, seed, licences.clone(), &api, now);
        let schedulers = names.iter().map(start).collect();
        Self {
            random,
            bug,
            now,
            api,
            schedulers,
            licences,
            leaders: seed,
            pods: 0,
            sizes,
            bound: BTreeMap::new(),
            order: Vec::new(),
            admitted: BTreeSet::new(),
            seen: BTreeMap::new(),
            faults: true,
            wrong: None,
            history: Vec::new(),
        }
    }

    /// What happened, in order.
    pub fn history(&self) -> &[String] {
        &self.history
    }

    /// A time of faults, then one without.
    ///
    /// # Errors
    /// What did not hold, behind what had happened last.
    pub fn run(&mut self) -> Result<(), String> {
        let steps = self.random.random_range(60..260);
        for _ in 0..steps {
            self.step();
            self.check()?;
        }
        self.settle()
    }

    fn two(&self) -> bool {
        self.schedulers.len() > 1
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// A fault, while there are faults.
    fn fault(&mut self, percent: u32) -> bool {
        self.faults && self.chance(percent)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        self.history.push(what());
    }

    fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn check(&self) -> Result<(), String> {
        let Some(wrong) = &self.wrong else { return Ok(()) };
        let last = self.history.iter().rev().take(20).rev().cloned().collect::<Vec<_>>();
        Err(format!("{}\n{wrong}", last.join("\n")))
    }

    fn step(&mut self) {
        let which = self.random.random_range(0..self.schedulers.len());
        match self.random.random_range(0..100) {
            0..12 => self.add_pod(),
            12..17 => self.change_pod(),
            17..22 => self.delete_pod(),
            22..26 => self.change_node(),
            26..34 => self.kubelets(),
            34..37 => self.now += Duration::from_millis(self.random.random_range(1..5000)),
            37..38 => self.change_leader(which),
            38..40 => {
                let kind = if self.chance(50) { Kind::Node } else { Kind::Pod };
                self.relist(which, kind);
            }
            40..48 => self.schedulers[which].hear(Kind::Node, &self.api, self.now),
            48..66 => self.schedulers[which].hear(Kind::Pod, &self.api, self.now),
            66..84 => {
                self.cycle(which);
            }
            84..98 => self.advance_binding(which),
            _ => self.evict(which),
        }
    }

    // What users do.

    fn add_pod(&mut self) {
        if self.api.all(Kind::Pod).count() >= 24 {
            return;
        }
        let of = if self.two() { NAMES[self.random.random_range(0..2)] } else { NAMES[0] };
        let mut pod = json!({
            "metadata": {"namespace": "default", "labels": {"app": "web"}},
            "spec": {
                "schedulerName": of,
                "priority": self.random.random_range(0..3),
                "containers": [{"name": "c", "resources": {"requests": {"cpu": self.random.random_range(1..4).to_string()}}}],
            },
        });
        if !self.two() && self.chance(25) {
            pod["metadata"]["labels"]["licence"] = "yes".into();
        }
        if self.chance(10) {
            pod["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
        }
        if self.chance(20) {
            pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        }
        self.pods += 1;
        let name = format!("pod-{}", self.pods);
        self.note(|| format!("{name} of {of} is made"));
        self.api.set(Kind::Pod, &name, pod);
    }

    fn some(&mut self, kind: Kind) -> Option<String> {
        let count = self.api.all(kind).count();
        let at = self.random.random_range(0..count.max(1));
        self.api.all(kind).nth(at).map(|(name, _)| name.to_owned())
    }

    fn change_pod(&mut self) {
        let Some(name) = self.some(Kind::Pod) else { return };
        let number = self.random.random_range(0..3);
        self.note(|| format!("{name} changes"));
        self.api.change(Kind::Pod, &name, |pod| match number {
            0 => pod["spec"]["schedulingGates"] = Value::Null,
            1 => pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]),
            _ => pod["metadata"]["labels"]["app"] = "db".into(),
        });
    }

    fn delete_pod(&mut self) {
        let Some(name) = self.some(Kind::Pod) else { return };
        let Some(pod) = self.api.get(Kind::Pod, &name).cloned() else { return };
        self.note(|| format!("{name} is deleted"));
        self.api.delete_pod(&name, text(&pod, "/metadata/uid"));
        if self.api.get(Kind::Pod, &name).is_none() && self.chance(40) {
            // Another pod takes the name before anybody has looked.
            self.note(|| format!("{name} is made again"));
            self.api.set(Kind::Pod, &name, fresh(pod));
        }
    }

    fn change_node(&mut self) {
        let number = self.random.random_range(0..5);
        let name = format!("node-{}", self.random.random_range(0..5));
        let there = self.api.get(Kind::Node, &name).is_some();
        if !there {
            let size = self.sizes.get(&name).copied().unwrap_or(self.random.random_range(4..9));
            self.sizes.insert(name.clone(), size);
            self.note(|| format!("{name} comes with {size} cores"));
            self.api.set(Kind::Node, &name, node(size));
            return;
        }
        self.note(|| format!("{name} changes, {number}"));
        match number {
            0 | 1 if self.api.all(Kind::Node).count() > 1 => self.api.remove(Kind::Node, &name),
            2 => {
                let size = self.sizes[&name] + 1;
                self.sizes.insert(name.clone(), size);
                let size = size.to_string();
                self.api.change(Kind::Node, &name, |node| node["status"]["allocatable"]["cpu"] = size.into());
            }
            3 => self.api.change(Kind::Node, &name, |node| {
                let cordoned = node["spec"]["unschedulable"] == json!(true);
                node["spec"]["unschedulable"] = json!(!cordoned);
            }),
            _ => self.api.change(Kind::Node, &name, |node| {
                let tainted = node["spec"]["taints"].is_array();
                let taints = json!([{"key": "k", "effect": "NoSchedule"}]);
                node["spec"]["taints"] = if tainted { Value::Null } else { taints };
            }),
        }
    }

    // What kubelets and the garbage collector do.

    fn kubelets(&mut self) {
        if self.two() {
            self.admit();
        }
        let pods: Vec<(String, Value)> = self.api.all(Kind::Pod).map(|(n, pod)| (n.to_owned(), pod.clone())).collect();
        for (name, pod) in pods {
            let node = node_of(&pod);
            if node.is_empty() || !self.chance(if self.faults { 30 } else { 100 }) {
                continue;
            }
            if leaving(&pod) || self.api.get(Kind::Node, node).is_none() {
                self.note(|| format!("{name} leaves {node}"));
                self.api.remove(Kind::Pod, &name);
            } else if self.fault(20) {
                self.note(|| format!("{name} ends on {node}"));
                self.api.change(Kind::Pod, &name, |pod| pod["status"]["phase"] = "Succeeded".into());
            }
        }
    }

    /// Kubelets take pods in the order in which they were bound, and fail those for which there is no room.
    fn admit(&mut self) {
        for uid in self.order.clone() {
            let found = self.api.all(Kind::Pod).find(|(_, pod)| text(pod, "/metadata/uid") == uid);
            let Some((name, pod)) = found.map(|(name, pod)| (name.to_owned(), pod.clone())) else { continue };
            let node = node_of(&pod).to_owned();
            let Some(of) = self.api.get(Kind::Node, &node) else { continue };
            if self.admitted.contains(&uid) || ended(&pod) {
                continue;
            }
            let there = self.api.on(&node).filter(|(_, other)| self.admitted.contains(text(other, "/metadata/uid")));
            let there: Vec<(String, u64)> =
                there.map(|(_, other)| (text(other, "/metadata/uid").to_owned(), cores(other))).collect();
            let used: u64 = there.iter().map(|(_, cores)| cores).sum();
            if used + cores(&pod) <= number(of, "cpu") && (there.len() as u64) < number(of, "pods") {
                self.admitted.insert(uid);
                continue;
            }
            let seen = self.seen.get(&uid);
            if there.iter().all(|(other, _)| seen.is_some_and(|seen| seen.contains(other))) {
                self.fail(format!("{node} is given {name} by a scheduler that saw there was no room"));
            }
            self.note(|| format!("{node} refuses {name}"));
            self.api.change(Kind::Pod, &name, |pod| {
                pod["status"]["phase"] = "Failed".into();
                pod["status"]["reason"] = "OutOfcpu".into();
            });
            self.pods += 1;
            let again = format!("pod-{}", self.pods);
            self.note(|| format!("{again} is made in its place"));
            self.api.set(Kind::Pod, &again, fresh(pod));
        }
    }

    // What happens to schedulers.

    /// The leader is gone in the middle of its work. The next one starts once the lease is over; what was on its way has arrived
    /// by then, or never will.
    fn change_leader(&mut self, which: usize) {
        while let Some(binding) = self.schedulers[which].bindings.pop() {
            if binding.stage == Stage::Sent && self.chance(50) {
                // Nobody hears the answer.
                let _ = self.bind(which, &binding.placement);
            }
        }
        self.now += Duration::from_secs(15);
        self.leaders += 1;
        let name = self.schedulers[which].name;
        self.note(|| format!("{name} has a new leader"));
        let licences = Licences { limit: Arc::clone(&self.licences.limit), ..Licences::default() };
        self.schedulers[which] = Scheduler::start(name, self.leaders, licences, &self.api, self.now);
    }

    fn relist(&mut self, which: usize, kind: Kind) {
        let name = self.schedulers[which].name;
        self.note(|| format!("{name} lists again, {kind:?}"));
        let missing = self.bug == Some(Bug::MissDeletions);
        self.schedulers[which].relist(kind, &self.api, self.now, missing);
    }

    fn cycle(&mut self, which: usize) -> bool {
        let scheduler = &mut self.schedulers[which];
        let Some(decision) = scheduler.engine.next(self.now) else { return false };
        match decision {
            Decision::Place(placement) => self.placed(which, placement),
            Decision::Refused(refusal) => self.refused(which, &refusal),
            _ => {}
        }
        true
    }

    fn placed(&mut self, which: usize, placement: Placement) {
        let (uid, name, node) = (&placement.pod.uid, &placement.pod.name, &placement.node);
        let scheduler = &mut self.schedulers[which];
        let of = scheduler.name;
        if scheduler.done.contains(uid) {
            self.fail(format!("{of} binds {name}, which it knows to be bound or gone"));
            return;
        }
        let snapshot = scheduler.engine.snapshot();
        if let Some(index) = snapshot.find(node) {
            let info = snapshot.node(index);
            let others = info.pods.iter().map(|entry| entry.pod.uid.to_string());
            self.seen.insert(uid.to_string(), others.filter(|other| **other != **uid).collect());
            if info.requested.milli_cpu > info.allocatable.milli_cpu || info.pods.len() as i64 > info.allowed_pods {
                let what = format!("{of} gives {node} more than it has, by its own account: {name}");
                self.fail(what);
            }
        }
        let (uid, name, node) = (Arc::clone(uid), Arc::clone(name), Arc::clone(node));
        self.note(|| format!("{of} places {name} on {node}"));
        let scheduler = &mut self.schedulers[which];
        scheduler.bindings.push(Binding { placement, stage: Stage::Sent });
        if self.bug == Some(Bug::ForgetAssumed) {
            scheduler.engine.bound(&uid, Status::error("forgotten"), self.now);
        }
    }

    fn refused(&mut self, which: usize, refusal: &Refusal) {
        let pod = &refusal.pod;
        self.note(|| format!("{} is refused", pod.name));
        let dropped = self.fault(30);
        let same = self.api.get(Kind::Pod, &pod.name).is_some_and(|now| {
            text(now, "/metadata/uid") == pod.uid.as_ref()
                && node_of(now).is_empty()
                && text(now, "/status/nominatedNodeName") != refusal.nominated.as_deref().unwrap_or_default()
        });
        if !dropped && same {
            let node = refusal.nominated.as_deref().map_or(Value::Null, Value::from);
            self.api.change(Kind::Pod, &pod.name, |pod| pod["status"]["nominatedNodeName"] = node);
        }
        for victim in refusal.eviction.iter().flat_map(|eviction| &eviction.victims) {
            if victim.priority >= pod.priority {
                let what = format!("{} of priority {} goes for {}", victim.name, victim.priority, pod.name);
                self.fail(what);
            }
            self.note(|| format!("{} is to go for {}", victim.name, pod.name));
            self.schedulers[which].evictions.push((victim.name.to_string(), victim.uid.to_string()));
        }
    }

    fn evict(&mut self, which: usize) {
        let Some((name, uid)) = self.schedulers[which].evictions.pop() else { return };
        if !self.fault(20) {
            self.note(|| format!("{name} is evicted"));
            self.api.delete_pod(&name, &uid);
        }
    }

    /// A binding reaches the API; what it answers.
    fn bind(&mut self, which: usize, placement: &Placement) -> Result<(), Refused> {
        let (name, uid, node) = (&placement.pod.name, &placement.pod.uid, &placement.node);
        let answer = self.api.bind(name, uid, node);
        let of = self.schedulers[which].name;
        self.note(|| format!("{of} binds {name} to {node}: {answer:?}"));
        if answer.is_ok() {
            let times = self.bound.entry(uid.to_string()).or_default();
            *times += 1;
            if *times > 1 {
                self.fail(format!("{name} is bound twice"));
            }
            self.order.push(uid.to_string());
            self.check_room(node);
        }
        answer
    }

    /// With one scheduler what is bound to a node is never more than it has.
    fn check_room(&mut self, node: &str) {
        let Some(of) = self.api.get(Kind::Node, node) else { return };
        let used: u64 = self.api.on(node).map(|(_, pod)| cores(pod)).sum();
        let count = self.api.on(node).count() as u64;
        if !self.two() && (used > number(of, "cpu") || count > number(of, "pods")) {
            let size = number(of, "cpu");
            self.fail(format!("{node} of {size} cores has {count} pods with {used}"));
        }
    }

    /// One of the bindings gets a step further.
    fn advance_binding(&mut self, which: usize) {
        let count = self.schedulers[which].bindings.len();
        if count == 0 {
            return;
        }
        let at = self.random.random_range(0..count);
        let binding = self.schedulers[which].bindings.swap_remove(at);
        let Binding { placement, stage } = binding;
        let stage = match stage {
            Stage::Sent if self.fault(10) => {
                self.note(|| format!("the binding of {} is lost", placement.pod.name));
                Stage::Unknown
            }
            Stage::Sent => {
                let answer = self.bind(which, &placement);
                if self.fault(15) { Stage::Unknown } else { Stage::Answered(answer) }
            }
            Stage::Answered(answer) => {
                let status =
                    answer.map_or_else(|refused| Status::error(format!("{refused:?}")), |()| Status::success());
                return self.told(which, &placement, status);
            }
            Stage::Unknown if self.bug == Some(Bug::BelieveSilence) => {
                return self.told(which, &placement, Status::error("no answer"));
            }
            Stage::Unknown if self.fault(30) => Stage::Unknown,
            Stage::Unknown => {
                let pod = self.api.get(Kind::Pod, &placement.pod.name);
                let same = pod.filter(|pod| text(pod, "/metadata/uid") == placement.pod.uid.as_ref());
                let bound = same.is_some_and(|pod| node_of(pod) == placement.node.as_ref());
                let status = if bound { Status::success() } else { Status::error("it is not bound") };
                return self.told(which, &placement, status);
            }
        };
        self.schedulers[which].bindings.push(Binding { placement, stage });
    }

    /// The scheduler is told how a binding ended.
    fn told(&mut self, which: usize, placement: &Placement, status: Status) {
        let name = &placement.pod.name;
        self.note(|| format!("{name}: {status}"));
        if !status.is_success() {
            if self.bug != Some(Bug::NoUnreserve) {
                placement.unreserve();
            }
            if self.bug == Some(Bug::DropOutcome) {
                return;
            }
        }
        self.schedulers[which].engine.bound(&placement.pod.uid, status, self.now);
    }
}

/// Another pod of the same spec.
fn fresh(mut pod: Value) -> Value {
    for path in ["uid", "deletionTimestamp"] {
        pod["metadata"][path] = Value::Null;
    }
    pod["spec"]["nodeName"] = Value::Null;
    pod["status"] = Value::Null;
    pod
}

fn node(cores: u64) -> Value {
    json!({"metadata": {}, "spec": {}, "status": {"allocatable": {"cpu": cores.to_string(), "pods": "5"}}})
}
