//! The status: counts, the conditions Available, Progressing and ReplicaFailure, and the progress deadline.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};

use super::{Rollout, actual, available, numbers::fenceposts};
use crate::{
    Action, Error,
    common::{
        condition::{self, Condition},
        meta,
    },
};

/// A condition Progressing of now.
pub(super) fn progressing(status: &str, reason: &str, message: String) -> DeploymentCondition {
    of_now("Progressing", status, reason, message)
}

fn of_now(kind: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
    let condition = DeploymentCondition::new(kind, status, reason, message);
    DeploymentCondition { last_update_time: condition.last_transition_time.clone(), ..condition }
}

const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

impl Rollout<'_> {
    fn status(&self) -> DeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    /// Whether a rollout that stands still is to be called failed.
    pub(super) fn has_deadline(&self) -> bool {
        self.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
    }

    /// Whether everything is as wanted, as far as the last written status goes.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete_in(&self.status())
    }

    fn is_complete_in(&self, status: &DeploymentStatus) -> bool {
        let all = Some(self.replicas()).filter(|replicas| *replicas != 0);
        let is_all = |count: Option<i32>| count.filter(|count| *count != 0) == all;
        is_all(status.updated_replicas)
            && is_all(status.replicas)
            && is_all(status.available_replicas)
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// The counts of now, with the conditions as they were but for Available.
    fn counts(&self) -> DeploymentStatus {
        let some = |count: i32| (count != 0).then_some(count);
        let sum = |count: fn(&ReplicaSet) -> i32| self.sets.iter().map(count).sum::<i32>();
        let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let ending = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
        let (total, available) = (sum(actual), sum(available));
        let old = self.status();
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: some(total),
            updated_replicas: some(self.new_set().map_or(0, |new| actual(&self.sets[new]))),
            ready_replicas: some(sum(ready)),
            available_replicas: some(available),
            unavailable_replicas: some((total - available).max(0)),
            terminating_replicas: Some(sum(ending)),
            collision_count: old.collision_count,
            conditions: old.conditions,
        };
        let enough = available >= self.replicas() - fenceposts(&self.spec).max_unavailable;
        let (truth, reason, message) = if enough {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        condition::set(&mut status.conditions, of_now("Available", truth, reason, message.to_owned()));
        status
    }

    pub(super) async fn write_status(&mut self, deployment: Deployment) -> Result<(), Error> {
        if deployment.status == self.deployment.status {
            return Ok(());
        }
        let written = self.context.api::<Deployment>(self.namespace()).update_status(&deployment).await?;
        self.deployment = Deployment::clone(&written);
        Ok(())
    }

    pub(super) async fn write_condition(&mut self, condition: DeploymentCondition) -> Result<(), Error> {
        let mut deployment = self.deployment.clone();
        condition::set(&mut deployment.status.get_or_insert_default().conditions, condition);
        self.write_status(deployment).await
    }

    /// Writes the counts alone.
    pub(super) async fn write_counts(&mut self) -> Result<(), Error> {
        let deployment = Deployment { status: Some(self.counts()), ..self.deployment.clone() };
        self.write_status(deployment).await
    }

    /// Notes in the condition Progressing that the Deployment was paused or resumed, so that the pause does not count as
    /// a lack of progress.
    pub(super) async fn mark_pause(&mut self) -> Result<(), Error> {
        if !self.has_deadline() {
            return Ok(());
        }
        let conditions = self.status().conditions;
        let reason = condition::get(&conditions, "Progressing").map(|condition| condition.reason().to_owned());
        if reason.as_deref() == Some(TIMED_OUT) {
            return Ok(());
        }
        match (self.spec.paused == Some(true), reason.as_deref() == Some(PAUSED)) {
            (true, false) => self.write_condition(progressing("Unknown", PAUSED, "Deployment is paused".into())).await,
            (false, true) => {
                let message = "Deployment is resumed".to_owned();
                self.write_condition(progressing("Unknown", "DeploymentResumed", message)).await
            }
            _ => Ok(()),
        }
    }

    /// Writes counts and how the rollout goes; answers when to look whether it has timed out.
    pub(super) async fn write_progress(&mut self) -> Result<Action, Error> {
        let old = self.status();
        let mut new = self.counts();
        let current = condition::get(&old.conditions, "Progressing").cloned();
        let done = new.replicas == new.updated_replicas
            && current.as_ref().is_some_and(|condition| condition.reason() == AVAILABLE);
        if !self.has_deadline() {
            condition::remove(&mut new.conditions, "Progressing");
        } else if !done {
            let subject = match self.new_set() {
                Some(new) => format!("ReplicaSet {:?}", meta::name(&self.sets[new].metadata)),
                None => format!("Deployment {:?}", self.name()),
            };
            if self.is_complete_in(&new) {
                let message = format!("{subject} has successfully progressed.");
                condition::set(&mut new.conditions, progressing("True", AVAILABLE, message));
            } else if progressed(&old, &new) {
                let mut condition = progressing("True", "ReplicaSetUpdated", format!("{subject} is progressing."));
                // Replaced even where it says the same: its update time is what the deadline counts from.
                if let Some(current) = current.filter(|current| current.status == "True") {
                    condition.last_transition_time = current.last_transition_time;
                }
                condition::remove(&mut new.conditions, "Progressing");
                condition::set(&mut new.conditions, condition);
            } else if self.deadline_left(&new).is_some_and(|left| left.is_zero()) {
                let message = format!("{subject} has timed out progressing.");
                condition::set(&mut new.conditions, progressing("False", TIMED_OUT, message));
            }
        }
        self.pass_on_failure(&mut new);
        let wait = if self.is_complete_in(&new) { None } else { self.deadline_left(&new) };
        self.write_status(Deployment { status: Some(new), ..self.deployment.clone() }).await?;
        // A second more, for the rounding of the times that were written.
        Ok(wait.map_or_else(Action::await_change, |wait| Action::requeue(wait + Duration::from_secs(1))))
    }

    /// How long until the lack of progress is a failure; `None` if it is one already or can't become one.
    fn deadline_left(&self, status: &DeploymentStatus) -> Option<Duration> {
        let condition = condition::get(&status.conditions, "Progressing")?;
        if !self.has_deadline() || matches!(condition.reason(), AVAILABLE | TIMED_OUT) {
            return None;
        }
        let from = condition.last_update_time.as_ref()?.0.as_millisecond();
        let deadline = from + i64::from(self.spec.progress_deadline_seconds?) * 1000;
        let left = deadline - rk_api::now().as_millisecond();
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Shows the failure of a ReplicaSet: the new one's, or else the first.
    fn pass_on_failure(&self, status: &mut DeploymentStatus) {
        let failure = |set: &ReplicaSet| {
            let status = set.status.as_ref()?;
            condition::get(&status.conditions, "ReplicaFailure").cloned()
        };
        let new = self.new_set().and_then(|new| failure(&self.sets[new]));
        match new.or_else(|| self.sets.iter().find_map(failure)) {
            Some(failure) => {
                let (reason, message) = (failure.reason().to_owned(), failure.message.clone().unwrap_or_default());
                let condition = of_now("ReplicaFailure", &failure.status, &reason, message);
                condition::set(&mut status.conditions, condition);
            }
            None => condition::remove(&mut status.conditions, "ReplicaFailure"),
        }
    }
}

/// Whether more is new, less is old, or more works than before.
fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let left = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || left(new) < left(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}
