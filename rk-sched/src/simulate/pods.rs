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
    /// The newest of each name.
    by_name: HashMap<String, usize>,
}

/// How a pod is told of. No two of one name are there at a time, but one may come after another.
pub(super) fn full_name(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The full name of a pod as it says it.
pub(super) fn full_name_of(pod: &Pod) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    full_name(&text(&pod.metadata.namespace), &text(&pod.metadata.name))
}

impl Pods {
    pub(super) fn add(&mut self, life: Life) -> usize {
        let number = self.lives.len();
        self.by_uid.insert(Arc::from(life.pod.metadata.uid.as_deref().unwrap_or_default()), number);
        self.by_name.insert(full_name_of(&life.pod), number);
        self.lives.push(life);
        number
    }

    pub(super) fn find(&self, uid: &str) -> Option<usize> {
        self.by_uid.get(uid).copied()
    }

    /// The newest pod of a full name.
    pub(super) fn named(&self, full_name: &str) -> Option<usize> {
        self.by_name.get(full_name).copied()
    }

    /// An identity that no pod has or had: the one that is wished for, if that is so.
    pub(super) fn identity(&self, wish: Option<&str>, full_name: &str) -> String {
        let mut known = wish.into_iter().filter(|wish| !wish.is_empty()).chain([full_name]);
        let free = known.find(|uid| !self.by_uid.contains_key(*uid)).map(str::to_owned);
        free.unwrap_or_else(|| format!("{full_name}#{}", self.lives.len()))
    }

    pub(super) fn get(&self, number: usize) -> &Life {
        &self.lives[number]
    }

    pub(super) fn get_mut(&mut self, number: usize) -> &mut Life {
        &mut self.lives[number]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Life)> {
        self.lives.iter().enumerate()
    }
}
