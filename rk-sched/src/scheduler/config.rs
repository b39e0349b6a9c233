//! The scheduler's settings.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    engine::Explanations,
    framework::{Extender, Profile, WaitingPods},
};

/// Settings of a [`Scheduler`](super::Scheduler) or an [`Engine`](crate::engine::Engine); the default is Kubernetes'.
#[derive(Clone)]
pub struct SchedulerConfig {
    /// The profiles; a pod is scheduled by the one that its `schedulerName` names.
    pub profiles: Vec<Profile>,
    /// How many percent of the nodes have to fit a pod before no more are tried; 0 chooses by the size of the cluster:
    /// all up to 100 nodes, 5 percent of thousands.
    pub percentage_of_nodes_to_score: u8,
    /// The first back-off of a pod that could not be scheduled; it doubles each time.
    pub initial_backoff: Duration,
    /// The longest back-off.
    pub max_backoff: Duration,
    /// After so long an unschedulable pod is tried again though nothing changed for it.
    pub unschedulable_timeout: Duration,
    /// Seed of all random choices; `None` for another one each time.
    pub seed: Option<u64>,
    /// The pods that Permit plugins hold back; shared with those plugins.
    pub waiting: WaitingPods,
    /// Parties outside of the scheduler that take part in all profiles' decisions, in the order in which they are asked.
    pub extenders: Vec<Arc<dyn Extender>>,
    /// Where the newest decisions are kept in full; none by default.
    pub explanations: Explanations,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::kubernetes("default-scheduler")],
            percentage_of_nodes_to_score: 0,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            unschedulable_timeout: Duration::from_secs(300),
            seed: None,
            waiting: WaitingPods::default(),
            extenders: Vec::new(),
            explanations: Explanations::default(),
        }
    }
}

/// A configuration that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No profile.
    #[error("a scheduler needs at least one profile")]
    NoProfile,
    /// Two profiles of one name.
    #[error("two profiles answer to the schedulerName {0:?}")]
    SameName(String),
    /// Not a percentage.
    #[error("percentage_of_nodes_to_score is {0}: must be 0 to 100")]
    Percentage(u8),
    /// Back-offs in the wrong order.
    #[error("the initial back-off {0:?} is longer than the longest, {1:?}")]
    Backoff(Duration, Duration),
    /// The same plugin must sort for all profiles, as they share one queue.
    #[error("profiles sort the queue by different plugins, {0} and {1}")]
    QueueSort(&'static str, &'static str),
}

impl SchedulerConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let first = self.profiles.first().ok_or(ConfigError::NoProfile)?;
        let mut names = BTreeSet::new();
        for profile in &self.profiles {
            if !names.insert(profile.scheduler_name()) {
                return Err(ConfigError::SameName(profile.scheduler_name().to_owned()));
            }
            let (one, other) = (first.queue_sort().name(), profile.queue_sort().name());
            if one != other {
                return Err(ConfigError::QueueSort(one, other));
            }
        }
        let percentages = self.profiles.iter().filter_map(|profile| profile.percentage_of_nodes_to_score);
        if let Some(percent) = percentages.chain([self.percentage_of_nodes_to_score]).find(|percent| *percent > 100) {
            return Err(ConfigError::Percentage(percent));
        }
        if self.initial_backoff > self.max_backoff {
            return Err(ConfigError::Backoff(self.initial_backoff, self.max_backoff));
        }
        Ok(())
    }
}
