//! Counting pods into the status.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Replicated;
use crate::{
    Context, Error,
    common::{meta, pod},
};

/// What the status tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Active pods.
    pub replicas: i32,
    /// Those with all labels of the template.
    pub fully_labeled: i32,
    /// Those that are ready.
    pub ready: i32,
    /// Those that have been ready long enough.
    pub available: i32,
    /// Pods that were deleted and have not ended.
    pub terminating: i32,
    /// Reason and message of a failure to create or delete pods.
    pub failure: Option<(&'static str, String)>,
}

/// Counts the pods of `owner`.
pub(super) fn count<K: Replicated>(
    owner: &K,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Error>,
) -> Counts {
    let template = owner.template().metadata.unwrap_or_default();
    let wanted = meta::labels(&template);
    let (min_ready, now) = (owner.min_ready_seconds(), rk_api::now());
    let count = |counts: &dyn Fn(&Pod) -> bool| number(active.iter().filter(|pod| counts(pod)).count());
    let labeled = |pod: &Pod| {
        let labels = meta::labels(&pod.metadata);
        wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    let short = i64::from(owner.replicas()) > i64::from(number(active.len()));
    Counts {
        replicas: number(active.len()),
        fully_labeled: count(&labeled),
        ready: count(&pod::is_ready),
        available: count(&|pod| pod::is_available(pod, min_ready, now)),
        terminating: number(terminating),
        failure: failure.map(|error| (if short { "FailedCreate" } else { "FailedDelete" }, error.to_string())),
    }
}

/// Writes the status where it differs.
pub(super) async fn write<K: Replicated>(owner: &K, counts: &Counts, context: &Context) -> Result<(), Error> {
    let Some(changed) = owner.with_counts(counts) else { return Ok(()) };
    match context.api::<K>(meta::namespace(owner.meta())).update_status(&changed).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
