//! A discrete-event simulation of a cluster around the engine that schedules in a cluster.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    clock::{Clock, Event},
    explain::History,
    options::{Chance, Options, OptionsError, chance},
    pods::{Life, Phase, Pods},
    record::{Recorder, Sample, Summary},
    statistics::Distribution,
    workload::{Scope, Stage, Step, Workload},
};
use crate::{
    ConfigError, SchedulerConfig,
    engine::{Decision, Engine, Placement, Refusal},
    framework::{Status, WaitingPods},
};

/// A simulation that can't begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The scheduler's configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An option makes no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The figures.
    pub summary: Summary,
    /// The course of the run, at even intervals.
    pub samples: Vec<Sample>,
    /// The names of the resources in the samples.
    pub resources: Vec<Arc<str>>,
    /// Seconds that each measured pod waited for its node, sorted.
    pub waits: Vec<f64>,
    /// What happened to the pods that were to be explained.
    pub history: Vec<String>,
}

/// How far a simulation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Pods bound so far.
    pub bound: u64,
    /// Pods created so far.
    pub created: u64,
    /// The cluster's time.
    pub time: Duration,
}

/// Between two calls of who follows the progress, in events.
const PROGRESS: u64 = 1024;

/// A step that is being played beside others.
pub(super) struct Playing {
    /// The actions' numbers, by time.
    pub(super) order: Vec<u32>,
    pub(super) done: usize,
    pub(super) began: Duration,
}

/// What the program waits for before its next step.
enum Waiting {
    Nothing,
    Event(usize),
    Sleep,
    Pods { stage: Stage, left: Vec<usize>, since: Duration },
}

/// A cluster in virtual time.
pub(super) struct Simulation<'a> {
    pub(super) workload: &'a Workload,
    pub(super) options: &'a Options,
    pub(super) seed: u64,
    pub(super) clock: Clock,
    pub(super) engine: Engine,
    pub(super) pods: Pods,
    pub(super) recorder: Recorder,
    pub(super) summary: Summary,
    pub(super) waits: Vec<f64>,
    pub(super) history: History,
    /// By step: what is left of it.
    pub(super) playing: Vec<Option<Playing>>,
    pub(super) deleting: Vec<VecDeque<usize>>,
    pub(super) measuring: Option<Scope>,
    pub(super) measures_all: bool,
    pub(super) node_numbers: HashMap<String, u64>,
    /// Placed pods that a Permit plugin holds back.
    held: Vec<Placement>,
    permits: WaitingPods,
    step: usize,
    waiting: Waiting,
    /// Until when the scheduler is busy.
    busy: Duration,
    /// Whether the engine had nothing to try.
    idle: bool,
    pub(super) ended: bool,
    pub(super) first: Option<Duration>,
    pub(super) last_bound: Duration,
    pub(super) last: Duration,
}

/// Runs a workload under a scheduler of this configuration. `progress` hears of it now and then.
///
/// The plugins run as in a cluster, up to Permit. PreBind, Bind and PostBind, which talk to an API, don't: a binding takes
/// [`Options::binding`].
///
/// # Errors
/// The configuration or the options make no sense.
pub fn simulate(
    workload: &Workload,
    config: &SchedulerConfig,
    options: &Options,
    seed: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Run, SimulationError> {
    options.check()?;
    let clock = Clock::new();
    let config = SchedulerConfig { seed: Some(seed), ..config.clone() };
    let measures = |step: &Step| matches!(step, Step::StartMeasuring(_));
    let mut simulation = Simulation {
        engine: Engine::new(&config, clock.instant())?,
        permits: config.waiting.clone(),
        measures_all: !workload.steps.iter().any(measures),
        recorder: Recorder::new(workload, options.share_by.as_deref()),
        history: History::new(&options.explain),
        summary: Summary { seed, ..Summary::default() },
        playing: workload.steps.iter().map(|_| None).collect(),
        deleting: workload.steps.iter().map(|_| VecDeque::new()).collect(),
        workload,
        options,
        seed,
        clock,
        pods: Pods::default(),
        waits: Vec::new(),
        measuring: None,
        node_numbers: HashMap::new(),
        held: Vec::new(),
        step: 0,
        waiting: Waiting::Nothing,
        busy: Duration::ZERO,
        idle: false,
        ended: false,
        first: None,
        last_bound: Duration::ZERO,
        last: Duration::ZERO,
    };
    simulation.run(progress);
    Ok(simulation.finish())
}

impl Simulation<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(Progress)) {
        let mut rounds: u64 = 0;
        loop {
            rounds += 1;
            if rounds.is_multiple_of(PROGRESS) {
                let (bound, created) = (self.waits.len() as u64, self.summary.pods);
                progress(Progress { bound, created, time: self.clock.now() });
            }
            while let Some(event) = self.clock.pop() {
                self.on_event(event);
                self.idle = false;
            }
            while !self.ended && self.go_on() {
                self.idle = false;
            }
            if self.ended && !self.has_work() {
                return;
            }
            if !self.idle && self.busy <= self.clock.now() {
                match self.engine.next(self.clock.instant()) {
                    Some(decision) => {
                        self.busy = self.clock.now() + self.options.cycle;
                        self.decided(decision);
                    }
                    None => self.idle = true,
                }
                self.look_at_held();
                continue;
            }
            let engine = if self.idle { self.wake_at() } else { Some(self.busy) };
            let held = self.held.iter().filter_map(|placement| placement.waited.as_ref()?.until()).min();
            let held = held.map(|until| self.clock.since_start(until));
            let Some(next) = [self.clock.next(), engine, held, self.deadline()].into_iter().flatten().min() else {
                return;
            };
            if self.options.horizon.is_some_and(|horizon| next > horizon) {
                return;
            }
            self.recorder.advance(next, self.engine.snapshot());
            self.clock.advance(next);
            if self.wake_at().is_some_and(|wake| wake <= next) {
                self.idle = false;
            }
            self.look_at_held();
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        self.engine.wake_at().map(|wake| self.clock.since_start(wake))
    }

    /// When the program gives up waiting for pods.
    fn deadline(&self) -> Option<Duration> {
        match self.waiting {
            Waiting::Pods { since, .. } => Some(since.saturating_add(self.options.patience)),
            _ => None,
        }
    }

    /// Whether anything can still happen to the pods that there are.
    fn has_work(&self) -> bool {
        let (active, backoff, _) = self.engine.counts();
        self.clock.has_work() || active + backoff > 0 || !self.held.is_empty()
    }

    /// Begins the next step if nothing is waited for any more; `false` if the program has to wait.
    fn go_on(&mut self) -> bool {
        let now = self.clock.now();
        match &mut self.waiting {
            Waiting::Nothing => {}
            Waiting::Event(step) if self.playing[*step].is_none() && self.deleting[*step].is_empty() => {}
            Waiting::Event(_) | Waiting::Sleep => return false,
            Waiting::Pods { stage, left, since } => {
                while left.last().is_some_and(|pod| self.pods.get(*pod).is(*stage)) {
                    left.pop();
                }
                if !left.is_empty() {
                    if now < since.saturating_add(self.options.patience) {
                        return false;
                    }
                    left.retain(|pod| !self.pods.get(*pod).is(*stage));
                    let (count, patience) = (left.len(), self.options.patience.as_secs());
                    let text = format!("step {}: {count} pods were not {stage:?} after {patience} s", self.step);
                    self.summary.stalled = Some(text.to_lowercase());
                    self.ended = true;
                    return true;
                }
            }
        }
        self.waiting = Waiting::Nothing;
        let workload = self.workload;
        let Some(step) = workload.steps.get(self.step) else {
            self.ended = true;
            return true;
        };
        let number = self.step;
        self.step += 1;
        match step {
            Step::Play { actions, background } => {
                let mut order: Vec<u32> = (0..actions.len() as u32).collect();
                order.sort_by_key(|index| actions[*index as usize].0);
                if let Some(first) = order.first() {
                    self.clock.add(actions[*first as usize].0, Event::Play(number));
                    self.playing[number] = Some(Playing { order, done: 0, began: now });
                    if !background {
                        self.waiting = Waiting::Event(number);
                    }
                }
            }
            Step::Await { stage, scope } => {
                let wanted = |(_, life): &(usize, &Life)| !life.is(*stage) && scope.contains(&life.pod);
                let left = self.pods.iter().filter(wanted).map(|(number, _)| number).collect();
                self.waiting = Waiting::Pods { stage: *stage, left, since: now };
            }
            Step::Sleep(time) => {
                self.clock.add(*time, Event::Awake);
                self.waiting = Waiting::Sleep;
            }
            Step::DeletePods { scope, interval, background } => {
                let there = |life: &Life| !matches!(life.phase, Phase::Gone | Phase::Stopping);
                let wanted = self.pods.iter().filter(|(_, life)| there(life) && scope.contains(&life.pod));
                self.deleting[number] = wanted.map(|(number, _)| number).collect();
                if !self.deleting[number].is_empty() {
                    self.clock.add(*interval, Event::Delete(number));
                    if !background {
                        self.waiting = Waiting::Event(number);
                    }
                }
            }
            Step::Churn(churn) => self.clock.add(churn.interval, Event::Churn(number, 0)),
            Step::StartMeasuring(scope) => self.measuring = Some(scope.clone()),
            Step::StopMeasuring => self.measuring = None,
        }
        true
    }

    /// The program has slept enough.
    pub(super) fn awake(&mut self) {
        self.waiting = Waiting::Nothing;
    }

    fn decided(&mut self, mut decision: Decision) {
        // Extenders are outside of the virtual cluster, and have no say in it.
        while let Decision::Ask(question) = decision {
            let answer = question.unasked();
            decision = self.engine.answer(*question, answer, self.clock.instant());
        }
        self.summary.attempts += 1;
        match decision {
            Decision::Skip(pod) => {
                if let Some(number) = self.pods.find(&pod.uid) {
                    self.pods.get_mut(number).attempted = true;
                }
            }
            Decision::Ask(_) => {}
            Decision::Refused(refusal) => self.refused(&refusal),
            Decision::Place(placement) => {
                if let Some(number) = self.pods.find(&placement.pod.uid) {
                    let life = self.pods.get_mut(number);
                    (life.attempted, life.phase) = (true, Phase::Placed);
                    if life.explained {
                        self.history.placed(self.clock.now(), &placement);
                    }
                }
                self.recorder.pod(&placement.pod, true);
                if placement.waited.is_some() { self.held.push(placement) } else { self.bind(placement) }
            }
        }
    }

    /// A pod got no node, or lost the one that it had.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let Some(number) = self.pods.find(&refusal.pod.uid) else { return };
        let life = self.pods.get_mut(number);
        life.attempted = true;
        if life.phase == Phase::Placed {
            life.phase = Phase::Waiting;
        }
        if life.explained {
            self.history.refused(self.clock.now(), refusal);
        }
        if let Some(eviction) = &refusal.eviction {
            for victim in &eviction.victims {
                self.preempted(victim);
            }
        }
    }

    /// The API gets the binding, and answers after a while.
    fn bind(&mut self, placement: Placement) {
        let number = self.pods.find(&placement.pod.uid).unwrap_or_default() as u64;
        let mut random = chance(self.seed, Chance::Binding, number, u64::from(placement.attempts));
        let late = self.options.binding.mul_f64(rand::RngExt::random_range(&mut random, 0.5..1.5));
        self.clock.add(late, Event::Bound(Box::new(placement)));
    }

    /// Goes on with held pods that were decided on.
    fn look_at_held(&mut self) {
        let now = self.clock.instant();
        let over = |placement: &Placement| placement.waited.as_ref().and_then(crate::framework::Waited::until);
        // A pod that was decided on waits no more.
        let decided = self.permits.len() < self.held.len();
        if !decided && !self.held.iter().filter_map(over).any(|until| until <= now) {
            return;
        }
        for mut placement in std::mem::take(&mut self.held) {
            match placement.waited.as_mut().and_then(|waited| waited.poll(now)) {
                None => self.held.push(placement),
                Some(status) => {
                    placement.waited = None;
                    self.idle = false;
                    if status.is_success() { self.bind(placement) } else { self.unbound(&placement, status) }
                }
            }
        }
    }

    /// A placed pod does not get to its node.
    pub(super) fn unbound(&mut self, placement: &Placement, status: Status) {
        placement.unreserve();
        // One that was deleted meanwhile has left its node already.
        let placed =
            self.pods.find(&placement.pod.uid).is_some_and(|number| self.pods.get(number).phase == Phase::Placed);
        if placed {
            self.recorder.pod(&placement.pod, false);
        }
        if let Some(refusal) = self.engine.bound(&placement.pod.uid, status, self.clock.instant()) {
            self.refused(&refusal);
        }
    }

    fn finish(mut self) -> Run {
        self.waits.sort_by(f64::total_cmp);
        let (first, waits) = (self.first.unwrap_or_default(), &self.waits);
        let mut summary = self.summary;
        summary.scheduled = waits.len() as u64;
        summary.unscheduled =
            self.pods.iter().filter(|(_, life)| life.measured && !life.is(Stage::Scheduled)).count() as u64;
        summary.makespan = self.last.saturating_sub(first).as_secs_f64();
        let binding = self.last_bound.saturating_sub(first).as_secs_f64();
        summary.throughput = if binding > 0.0 { waits.len() as f64 / binding } else { 0.0 };
        summary.wait = Distribution::of(waits);
        self.recorder.finish(&mut summary);
        Run {
            summary,
            samples: self.recorder.samples,
            resources: self.recorder.names,
            waits: self.waits,
            history: self.history.lines(),
        }
    }
}
