//! Counting each finished pod exactly once (KEP-2307).
//!
//! A Job's pods carry a finalizer. A pod that has ended is first noted in the status as uncounted, then loses the finalizer, and only when
//! that is seen does it move to the counters. Whatever crashes in between, nothing is counted twice or lost.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    batch::v1::{JobStatus, UncountedTerminatedPods},
    core::v1::Pod,
};
use rk_api::{Api, Patch};
use serde_json::json;

use super::{
    indexes,
    pods::{has_failed, has_finalizer, index_of},
};
use crate::{
    Error,
    common::{batch, meta, pod},
};

/// The finalizer.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Pods noted in one write, and released after it, at most.
pub(super) const NOTED: usize = 500;

/// How a pod that has ended is to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    Failed,
    Ignored,
}

/// Moves what has lost its finalizer from the uncounted to the counters, and notes what has ended since. In an
/// indexed Job the succeeded are counted by index: there may be several pods of one.
pub(super) fn settle(
    status: &mut JobStatus,
    pods: &[Arc<Pod>],
    indexed: Option<i32>,
    outcomes: &[(Arc<Pod>, Outcome)],
) {
    let holding: BTreeSet<&str> =
        pods.iter().filter(|pod| has_finalizer(pod)).map(|pod| meta::uid(&pod.metadata)).collect();
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let counted = |uids: &mut Option<Vec<String>>| {
        let before = uids.as_ref().map_or(0, Vec::len);
        if let Some(uids) = uids {
            uids.retain(|uid| holding.contains(uid.as_str()));
        }
        i32::try_from(before - uids.as_ref().map_or(0, Vec::len)).unwrap_or(0)
    };
    let (succeeded, failed) = (counted(&mut uncounted.succeeded), counted(&mut uncounted.failed));
    let add = |count: Option<i32>, more: i32| Some(count.unwrap_or(0) + more).filter(|count| *count != 0);
    status.failed = add(status.failed, failed);
    let mut completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());

    for (pod, outcome) in outcomes {
        let uid = meta::uid(&pod.metadata).to_owned();
        let list = match outcome {
            Outcome::Succeeded => &mut uncounted.succeeded,
            Outcome::Failed => &mut uncounted.failed,
            Outcome::Ignored => continue,
        };
        let list = list.get_or_insert_default();
        if list.contains(&uid) {
            continue;
        }
        if let (Some(completions), Outcome::Succeeded) = (indexed, outcome) {
            // An index counts from the moment it is noted: the set says so itself, twice is once.
            completed.extend(index_of(pod).filter(|index| *index < completions));
        }
        list.push(uid);
    }
    match indexed {
        Some(_) => {
            status.succeeded = add(Some(i32::try_from(completed.len()).unwrap_or(i32::MAX)), 0);
            status.completed_indexes = Some(indexes::format(&completed)).filter(|text| !text.is_empty());
        }
        None => status.succeeded = add(status.succeeded, succeeded),
    }
    for list in [&mut uncounted.succeeded, &mut uncounted.failed] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    }
    status.uncounted_terminated_pods = Some(uncounted);
}

/// Whether every ended pod is in the counters.
pub(super) fn is_settled(status: &JobStatus) -> bool {
    status.uncounted_terminated_pods.as_ref().is_none_or(|uncounted| *uncounted == UncountedTerminatedPods::default())
}

/// How many pods are noted and not yet counted: succeeded, failed.
pub(super) fn noted(status: &JobStatus) -> (i32, i32) {
    let count = |uids: Option<&Vec<String>>| i32::try_from(uids.map_or(0, Vec::len)).unwrap_or(i32::MAX);
    let uncounted = status.uncounted_terminated_pods.as_ref();
    (count(uncounted.and_then(|u| u.succeeded.as_ref())), count(uncounted.and_then(|u| u.failed.as_ref())))
}

/// Takes the finalizer from pods that are noted, or that count for nothing.
pub(super) async fn release(api: &Api<Pod>, pods: Vec<Arc<Pod>>) -> Result<(), Error> {
    let release = async |pod: Arc<Pod>| {
        let finalizers = pod.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER);
        let finalizers: Vec<_> = finalizers.collect();
        let patch = json!({"metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "finalizers": (!finalizers.is_empty()).then_some(finalizers),
        }});
        match api.patch(meta::name(&pod.metadata), Patch::merge(patch)).await {
            Err(error) if !error.is_not_found() => Err(Error::from(error)),
            _ => Ok(()),
        }
    };
    let holding: Vec<_> = pods.into_iter().filter(|pod| has_finalizer(pod)).collect();
    batch::all(holding.into_iter().map(release)).await
}

/// Which pods have ended and hold the finalizer, and how each counts.
pub(super) fn ended(pods: &[Arc<Pod>], only_failed: bool, ignored: impl Fn(&Pod) -> bool) -> Vec<(Arc<Pod>, Outcome)> {
    let outcome = |pod: &Arc<Pod>| {
        if pod::phase(pod) == "Succeeded" {
            Some(Outcome::Succeeded)
        } else if has_failed(pod, only_failed) {
            Some(if ignored(pod) { Outcome::Ignored } else { Outcome::Failed })
        } else {
            None
        }
    };
    let holding = pods.iter().filter(|pod| has_finalizer(pod));
    holding.filter_map(|pod| Some((Arc::clone(pod), outcome(pod)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, phase: &str, holds: bool) -> Arc<Pod> {
        let finalizers: Vec<_> = holds.then_some(FINALIZER).into_iter().collect();
        let pod = json!({"metadata": {"name": uid, "uid": uid, "finalizers": finalizers,
            "annotations": {"batch.kubernetes.io/job-completion-index": "2"}}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_is_counted_once_when_its_finalizer_is_gone() {
        let mut status = JobStatus::default();
        let mut step = |pods: Vec<Arc<Pod>>| {
            let ended = ended(&pods, false, |_| false);
            settle(&mut status, &pods, None, &ended);
            (noted(&status), status.succeeded, status.failed)
        };
        let holding = vec![pod("a", "Succeeded", true), pod("b", "Failed", true), pod("c", "Running", true)];
        assert_eq!(step(holding.clone()), ((1, 1), None, None));
        assert_eq!(step(holding), ((1, 1), None, None), "nothing new");
        let released = vec![pod("a", "Succeeded", false), pod("b", "Failed", true), pod("c", "Running", true)];
        assert_eq!(step(released.clone()), ((0, 1), Some(1), None));
        assert_eq!(step(vec![pod("a", "Succeeded", false), pod("c", "Running", true)]), ((0, 0), Some(1), Some(1)));
        assert_eq!(step(released), ((0, 1), Some(1), Some(1)), "an old view notes again, and is refused when written");
    }

    #[test]
    fn an_index_is_complete_once() {
        let mut status = JobStatus::default();
        let pods = vec![pod("a", "Succeeded", true), pod("b", "Succeeded", true)];
        settle(&mut status, &pods, Some(5), &ended(&pods, false, |_| false));
        assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(1), Some("2")));
    }
}
