//! Whether a Job is over.
//!
//! The decision comes first (`FailureTarget` or `SuccessCriteriaMet`); the final condition (`Failed` or `Complete`)
//! follows when no pod runs any more and all are counted.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::batch::v1::JobCondition;

use super::{
    Sync, indexes,
    pods::{has_finalizer, index_failures, index_of},
    policy::{self, Verdict},
    tracking,
};
use crate::common::{
    condition::{self, Condition},
    meta, pod,
};

impl Sync<'_> {
    /// Decides, if nothing is decided yet.
    pub(super) fn decide(&mut self) {
        if self.is_deciding() {
            return;
        }
        if let Some((reason, message)) = self.failure() {
            self.conclude("FailureTarget", reason, message);
        } else if let Some((reason, message)) = self.success() {
            self.conclude("SuccessCriteriaMet", reason, message);
        }
    }

    /// Whether the Job's fate is decided.
    pub(super) fn is_deciding(&self) -> bool {
        let holds = |kind| condition::get(&self.status.conditions, kind).is_some_and(|known| known.status == "True");
        holds("FailureTarget") || holds("SuccessCriteriaMet")
    }

    fn conclude(&mut self, kind: &str, reason: &str, message: String) {
        let condition = JobCondition::new(kind, "True", reason, message);
        let condition = JobCondition { last_probe_time: condition.last_transition_time.clone(), ..condition };
        condition::set(&mut self.status.conditions, condition);
    }

    fn failure(&self) -> Option<(&'static str, String)> {
        let policy = self.spec.pod_failure_policy.as_ref();
        for pod in self.pods.iter().filter(|pod| pod::phase(pod) == "Failed") {
            if let Verdict::FailJob(message) = policy::judge(policy, pod) {
                return Some(("PodFailurePolicy", message));
            }
        }
        let failed = self.status.failed.unwrap_or(0) + tracking::noted(&self.status).1;
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if failed > limit || self.restarts_exceed(limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
        }
        if self.deadline_left().is_some_and(|left| left.is_zero()) {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()));
        }
        if self.spec.backoff_limit_per_index.is_some() {
            let failed = indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default()).len();
            let most = self.spec.max_failed_indexes.and_then(|most| usize::try_from(most).ok());
            if most.is_some_and(|most| failed > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes".to_owned();
                return Some(("MaxFailedIndexesExceeded", message));
            }
            let done = failed + usize::try_from(self.status.succeeded.unwrap_or(0)).unwrap_or(0);
            let all = usize::try_from(self.spec.completions.unwrap_or(0)).unwrap_or(0);
            if failed > 0 && done >= all {
                return Some(("FailedIndexes", "Job has failed indexes".to_owned()));
            }
        }
        None
    }

    /// Containers that are restarted in place count against the limit too.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
            let status = pod.status.as_ref();
            let containers =
                status.into_iter().flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses));
            containers.flatten().map(|container| container.restart_count).sum::<i32>()
        };
        let running = self.pods.iter().filter(|pod| matches!(pod::phase(pod), "Running" | "Pending"));
        let total: i32 = running.map(|pod| restarts(pod)).sum();
        if limit == 0 { total > 0 } else { total >= limit }
    }

    fn success(&self) -> Option<(&'static str, String)> {
        if self.is_indexed() {
            let completed = indexes::parse(self.status.completed_indexes.as_deref().unwrap_or_default());
            if let Some(rule) = self.success_rule(&completed) {
                return Some(("SuccessPolicy", format!("Matched rules at index {rule}")));
            }
        }
        let succeeded = self.succeeded();
        let reached = match self.spec.completions {
            Some(completions) => succeeded >= completions,
            // A work queue: one success says that there is no more to do, and the others end by themselves.
            None => succeeded > 0 && self.active().is_empty() && self.terminating() == 0,
        };
        reached.then(|| ("CompletionsReached", "Reached expected number of succeeded pods".to_owned()))
    }

    /// Succeeded pods, those not yet counted too.
    pub(super) fn succeeded(&self) -> i32 {
        let noted = if self.is_indexed() { 0 } else { tracking::noted(&self.status).0 };
        self.status.succeeded.unwrap_or(0) + noted
    }

    /// How long the Job may still run.
    pub(super) fn deadline_left(&self) -> Option<Duration> {
        let seconds = self.spec.active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        let left = start.as_millisecond() + seconds * 1000 - rk_api::now().as_millisecond();
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Notes the indexes that have failed more often than each may, or by a rule.
    pub(super) fn count_failed_indexes(&mut self) {
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let mut failed = indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default());
        let policy = self.spec.pod_failure_policy.as_ref();
        for pod in self.pods.iter().filter(|pod| pod::phase(pod) == "Failed") {
            let Some(index) = index_of(pod) else { continue };
            let verdict = policy::judge(policy, pod);
            if verdict == Verdict::FailIndex || (verdict == Verdict::Count && index_failures(pod) >= limit) {
                failed.insert(index);
            }
        }
        self.status.failed_indexes = Some(indexes::format(&failed));
    }

    /// Adds the final condition, once everything has ended and is counted.
    pub(super) fn finish(&mut self) {
        let held = self.pods.iter().any(|pod| has_finalizer(pod) && pod::is_terminal(pod));
        let quiet = self.active().is_empty() && self.terminating() == 0;
        if !quiet || held || !tracking::is_settled(&self.status) {
            return;
        }
        let decided = |kind| condition::get(&self.status.conditions, kind).filter(|c| c.status == "True").cloned();
        let (kind, cause) = match (decided("FailureTarget"), decided("SuccessCriteriaMet")) {
            (Some(cause), _) => ("Failed", cause),
            (None, Some(cause)) => ("Complete", cause),
            (None, None) => return,
        };
        let message = cause.message.clone().unwrap_or_default();
        self.conclude(kind, cause.reason(), message);
        if kind == "Complete" {
            self.status.completion_time = Some(meta::now());
        }
        self.status.uncounted_terminated_pods = None;
    }

    /// The first rule of the success policy that the completed indexes meet.
    fn success_rule(&self, completed: &BTreeSet<i32>) -> Option<usize> {
        let policy = self.spec.success_policy.as_ref()?;
        policy.rules.iter().position(|rule| {
            let listed = rule.succeeded_indexes.as_deref().map(indexes::parse);
            let among = listed.as_ref().map_or(completed.len(), |listed| listed.intersection(completed).count());
            let wanted = match (rule.succeeded_count, &listed) {
                (Some(count), _) => usize::try_from(count).unwrap_or(usize::MAX),
                (None, Some(listed)) => listed.len(),
                (None, None) => return false,
            };
            among >= wanted
        })
    }
}
