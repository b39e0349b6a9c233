//! A discrete-event simulation of a cluster around the engine that schedules in a cluster.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use rk_api::{Client, EventRecorder};
use tokio::runtime::{Handle, Runtime};

use super::{
    clock::{Clock, Event, FAR},
    explain::{Explained, History},
    options::{Options, OptionsError},
    outside::outside,
    pods::{Life, Phase, Pods},
    record::{Recorder, Sample, Summary},
    statistics::Distribution,
    store::Objects,
    virtual_time::{self, Tasks},
    workload::{Scope, Stage, Step, Workload},
};
use crate::{
    ConfigError, SchedulerConfig,
    engine::{Decision, Engine, Explanations, Placement, Refusal},
    framework::{Status, WaitingPods},
    model::PodInfo,
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
    /// The operating system gives no more threads or files.
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
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
    /// The decisions on them in full.
    pub explanations: Vec<Explained>,
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
    pub(super) tasks: Tasks<'a>,
    pub(super) objects: Objects,
    pub(super) pods: Pods,
    pub(super) recorder: Recorder,
    pub(super) summary: Summary,
    pub(super) waits: Vec<f64>,
    pub(super) history: History,
    /// By step: what is left of it.
    pub(super) playing: Vec<Option<Playing>>,
    pub(super) deleting: Vec<VecDeque<usize>>,
    /// The step that replaces scheduled pods, and how many it has created.
    pub(super) steady: Option<(usize, u64)>,
    pub(super) measuring: Option<Scope>,
    pub(super) measures_all: bool,
    /// Placed pods that a Permit plugin holds back.
    held: Vec<Placement>,
    permits: WaitingPods,
    client: Arc<dyn Client>,
    /// By scheduler's name.
    recorders: HashMap<String, EventRecorder>,
    explanations: Explanations,
    step: usize,
    waiting: Waiting,
    /// Until when the scheduler is busy.
    busy: Duration,
    /// Whether the engine had nothing to try.
    idle: bool,
    /// When there was last something that happens for certain.
    worked: Duration,
    pub(super) ended: bool,
    pub(super) first: Option<Duration>,
    pub(super) last_bound: Duration,
    pub(super) last: Duration,
}

/// Runs a workload under a scheduler of this configuration. `progress` hears of it now and then.
///
/// The plugins run as in a cluster. What PreBind, Bind and PostBind plugins ask of the API is answered by a simulated one: it has the objects of the
/// workload, binds pods, and takes writes of volumes, of claims on volumes and of claims on devices; the rest is refused
/// (`MethodNotAllowed`). A write takes [`Options::binding`]. Tokio's time (`tokio::time`) is the cluster's for plugins.
///
/// Extenders are asked as they are; the cluster's time stands still meanwhile.
///
/// # Errors
/// The configuration or the options make no sense, or the system has no room for one more runtime.
pub fn simulate(
    workload: &Workload,
    config: &SchedulerConfig,
    options: &Options,
    seed: u64,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Run, SimulationError> {
    options.check()?;
    let mut run = || {
        let runtime = virtual_time::runtime()?;
        in_runtime(&runtime, workload, config, options, seed, progress)
    };
    if Handle::try_current().is_err() {
        return run();
    }
    // No runtime can be entered from within another one, but in a thread of its own.
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn in_runtime(
    runtime: &Runtime,
    workload: &Workload,
    config: &SchedulerConfig,
    options: &Options,
    seed: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Run, SimulationError> {
    let _entered = runtime.enter();
    let clock = Clock::new();
    let tasks = Tasks::new(runtime);
    let client = tasks.client();
    let mut config = SchedulerConfig { seed: Some(seed), ..config.clone() };
    config.extenders = outside(&config.extenders, &client)?;
    if !config.explanations.are_kept() && !options.explain.is_empty() {
        let pods = History::new(&options.explain);
        config.explanations = Explanations::about(1, move |pod: &PodInfo| pods.is_about(&pod.pod));
    }
    let names = config.profiles.iter().map(|profile| profile.scheduler_name().to_owned());
    let recorder = |name: String| (name.clone(), EventRecorder::new(Arc::clone(&client), &name, ""));
    let measures = |step: &Step| matches!(step, Step::StartMeasuring(_));
    let mut simulation = Simulation {
        engine: Engine::new(&config, clock.instant())?,
        permits: config.waiting.clone(),
        recorders: names.map(recorder).collect(),
        explanations: config.explanations.clone(),
        client,
        tasks,
        objects: Objects::default(),
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
        steady: None,
        measuring: None,
        held: Vec::new(),
        step: 0,
        waiting: Waiting::Nothing,
        busy: Duration::ZERO,
        idle: false,
        worked: Duration::ZERO,
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
            if self.carry_on() {
                self.idle = false;
            }
            while !self.ended && self.go_on() {
                self.idle = false;
            }
            if self.ended && !self.has_more() {
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
            let next = [self.clock.next(), engine, held, self.deadline()].into_iter().flatten().min();
            let next = next.filter(|next| *next <= FAR);
            if !self.pass(next) {
                return;
            }
            if self.wake_at().is_some_and(|wake| wake <= self.clock.now()) {
                self.idle = false;
            }
            self.look_at_held();
        }
    }

    /// Lets time pass until the next event, or until a plugin has something to say before that; `false` if there is nothing to wait for.
    fn pass(&mut self, next: Option<Duration>) -> bool {
        let now = self.clock.now();
        let until = match next {
            Some(next) => next,
            // Only plugins can have something to wait for, and may not come to an end.
            None if !self.tasks.is_empty() => now.saturating_add(self.options.patience).min(FAR),
            None => return false,
        };
        let last = self.options.horizon.filter(|horizon| until > *horizon);
        let until = last.map_or(until, |horizon| horizon.max(now));
        self.tasks.pass(self.clock.at(until));
        let news = self.tasks.has_news();
        let reached = if news { self.clock.since_start(self.tasks.now()).clamp(now, until) } else { until };
        self.recorder.advance(reached, self.engine.snapshot());
        self.clock.advance(reached);
        news || (next.is_some() && last.is_none())
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

    /// Whether anything can still happen to the pods that there are. Where they wait for a node and one is to come back, that is waited
    /// for, but not without end: in a large cluster there is always one.
    fn has_more(&mut self) -> bool {
        let now = self.clock.now();
        if self.clock.has_work() || !self.held.is_empty() || !self.tasks.is_empty() {
            self.worked = now;
            return true;
        }
        let (active, backoff, unschedulable) = self.engine.counts();
        let tries = active + backoff > 0;
        if !self.clock.has_returns() {
            return tries;
        }
        (tries || unschedulable > 0) && now < self.worked.saturating_add(self.options.patience)
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
            Step::Steady(steady) => {
                self.clock.add(steady.duration, Event::Awake);
                self.waiting = Waiting::Sleep;
                self.steady = Some((number, steady.count));
                for pod in 0..steady.count {
                    self.create_steadily(steady, pod);
                }
            }
            Step::Churn(churn) => self.clock.add(churn.interval, Event::Churn(number, 0)),
            Step::StartMeasuring(scope) => self.measuring = Some(scope.clone()),
            Step::StopMeasuring => self.measuring = None,
            Step::AllocateClaims { namespace } => {
                if let Err(why) = self.allocate_claims(namespace) {
                    self.summary.stalled = Some(format!("step {}: {why}", self.step));
                    self.ended = true;
                }
            }
        }
        true
    }

    /// The program has slept enough.
    pub(super) fn awake(&mut self) {
        self.waiting = Waiting::Nothing;
        self.steady = None;
    }

    fn decided(&mut self, mut decision: Decision) {
        while let Decision::Ask(question) = decision {
            // Extenders answer at once, as far as virtual time goes.
            let Some(answer) = question.ask().now_or_never() else { return };
            decision = self.engine.answer(*question, answer, self.clock.instant());
        }
        self.summary.attempts += u64::from(decision.pod().is_some());
        match decision {
            Decision::Skip(pod) => {
                if let Some(number) = self.pods.find(&pod.uid) {
                    self.pods.get_mut(number).attempted = true;
                }
            }
            Decision::Ask(_) | Decision::Group(_) => {}
            Decision::Refused(refusal) => {
                self.refused(&refusal);
                self.decided_in_full(&refusal.pod);
            }
            Decision::Place(placement) => {
                if let Some(number) = self.pods.find(&placement.pod.uid) {
                    let life = self.pods.get_mut(number);
                    (life.attempted, life.phase, life.attempts) = (true, Phase::Placed, placement.attempts);
                    if life.explained {
                        self.history.placed(self.clock.now(), &placement);
                    }
                    self.decided_in_full(&placement.pod);
                }
                self.recorder.pod(&placement.pod, true);
                if placement.waited.is_some() { self.held.push(placement) } else { self.bind(placement) }
            }
        }
    }

    /// Notes a decision in full, for a pod whose history is kept.
    fn decided_in_full(&mut self, pod: &PodInfo) {
        let explained = self.pods.find(&pod.uid).is_some_and(|number| self.pods.get(number).explained);
        if explained && let Some(decision) = self.explanations.of(&pod.namespace, &pod.name) {
            self.history.decided(self.clock.now(), &decision);
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
        if let Some(claim) = &refusal.deallocation {
            self.deallocate(claim);
        }
        if let Some(eviction) = &refusal.eviction {
            for victim in &eviction.victims {
                self.preempted(victim);
            }
        }
    }

    /// The plugins bind the pod, beside the next cycles.
    fn bind(&mut self, placement: Placement) {
        let client = Arc::clone(&self.client);
        let events = self.recorders[placement.pod.scheduler_name()].clone();
        self.tasks.spawn(async move {
            let status = placement.bind(&client, &events).await;
            if status.is_success() {
                placement.post_bind(&client, &events).await;
            }
            (placement, status)
        });
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
        if self.is_placed(&placement.pod) {
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
        self.recorder.finish(&mut summary, self.engine.snapshot());
        let (history, explanations) = self.history.finish();
        Run {
            summary,
            samples: self.recorder.samples,
            resources: self.recorder.names,
            waits: self.waits,
            history,
            explanations,
        }
    }
}
