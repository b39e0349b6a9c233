//! PersistentVolumes are used by the claims they are bound to.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolume;
use rk_api::Informers;
use tokio_util::sync::CancellationToken;

use super::{Protection, Users};
use crate::{Context, Controller, Error};

struct Claims;

/// Runs the volume protection controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    Controller::new("persistentvolume-protection-controller", Protection(Claims), informers).run(shutdown).await;
}

#[async_trait]
impl Users for Claims {
    type Object = PersistentVolume;

    const FINALIZER: &str = "kubernetes.io/pv-protection";

    async fn use_it(&self, volume: &PersistentVolume, _context: &Context) -> Result<bool, Error> {
        Ok(volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"))
    }
}
