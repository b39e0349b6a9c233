//! What happens to the pods and nodes of a simulated cluster.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use rand::RngExt;

use super::{
    clock::Event,
    options::{Chance, chance, exponential, number_of},
    pods::{Life, Phase, full_name, full_name_of},
    simulation::Simulation,
    workload::{Action, Job, Steady, Step},
};
use crate::model::{PodInfo, Resources};

/// The first wait before a failed pod is replaced; it doubles each time, as that of a Job.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// The longest such wait.
const LAST_RETRY: Duration = Duration::from_secs(360);

fn allocatable(node: &Node) -> Resources {
    let list = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    list.map(Resources::from_list).unwrap_or_default()
}

fn name_of(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or_default()
}

impl Simulation<'_> {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Play(step) => self.play(step),
            Event::Delete(step) => self.delete_next(step),
            Event::Churn(step, turn) => self.churn(step, turn),
            Event::Next(pod) => self.next_steadily(pod),
            Event::Awake => self.awake(),
            Event::Answer(asked) => self.answer(*asked),
            Event::BindVolume(name) => self.bind_volume(&name),
            Event::Provide(namespace, claim) => self.provide(&namespace, &claim),
            Event::Ended { pod, failed } => self.pod_ended(pod, failed),
            Event::Stopped(pod) => self.pod_gone(pod),
            Event::Replace { job, restarts, failures } => self.create(job, restarts, failures),
            Event::NodeDown(name, time) => self.node_down(&name, time),
            Event::NodeUp(node, time) => self.node_up(node, time),
        }
    }

    /// Does what is due of a step.
    fn play(&mut self, step: usize) {
        let workload = self.workload;
        let Some(Step::Play { actions, .. }) = workload.steps.get(step) else { return };
        let now = self.clock.now();
        while let Some(playing) = &mut self.playing[step] {
            let Some(next) = playing.order.get(playing.done) else {
                self.playing[step] = None;
                return;
            };
            let (after, action) = &actions[*next as usize];
            let at = playing.began.saturating_add(*after);
            if at > now {
                return self.clock.add(at - now, Event::Play(step));
            }
            playing.done += 1;
            self.act(action);
        }
    }

    /// Deletes the next of the pods of a step; all of them if nothing is to be waited for in between.
    fn delete_next(&mut self, step: usize) {
        let workload = self.workload;
        let Some(Step::DeletePods { interval, .. }) = workload.steps.get(step) else { return };
        while let Some(pod) = self.deleting[step].pop_front() {
            self.delete(pod);
            if !interval.is_zero() {
                break;
            }
        }
        if !self.deleting[step].is_empty() {
            self.clock.add(*interval, Event::Delete(step));
        }
    }

    /// Whether a pod is one that another comes for.
    fn is_steady(&self, pod: usize) -> bool {
        let step = self.steady.and_then(|(step, _)| self.workload.steps.get(step));
        matches!(step, Some(Step::Steady(steady)) if steady.scope.contains(&self.pods.get(pod).pod))
    }

    pub(super) fn create_steadily(&mut self, steady: &Steady, number: u64) {
        if let Some(action) = (steady.make)(number) {
            self.act(&action);
        }
    }

    /// A pod was scheduled: another one takes its place.
    fn next_steadily(&mut self, pod: usize) {
        let workload = self.workload;
        let Some((step, created)) = self.steady else { return };
        let Some(Step::Steady(steady)) = workload.steps.get(step) else { return };
        self.steady = Some((step, created + 1));
        self.delete(pod);
        self.create_steadily(steady, created);
    }

    fn churn(&mut self, step: usize, turn: u64) {
        let workload = self.workload;
        let Some(Step::Churn(churn)) = workload.steps.get(step) else { return };
        if self.ended {
            return;
        }
        // With `recreate` turns of creation and of deletion take turns.
        let (round, create) = match churn.recreate {
            Some(size) => (turn / (2 * size) * size + turn % size, (turn / size).is_multiple_of(2)),
            None => (turn, true),
        };
        for action in (churn.make)(round) {
            if create { self.act(&action) } else { self.undo(&action) }
        }
        if churn.turns.is_none_or(|turns| turn + 1 < turns) {
            self.clock.add(churn.interval, Event::Churn(step, turn + 1));
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::SetNode(node) => self.set_node(Arc::clone(node)),
            Action::RemoveNode(name) => drop(self.remove_node(name)),
            Action::CreatePod(job) => self.create(Arc::clone(job), 0, 0),
            Action::UpdatePod(pod) => self.update(pod),
            Action::DeletePod(namespace, name) => {
                if let Some(pod) = self.pods.named(&full_name(namespace, name)) {
                    self.delete(pod);
                }
            }
            Action::Apply(object) => self.put(Arc::clone(object)),
            Action::Delete(object) => self.take_away(object),
        }
    }

    fn undo(&mut self, action: &Action) {
        match action {
            Action::SetNode(node) => drop(self.remove_node(name_of(&node.metadata.name))),
            Action::CreatePod(job) => {
                let meta = &job.pod.metadata;
                self.act(&Action::DeletePod(name_of(&meta.namespace).to_owned(), name_of(&meta.name).to_owned()));
            }
            Action::Apply(object) => self.act(&Action::Delete(Arc::clone(object))),
            Action::RemoveNode(_) | Action::UpdatePod(_) | Action::DeletePod(..) | Action::Delete(_) => {}
        }
    }

    fn set_node(&mut self, node: Arc<Node>) {
        let name = name_of(&node.metadata.name);
        match self.engine.snapshot().find(name) {
            Some(known) => self.recorder.node(&self.engine.snapshot().node(known).allocatable, false),
            None => self.expect_failure(name, 0),
        }
        self.recorder.node(&allocatable(&node), true);
        self.engine.set_node(node, self.clock.instant());
    }

    /// Decides when a node leaves, if nodes do; `time` counts how often this one did.
    fn expect_failure(&mut self, name: &str, time: u64) {
        let Some(churn) = &self.options.node_churn else { return };
        let mut random = chance(self.seed, Chance::NodeFailure, number_of(name), time);
        let after = exponential(&mut random, churn.between_failures);
        self.clock.add(after, Event::NodeDown(name.to_owned(), time));
    }

    fn node_down(&mut self, name: &str, time: u64) {
        let Some(churn) = &self.options.node_churn else { return };
        let Some(node) = self.remove_node(name) else { return };
        let after = exponential(&mut chance(self.seed, Chance::Outage, number_of(name), time), churn.outage);
        self.clock.add(after, Event::NodeUp(node, time));
    }

    fn node_up(&mut self, node: Arc<Node>, time: u64) {
        let name = name_of(&node.metadata.name).to_owned();
        if self.engine.snapshot().find(&name).is_none() {
            self.recorder.node(&allocatable(&node), true);
            self.engine.set_node(node, self.clock.instant());
            self.expect_failure(&name, time + 1);
        }
    }

    /// Takes a node away, with the pods on it.
    fn remove_node(&mut self, name: &str) -> Option<Arc<Node>> {
        let snapshot = self.engine.snapshot();
        let info = snapshot.node(snapshot.find(name)?);
        let node = Arc::clone(&info.node);
        let pods: Vec<Arc<PodInfo>> = info.pods.iter().map(|entry| Arc::clone(&entry.pod)).collect();
        self.recorder.node(&info.allocatable, false);
        self.engine.remove_node(name, self.clock.instant());
        for pod in pods {
            let Some(number) = self.pods.find(&pod.uid) else { continue };
            // The binding of one that is on its way fails when it gets there.
            if matches!(self.pods.get(number).phase, Phase::Running | Phase::Stopping) {
                self.summary.lost += 1;
                self.explain(number, || format!("lost with node {name}"));
                let replace = self.pods.get(number).phase == Phase::Running;
                self.pod_gone(number);
                if replace {
                    self.replace(number, Duration::ZERO);
                }
            }
        }
        Some(node)
    }

    /// A pod is created: as it is the first time; later under a name of its own, and without a node.
    fn create(&mut self, job: Arc<Job>, restarts: u32, failures: u32) {
        let mut pod = Arc::clone(&job.pod);
        let namespace = name_of(&pod.metadata.namespace);
        let name = match restarts {
            0 => name_of(&pod.metadata.name).to_owned(),
            _ => format!("{}-r{restarts}", name_of(&pod.metadata.name)),
        };
        let known = full_name(namespace, &name);
        if self.pods.named(&known).is_some_and(|known| self.pods.get(known).phase != Phase::Gone) {
            return;
        }
        let wish = pod.metadata.uid.as_deref().filter(|_| restarts == 0);
        let identity = self.pods.identity(wish, &known);
        if pod.metadata.uid.as_ref() != Some(&identity) || restarts > 0 {
            let changed = Arc::make_mut(&mut pod);
            (changed.metadata.uid, changed.metadata.name) = (Some(identity), Some(name));
        }
        if restarts > 0 {
            let changed = Arc::make_mut(&mut pod);
            changed.status = None;
            changed.spec.get_or_insert_default().node_name = None;
        }
        let made = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
        if made.is_none_or(Vec::is_empty) {
            self.make_claims(&mut pod);
        }
        self.make_volume_claims(&pod);
        let on_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let of_scope = self.measures_all || self.measuring.as_ref().is_some_and(|scope| scope.contains(&pod));
        // One that is on its node already has been scheduled by nobody here.
        let measured = of_scope && !on_node;
        let now = self.clock.now();
        if measured {
            self.summary.pods += 1;
            self.first.get_or_insert(now);
            self.last = self.last.max(now);
        }
        self.recorder.arrived(now);
        self.recorder.pending += 1;
        let explained = self.history.is_about(&pod);
        let life = Life {
            pod: Arc::clone(&pod),
            job,
            phase: Phase::Waiting,
            created: now,
            attempted: false,
            attempts: 0,
            restarts,
            failures,
            measured,
            explained,
        };
        let number = self.pods.add(life);
        self.explain(number, || "created".to_owned());
        self.engine.set_pod(Arc::clone(&pod), self.clock.instant());
        if on_node {
            self.recorder.pod(&PodInfo::new(pod), true);
            self.runs(number);
        }
    }

    /// A pod runs from now on.
    pub(super) fn runs(&mut self, number: usize) {
        let now = self.clock.now();
        self.recorder.pending = self.recorder.pending.saturating_sub(1);
        let life = self.pods.get_mut(number);
        life.phase = Phase::Running;
        if life.measured {
            self.waits.push((now - life.created).as_secs_f64());
            self.last_bound = self.last_bound.max(now);
            self.last = self.last.max(now);
        }
        if self.is_steady(number) {
            self.clock.add(Duration::ZERO, Event::Next(number));
        }
        let life = self.pods.get(number);
        let Some(duration) = life.job.duration else { return };
        let who = number_of(&full_name_of(&life.job.pod));
        let mut random = chance(self.seed, Chance::PodFailure, who, u64::from(life.restarts));
        let failed = random.random_bool(self.options.pod_failures);
        let runs = if failed { duration.mul_f64(random.random_range(0.0..1.0)) } else { duration };
        self.clock.add(runs, Event::Ended { pod: number, failed });
    }

    fn pod_ended(&mut self, number: usize, failed: bool) {
        let life = self.pods.get(number);
        if life.phase != Phase::Running {
            return;
        }
        if life.measured {
            self.last = self.last.max(self.clock.now());
        }
        self.explain(number, || if failed { "failed" } else { "finished" }.to_owned());
        self.pod_gone(number);
        if !failed {
            self.summary.finished += u64::from(self.pods.get(number).measured);
            return;
        }
        self.summary.failures += 1;
        let life = self.pods.get_mut(number);
        life.failures += 1;
        let failures = life.failures;
        if failures <= self.options.retries {
            let doubled = FIRST_RETRY.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
            self.replace(number, doubled.min(LAST_RETRY));
        }
    }

    /// Has a pod replaced after a while, if somebody sees to it.
    fn replace(&mut self, number: usize, after: Duration) {
        let life = self.pods.get(number);
        if life.job.restarts {
            let job = Arc::clone(&life.job);
            let (restarts, failures) = (life.restarts + 1, life.failures);
            self.clock.add(after, Event::Replace { job, restarts, failures });
        }
    }

    /// A pod had to go for another one.
    pub(super) fn preempted(&mut self, victim: &PodInfo) {
        let Some(number) = self.pods.find(&victim.uid) else { return };
        if !matches!(self.pods.get(number).phase, Phase::Running | Phase::Placed) {
            return;
        }
        self.summary.preemptions += 1;
        self.explain(number, || "preempted".to_owned());
        self.delete(number);
        self.replace(number, Duration::ZERO);
    }

    /// Deletes a pod: one that runs stops in its time, another one is gone at once.
    fn delete(&mut self, number: usize) {
        let life = self.pods.get_mut(number);
        let grace = life.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0)).min(self.options.termination);
        let finalizers = life.pod.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        let stays = match life.phase {
            Phase::Stopping | Phase::Gone => return,
            Phase::Running => !grace.is_zero(),
            Phase::Waiting | Phase::Placed => finalizers,
        };
        if !stays {
            self.explain(number, || "deleted".to_owned());
            return self.pod_gone(number);
        }
        let mut pod = Pod::clone(&life.pod);
        pod.metadata.deletion_timestamp = Some(self.clock.timestamp());
        let pod = Arc::new(pod);
        life.pod = Arc::clone(&pod);
        if life.phase == Phase::Running {
            life.phase = Phase::Stopping;
            self.clock.add(grace, Event::Stopped(number));
        }
        self.engine.set_pod(pod, self.clock.instant());
    }

    /// A pod is there no more.
    fn pod_gone(&mut self, number: usize) {
        let life = self.pods.get_mut(number);
        let phase = std::mem::replace(&mut life.phase, Phase::Gone);
        if phase == Phase::Gone {
            return;
        }
        let uid = life.pod.metadata.uid.clone().unwrap_or_default();
        if matches!(phase, Phase::Waiting | Phase::Placed) {
            self.recorder.pending = self.recorder.pending.saturating_sub(1);
        }
        if phase != Phase::Waiting {
            // What it asks for may have changed since it came.
            match self.engine.snapshot().pod(&uid) {
                Some(info) => self.recorder.pod(info, false),
                None => self.recorder.pod(&PodInfo::new(Arc::clone(&life.pod)), false),
            }
        }
        let pod = Arc::clone(&life.pod);
        self.engine.remove_pod(&uid, self.clock.instant());
        self.release_claims(&pod);
        self.release_volume_claims(&pod);
    }

    /// A pod gets new labels and a new spec.
    fn update(&mut self, new: &Pod) {
        let Some(number) = self.pods.named(&full_name_of(new)) else { return };
        let life = self.pods.get_mut(number);
        if matches!(life.phase, Phase::Gone) {
            return;
        }
        let mut pod = Pod::clone(&life.pod);
        let node_name = pod.spec.take().and_then(|spec| spec.node_name);
        pod.metadata.labels.clone_from(&new.metadata.labels);
        pod.spec.clone_from(&new.spec);
        pod.spec.get_or_insert_default().node_name = node_name;
        let pod = Arc::new(pod);
        life.pod = Arc::clone(&pod);
        let on_node = matches!(life.phase, Phase::Running | Phase::Stopping);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(old) = self.engine.snapshot().pod(uid).filter(|_| on_node) {
            self.recorder.pod(old, false);
            self.recorder.pod(&PodInfo::new(Arc::clone(&pod)), true);
        }
        self.engine.set_pod(pod, self.clock.instant());
    }

    /// Notes what happened to a pod whose history is kept.
    pub(super) fn explain(&mut self, number: usize, what: impl FnOnce() -> String) {
        let life = self.pods.get(number);
        if life.explained {
            self.history.note(self.clock.now(), &life.pod, &what());
        }
    }
}
