//! The newest decisions in full.

use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;

use crate::{cycle::Explanation, model::PodInfo};

/// The newest decisions of a scheduler in full. Clones are one; give one to [`SchedulerConfig`](crate::SchedulerConfig) and ask the
/// other.
///
/// The default keeps none and costs nothing. To keep some, every plugin is asked about every node in each cycle, which takes much longer
/// than the decision: it is for tests and for finding out.
#[derive(Clone, Default)]
pub struct Explanations {
    kept: Arc<Mutex<VecDeque<Arc<Explanation>>>>,
    most: usize,
    /// The pods that it is about; `None` for all.
    about: Option<Arc<Wanted>>,
}

/// Whether a pod is one of those that are asked about.
type Wanted = dyn Fn(&PodInfo) -> bool + Send + Sync;

impl fmt::Debug for Explanations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explanations").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Explanations {
    /// Keeps so many decisions; the oldest go first.
    pub fn keep(most: usize) -> Self {
        Self { kept: Arc::default(), most, about: None }
    }

    /// Keeps so many decisions on certain pods; cycles of others cost no more than they do without.
    pub fn about(most: usize, pods: impl Fn(&PodInfo) -> bool + Send + Sync + 'static) -> Self {
        Self { about: Some(Arc::new(pods)), ..Self::keep(most) }
    }

    /// The newest decision on a pod that is kept.
    pub fn of(&self, namespace: &str, name: &str) -> Option<Arc<Explanation>> {
        let kept = self.kept.lock();
        kept.iter().rev().find(|kept| kept.namespace == namespace && kept.name == name).cloned()
    }

    /// All that are kept, the oldest first.
    pub fn all(&self) -> Vec<Arc<Explanation>> {
        self.kept.lock().iter().cloned().collect()
    }

    /// Whether any are kept.
    pub fn are_kept(&self) -> bool {
        self.most > 0
    }

    pub(super) fn want(&self, pod: &PodInfo) -> bool {
        self.are_kept() && self.about.as_ref().is_none_or(|about| about(pod))
    }

    pub(super) fn note(&self, explanation: Explanation) {
        let mut kept = self.kept.lock();
        if kept.len() == self.most {
            kept.pop_front();
        }
        kept.push_back(Arc::new(explanation));
    }
}
