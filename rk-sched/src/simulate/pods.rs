//! The pods of a simulated cluster and how far they are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;

use super::workload::{Job, Stage};

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has no node.
    Waiting,
    /// It has one, and the API does not know yet.
    Placed,
    /// It is bound.
    Running,
    /// It is being deleted.
    Stopping,
    /// It has ended, or was deleted.
    Gone,
}

/// A pod's life.
pub(super) struct Life {
    pub(super) job: Arc<Job>,
    pub(super) pod: Arc<Pod>,
    pub(super) phase: Phase,
    pub(super) created: Duration,
    pub(super) attempted: bool,
    /// How often it was tried until it had a node.
    pub(super) attempts: u32,
    /// How many pods were in its place before, and how many of those failed.
    pub(super) restarts: u32,
    pub(super) failures: u32,
    pub(super) measured: bool,
    /// Whether its history is kept.
    pub(super) explained: bool,
}

impl Life {
    pub(super) fn is(&self, stage: Stage) -> bool {
        match stage {
            _ if matches!(self.phase, Phase::Running | Phase::Stopping | Phase::Gone) => true,
            Stage::Scheduled => false,
            Stage::Attempted => {
                let gates = self.pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
                self.attempted || self.phase == Phase::Placed || gates.is_some_and(|gates| !gates.is_empty())
            }
        }
    }
}

/// All pods there ever were, by number.
#[derive(Default)]
pub(super) struct Pods {
    lives: Vec<Life>,
    by_uid: HashMap<Arc<str>, usize>,
}

/// The identity of a simulated pod: no two of one name are there at a time.
pub(super) fn uid(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Pods {
    pub(super) fn add(&mut self, life: Life) -> usize {
        let number = self.lives.len();
        self.by_uid.insert(Arc::from(life.pod.metadata.uid.as_deref().unwrap_or_default()), number);
        self.lives.push(life);
        number
    }

    pub(super) fn find(&self, uid: &str) -> Option<usize> {
        self.by_uid.get(uid).copied()
    }

    pub(super) fn get(&self, number: usize) -> &Life {
        &self.lives[number]
    }

    pub(super) fn get_mut(&mut self, number: usize) -> &mut Life {
        &mut self.lives[number]
    }

    pub(super) fn attempts(&self, number: usize) -> u64 {
        self.lives.get(number).map_or(0, |life| u64::from(life.attempts))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Life)> {
        self.lives.iter().enumerate()
    }
}
