//! Finished Jobs with `ttlSecondsAfterFinished` are deleted when their time is over.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;
use rk_api::{DeleteOptions, Informers, Preconditions, Propagation};
use tokio_util::sync::CancellationToken;

use super::finished_condition;
use crate::{Action, Context, Controller, Error, Reconcile, common::meta};

/// Deletes finished Jobs.
#[derive(Debug, Default)]
pub struct TtlController;

/// Runs the TTL-after-finished controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    Controller::new("ttl-after-finished-controller", TtlController, informers).run(shutdown).await;
}

#[async_trait]
impl Reconcile for TtlController {
    type Object = Job;

    async fn reconcile(&self, job: Arc<Job>, context: &Context) -> Result<Action, Error> {
        let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
        let ended = finished_condition(&job).and_then(|condition| condition.last_transition_time.as_ref());
        let (Some(ttl), Some(ended)) = (ttl, ended) else { return Ok(Action::await_change()) };
        if meta::is_deleting(&job.metadata) {
            return Ok(Action::await_change());
        }
        let left = ended.0.as_millisecond() + i64::from(ttl) * 1000 - rk_api::now().as_millisecond();
        if let Ok(left) = u64::try_from(left)
            && left > 0
        {
            return Ok(Action::requeue(Duration::from_millis(left)));
        }
        let preconditions =
            Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() };
        let options =
            DeleteOptions { propagation: Some(Propagation::Foreground), preconditions, ..DeleteOptions::default() };
        let (namespace, name) = meta::key(&job.metadata);
        match context.api::<Job>(&namespace).delete(&name, options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::await_change()),
        }
    }
}
