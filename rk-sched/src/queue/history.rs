//! What a pod goes through in the queue.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

/// A step of a pod's way through the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Step {
    /// How long after the pod came into the queue.
    pub after: Duration,
    /// What happened.
    pub what: What,
}

/// What happened to a pod in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum What {
    /// A PreEnqueue plugin keeps it out.
    Gated(&'static str),
    /// It was tried, for so many times now.
    Tried(u32),
    /// These plugins refused it, on some node or on all.
    Refused(BTreeSet<&'static str>),
    /// A plugin or the API failed.
    Failed,
    /// An event came that may make room for it.
    Woken(&'static str),
    /// It waited for too long, and is tried again though nothing changed for it.
    TimedOut,
}

/// Most steps that are kept of a pod; the oldest go first.
const MOST: usize = 32;

/// The newest steps of a pod.
#[derive(Debug, Clone)]
pub(crate) struct History {
    begun: Instant,
    steps: VecDeque<Step>,
}

impl History {
    pub(crate) fn new(now: Instant) -> Self {
        Self { begun: now, steps: VecDeque::new() }
    }

    pub(crate) fn note(&mut self, now: Instant, what: What) {
        if self.steps.len() == MOST {
            self.steps.pop_front();
        }
        self.steps.push_back(Step { after: now.saturating_duration_since(self.begun), what });
    }

    /// All that is kept, the oldest first.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:.3} s: ", self.after.as_secs_f64())?;
        match &self.what {
            What::Gated(plugin) => write!(f, "kept out by {plugin}"),
            What::Tried(attempt) => write!(f, "attempt {attempt}"),
            What::Refused(plugins) => {
                let plugins: Vec<&str> = plugins.iter().copied().collect();
                write!(f, "refused by {}", plugins.join(", "))
            }
            What::Failed => f.write_str("failed"),
            What::Woken(event) => write!(f, "woken by {event}"),
            What::TimedOut => f.write_str("waited for too long"),
        }
    }
}
