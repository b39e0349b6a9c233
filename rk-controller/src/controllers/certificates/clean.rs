//! Deleting requests that nobody needs any more.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rk_api::{DeleteOptions, Informers, Preconditions};
use tokio_util::sync::CancellationToken;

use super::{condition, is_issued};
use crate::{Action, Context, Controller, Error, Reconcile, common::meta};

/// How long a request stays that was denied, that failed, or whose certificate was issued.
const DONE: Duration = Duration::from_secs(3600);
/// How long a request stays that was approved and not signed.
const APPROVED: Duration = Duration::from_secs(3600);
/// How long a request stays that nobody decided on.
const PENDING: Duration = Duration::from_secs(24 * 3600);

/// Deletes requests some time after their last condition, as kube-controller-manager's cleaner does.
pub struct CleaningController;

/// Runs the cleaning controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    Controller::new("certificatesigningrequest-cleaner-controller", CleaningController, informers).run(shutdown).await;
}

#[async_trait]
impl Reconcile for CleaningController {
    type Object = CertificateSigningRequest;

    async fn reconcile(&self, csr: Arc<CertificateSigningRequest>, context: &Context) -> Result<Action, Error> {
        let decided = ["Denied", "Failed", "Approved"].iter().find_map(|kind| condition(&csr, kind));
        let (since, stays) = match decided {
            Some(condition) if condition.type_ == "Approved" && !is_issued(&csr) => {
                (condition.last_update_time.as_ref(), APPROVED)
            }
            Some(condition) => (condition.last_update_time.as_ref(), DONE),
            None => (csr.metadata.creation_timestamp.as_ref(), PENDING),
        };
        let since = since.or(csr.metadata.creation_timestamp.as_ref()).map_or_else(rk_api::now, |time| time.0);
        let age = Duration::try_from(rk_api::now().duration_since(since)).unwrap_or_default();
        if age < stays {
            return Ok(Action::requeue(stays - age));
        }
        let preconditions = Preconditions { uid: csr.metadata.uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        match context.api_all::<CertificateSigningRequest>().delete(meta::name(&csr.metadata), options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(Action::await_change()),
        }
    }
}
