//! What the cluster shows: its start as it happens, then a summary that follows it.
//!
//! On a terminal the start is a spinner per step and the summary is redrawn in place; elsewhere each is a
//! plain line, and the summary is left to kubectl.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Node, Pod},
};
use rk_api::{Informer, Informers};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the live summary may change.
const REDRAW: Duration = Duration::from_millis(500);
/// How many events the summary shows.
const EVENTS: usize = 6;

/// Where progress goes.
#[derive(Debug, Clone)]
pub struct Display {
    started: Instant,
    terminal: bool,
}

/// Writes a line to standard error. That nobody reads it any more is no reason for a cluster to end.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A step that has begun.
pub struct Step<'a> {
    display: &'a Display,
    what: String,
    bar: Option<ProgressBar>,
}

impl Default for Display {
    fn default() -> Self {
        Self::new()
    }
}

impl Display {
    /// To standard error, lively if it is a terminal.
    pub fn new() -> Self {
        Self { started: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// Begins a step; it ends with [`Step::done`].
    pub fn step(&self, what: impl Into<String>) -> Step<'_> {
        let what = what.into();
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Step { display: self, what, bar }
    }

    /// A line of its own.
    pub fn line(&self, text: impl AsRef<str>) {
        say(text.as_ref());
    }

    /// Redraws a summary of the cluster whenever something changed, until `shutdown`; nothing off a terminal.
    pub async fn follow(&self, informers: &Informers, shutdown: CancellationToken) {
        if !self.terminal {
            return shutdown.cancelled().await;
        }
        let view = View {
            nodes: informers.of::<Node>(),
            pods: informers.of::<Pod>(),
            deployments: informers.of::<Deployment>(),
            events: informers.of::<Event>(),
        };
        let bar =
            ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{msg}").expect("a valid template"));
        let mut shown = String::new();
        loop {
            let text = view.text();
            if text != shown {
                bar.set_message(text.clone());
                shown = text;
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(REDRAW) => {}
            }
        }
        bar.finish_and_clear();
    }
}

impl Step<'_> {
    /// Ends the step with what came of it.
    pub fn done(self, result: impl AsRef<str>) {
        let elapsed = self.display.started.elapsed();
        let line = format!("[{:>6.3} s] {}: {}", elapsed.as_secs_f64(), self.what, result.as_ref());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&line);
    }
}

/// The collections that the summary shows.
struct View {
    nodes: Informer,
    pods: Informer,
    deployments: Informer,
    events: Informer,
}

fn typed<K: rk_api::ResourceType>(informer: &Informer) -> Vec<Arc<K>> {
    informer.list().iter().filter_map(|object| object.typed().ok()).collect()
}

impl View {
    fn text(&self) -> String {
        let pods = typed::<Pod>(&self.pods);
        let mut out = String::new();
        let mut per_node: BTreeMap<&str, usize> = BTreeMap::new();
        for node in pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()) {
            *per_node.entry(node).or_default() += 1;
        }
        out.push_str("\nNODE                     STATUS     PODS\n");
        for node in typed::<Node>(&self.nodes) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let ready = ready.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
            let pods = per_node.get(name).copied().unwrap_or(0);
            let _ = writeln!(out, "{name:<24} {:<10} {pods}", if ready { "Ready" } else { "NotReady" });
        }
        out.push_str("\nDEPLOYMENT                         READY\n");
        for deployment in typed::<Deployment>(&self.deployments) {
            let meta = &deployment.metadata;
            let name = format!(
                "{}/{}",
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default()
            );
            let ready = deployment.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
            let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let _ = writeln!(out, "{name:<34} {ready}/{wanted}");
        }
        let mut events = self.events.list();
        events.sort_by_key(|event| event.revision());
        out.push_str("\nRECENT EVENTS\n");
        for event in events.iter().rev().take(EVENTS).rev().filter_map(|event| event.typed::<Event>().ok()) {
            let object = &event.involved_object;
            let _ = writeln!(
                out,
                "{:<18} {}/{}: {}",
                event.reason.as_deref().unwrap_or_default(),
                object.kind.as_deref().unwrap_or_default(),
                object.name.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default().lines().next().unwrap_or_default()
            );
        }
        out
    }
}
