//! The history of pods that somebody wants explained.

use std::{fmt::Write, time::Duration};

use k8s_openapi::api::core::v1::Pod;

use super::pods::uid;
use crate::engine::{Placement, Refusal};

/// Lines of what happened, in order.
pub(super) struct History {
    pods: Vec<String>,
    lines: Vec<String>,
}

impl History {
    pub(super) fn new(pods: &[String]) -> Self {
        Self { pods: pods.to_vec(), lines: Vec::new() }
    }

    /// Whether a pod is one of those, or in the place of one.
    pub(super) fn is_about(&self, pod: &Pod) -> bool {
        if self.pods.is_empty() {
            return false;
        }
        let name = of(pod);
        self.pods.iter().any(|wanted| {
            let behind = name.strip_prefix(wanted.as_str());
            behind.is_some_and(|behind| behind.is_empty() || is_restart(behind))
        })
    }

    pub(super) fn note(&mut self, now: Duration, pod: &Pod, what: &str) {
        self.line(now, &of(pod), what);
    }

    pub(super) fn refused(&mut self, now: Duration, refusal: &Refusal) {
        let mut what = format!("attempt {}: {}: {}", refusal.attempts, refusal.reason(), refusal.message());
        if let Some(eviction) = &refusal.eviction {
            let victims: Vec<&str> = eviction.victims.iter().map(|victim| victim.name.as_ref()).collect();
            // Writing to a String does not fail.
            let _ = write!(what, " Room is being made on {} by preempting {}.", eviction.node, victims.join(", "));
        }
        self.line(now, &of(&refusal.pod.pod), &what);
    }

    pub(super) fn placed(&mut self, now: Duration, placement: &Placement) {
        let what = format!("attempt {}: placed on {}", placement.attempts, placement.node);
        self.line(now, &of(&placement.pod.pod), &what);
    }

    fn line(&mut self, now: Duration, pod: &str, what: &str) {
        self.lines.push(format!("{:.3} s  {pod}  {what}", now.as_secs_f64()));
    }

    pub(super) fn lines(self) -> Vec<String> {
        self.lines
    }
}

fn of(pod: &Pod) -> String {
    uid(pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

/// Whether this is what is added to the name of a pod that takes the place of another.
fn is_restart(text: &str) -> bool {
    text.strip_prefix("-r").is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
