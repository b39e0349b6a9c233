//! Probing one container for as long as it runs: startup first, then readiness and liveness.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::core::v1::Probe;
use rk_api::EventRecorder;
use tokio::{sync::mpsc, task::JoinSet};

use super::worker::Signal;
use crate::probe::{self, Target};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What the probes of a running container have found; dropping it ends them.
pub(crate) struct Probes {
    pub(crate) container_id: String,
    pub(crate) started: bool,
    pub(crate) ready: bool,
    /// Why the container has to be restarted.
    pub(crate) failed: Option<ProbeKind>,
    ask: Asking,
    tasks: JoinSet<()>,
    readiness: JoinSet<()>,
}

#[derive(Clone)]
struct Asking {
    target: Target,
    about: ObjectReference,
    recorder: EventRecorder,
    signals: mpsc::UnboundedSender<Signal>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

fn threshold(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
}

impl Asking {
    /// Asks for ever, and tells each change of mind.
    async fn run(self, kind: ProbeKind, probe: Probe) {
        let period = seconds(probe.period_seconds.filter(|period| *period > 0), 10);
        let failures = threshold(probe.failure_threshold, 3);
        let successes = threshold(probe.success_threshold, 1);
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Startup and readiness are untrue until shown, liveness is true until refuted.
        let mut told = (kind == ProbeKind::Liveness).then_some(true);
        let (mut last, mut run) = (None, 0);
        loop {
            ticks.tick().await;
            let answer = probe::ask(&self.target, &probe).await;
            if let Err(error) = &answer {
                let mut text: String = error.trim().chars().take(1024).collect();
                if text.is_empty() {
                    "no output".clone_into(&mut text);
                }
                self.recorder.warning(&self.about, "Unhealthy", format!("{} probe failed: {text}", kind.word()));
            }
            let good = answer.is_ok();
            run = if last == Some(good) { run + 1 } else { 1 };
            last = Some(good);
            let enough = if good { run >= successes } else { run >= failures };
            if enough && told != Some(good) {
                told = Some(good);
                let container_id = self.target.container_id.clone();
                if self.signals.send(Signal::Probe { container_id, kind, good }).is_err() {
                    return;
                }
                let done = if good { kind == ProbeKind::Startup } else { kind != ProbeKind::Readiness };
                if done {
                    return;
                }
            }
        }
    }
}

impl Probes {
    /// Starts probing a container that just started, or that was found running.
    pub(crate) fn start(
        target: Target,
        about: ObjectReference,
        recorder: EventRecorder,
        signals: mpsc::UnboundedSender<Signal>,
    ) -> Self {
        let ask = Asking { target, about, recorder, signals };
        let mut probes = Self {
            container_id: ask.target.container_id.clone(),
            started: false,
            ready: false,
            failed: None,
            ask,
            tasks: JoinSet::new(),
            readiness: JoinSet::new(),
        };
        match probes.ask.target.container.startup_probe.clone() {
            Some(probe) => probes.spawn(ProbeKind::Startup, probe),
            None => probes.on_started(),
        }
        probes
    }

    fn spawn(&mut self, kind: ProbeKind, probe: Probe) {
        let tasks = if kind == ProbeKind::Readiness { &mut self.readiness } else { &mut self.tasks };
        tasks.spawn(self.ask.clone().run(kind, probe));
    }

    /// The pod ends: only whether it can still serve is asked on, as what it has begun may take its grace.
    pub(crate) fn wind_down(&mut self) {
        self.tasks.abort_all();
    }

    fn on_started(&mut self) {
        self.started = true;
        match self.ask.target.container.readiness_probe.clone() {
            Some(probe) => self.spawn(ProbeKind::Readiness, probe),
            None => self.ready = true,
        }
        if let Some(probe) = self.ask.target.container.liveness_probe.clone() {
            self.spawn(ProbeKind::Liveness, probe);
        }
    }

    /// Takes a finding in.
    pub(crate) fn found(&mut self, kind: ProbeKind, good: bool) {
        match (kind, good) {
            (ProbeKind::Startup, true) => self.on_started(),
            (ProbeKind::Readiness, good) => self.ready = good,
            (_, false) => self.failed = Some(kind),
            (ProbeKind::Liveness, true) => {}
        }
    }

    /// The probe that failed, and the grace it grants the container, if it says.
    pub(crate) fn verdict(&self) -> Option<(&'static str, Option<i64>)> {
        let container = &self.ask.target.container;
        let (word, probe) = match self.failed? {
            ProbeKind::Startup => ("startup", &container.startup_probe),
            _ => ("liveness", &container.liveness_probe),
        };
        Some((word, probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds)))
    }
}

/// Arc'd targets are cheap to clone into the probing tasks.
pub(crate) fn target_of(
    runtime: &Arc<dyn crate::runtime::RuntimeService>,
    container_id: &str,
    container: &k8s_openapi::api::core::v1::Container,
    pod_ip: &str,
) -> Target {
    Target {
        runtime: Arc::clone(runtime),
        container_id: container_id.to_owned(),
        container: container.clone(),
        pod_ip: pod_ip.to_owned(),
    }
}
