//! A Job's pods: what they say, and how they are made.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};

use super::tracking::FINALIZER;
use crate::common::{meta, pod};

/// The annotation and label with a pod's completion index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation with how often a pod's index has failed before.
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// First and longest delay before a failed pod is replaced.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// A pod's completion index.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    meta::annotation(&pod.metadata, INDEX)?.parse().ok()
}

/// How often the pod's index had failed before it.
pub(super) fn index_failures(pod: &Pod) -> i32 {
    meta::annotation(&pod.metadata, INDEX_FAILURES).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Whether the pod is still to be counted.
pub(super) fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Whether the pod counts as failed; with `only_failed` one that is being deleted does not before it has ended.
pub(super) fn has_failed(pod: &Pod, only_failed: bool) -> bool {
    let phase = pod::phase(pod);
    phase == "Failed" || (!only_failed && meta::is_deleting(&pod.metadata) && phase != "Succeeded")
}

/// When the pod ended.
pub(super) fn finished(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let ends = containers
        .into_iter()
        .flatten()
        .filter_map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    let ready = || {
        let condition = crate::common::condition::get(&status?.conditions, "Ready")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    ends.max().or_else(ready).or_else(deleted).unwrap_or_else(|| meta::created(&pod.metadata))
}

/// How long a replacement has to wait after the failures since the last success among `ended`.
pub(super) fn backoff<'a>(ended: impl Iterator<Item = &'a Pod> + Clone, now: Timestamp) -> Duration {
    let success = ended.clone().filter(|pod| pod::phase(pod) == "Succeeded").map(finished).max();
    let failures = ended.filter(|pod| pod::phase(pod) == "Failed").map(finished);
    let (mut count, mut last) = (0_u32, None);
    for at in failures.filter(|at| success.is_none_or(|success| *at > success)) {
        count += 1;
        last = last.max(Some(at));
    }
    let Some(last) = last else { return Duration::ZERO };
    let delay = BACKOFF.0.saturating_mul(2_u32.saturating_pow(count - 1)).min(BACKOFF.1);
    let passed = u64::try_from(now.as_millisecond() - last.as_millisecond()).unwrap_or(0);
    delay.saturating_sub(Duration::from_millis(passed))
}

/// A pod for the Job; of an index, in an indexed one.
pub(super) fn make(job: &Job, index: Option<(i32, i32)>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let name = meta::name(&job.metadata).to_owned();
    let mut pod = pod::from_template(&template, meta::namespace(&job.metadata), meta::controller_reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
    let Some((index, failures)) = index else { return pod };
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if job.spec.as_ref().is_some_and(|spec| spec.backoff_limit_per_index.is_some()) {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let Some(spec) = &mut pod.spec else { return pod };
    spec.hostname = Some(format!("{name}-{index}"));
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|variable| variable.name == "JOB_COMPLETION_INDEX") {
            continue;
        }
        let field_ref =
            ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..ObjectFieldSelector::default() };
        env.push(EnvVar {
            name: "JOB_COMPLETION_INDEX".to_owned(),
            value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
            ..EnvVar::default()
        });
    }
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_until_a_success() {
        let ended = |phase: &str, at: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"creationTimestamp": at}, "status": {"phase": phase}})).unwrap()
        };
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let two = [ended("Failed", "2026-01-01T00:09:40Z"), ended("Failed", "2026-01-01T00:09:55Z")];
        assert_eq!(backoff(two.iter(), now), Duration::from_secs(15));
        let mended = [ended("Failed", "2026-01-01T00:09:55Z"), ended("Succeeded", "2026-01-01T00:09:58Z")];
        assert_eq!(backoff(mended.iter(), now), Duration::ZERO);
        let many = vec![ended("Failed", "2026-01-01T00:10:00Z"); 40];
        assert_eq!(backoff(many.iter(), now), BACKOFF.1);
    }
}
