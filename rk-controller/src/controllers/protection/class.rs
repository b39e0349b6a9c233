//! VolumeAttributesClasses are used by claims and volumes (KEP-3751).

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttributesClass,
};
use rk_api::{Informer, Informers, Key};
use tokio_util::sync::CancellationToken;

use super::{Protection, Users};
use crate::{Context, Controller, Error};

struct ClaimsAndVolumes {
    claims: Informer,
    volumes: Informer,
}

/// Runs the class protection controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let users = ClaimsAndVolumes {
        claims: informers.of::<PersistentVolumeClaim>(),
        volumes: informers.of::<PersistentVolume>(),
    };
    Controller::new("volumeattributesclass-protection-controller", Protection(users), informers)
        .watches::<PersistentVolumeClaim>(|claim| of_claim(claim).map(key).collect())
        .watches::<PersistentVolume>(|volume| of_volume(volume).map(key).collect())
        .run(shutdown)
        .await;
}

fn key(class: &str) -> Key {
    (String::new(), class.to_owned())
}

/// The classes of a claim: the one it wants, the one it has, and the one it is on its way to.
fn of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let modify = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = modify.and_then(|modify| modify.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten()
}

fn of_volume(volume: &PersistentVolume) -> impl Iterator<Item = &str> {
    volume.spec.iter().filter_map(|spec| spec.volume_attributes_class_name.as_deref())
}

#[async_trait]
impl Users for ClaimsAndVolumes {
    type Object = VolumeAttributesClass;

    const FINALIZER: &str = "kubernetes.io/vac-protection";

    async fn use_it(&self, class: &VolumeAttributesClass, _context: &Context) -> Result<bool, Error> {
        let is_it = |name: &str| Some(name) == class.metadata.name.as_deref();
        for object in self.volumes.list() {
            if of_volume(&*object.typed()?).any(is_it) {
                return Ok(true);
            }
        }
        for object in self.claims.list() {
            if of_claim(&*object.typed()?).any(is_it) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
