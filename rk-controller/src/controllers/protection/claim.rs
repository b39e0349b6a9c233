//! PersistentVolumeClaims are used by pods.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use rk_api::{Change, Informer, Informers, Key, ListOptions, Object};
use tokio_util::sync::CancellationToken;

use super::{Protection, Users};
use crate::{
    Context, Controller, Error,
    common::{meta, pod},
};

struct Pods(Informer);

/// Runs the claim protection controller until `shutdown`.
pub async fn run(informers: &Informers, shutdown: CancellationToken) {
    let pods = informers.of::<Pod>();
    Controller::new("persistentvolumeclaim-protection-controller", Protection(Pods(pods)), informers)
        .watches_changes::<Pod>(freed)
        .run(shutdown)
        .await;
}

#[async_trait]
impl Users for Pods {
    type Object = PersistentVolumeClaim;

    const FINALIZER: &str = "kubernetes.io/pvc-protection";

    async fn use_it(&self, claim: &PersistentVolumeClaim, context: &Context) -> Result<bool, Error> {
        let namespace = meta::namespace(&claim.metadata);
        for object in self.0.list_namespace(namespace) {
            if uses(&*object.typed::<Pod>()?, claim) {
                return Ok(true);
            }
        }
        // A pod that came a moment ago is not in the informer yet, and may be on its node already.
        let pods = context.api::<Pod>(namespace).list(ListOptions::default()).await?;
        Ok(pods.items.iter().any(|pod| uses(pod, claim)))
    }
}

/// The claims that a change of a pod may have set free.
fn freed(change: &Change) -> Vec<Key> {
    let versions = match change {
        Change::Deleted(pod) => vec![pod],
        Change::Updated { old, new } if old.meta().uid != new.meta().uid => vec![old, new],
        Change::Added(pod) | Change::Updated { new: pod, .. } if pod.meta().deletion_timestamp.is_some() => vec![pod],
        Change::Added(_) | Change::Updated { .. } => Vec::new(),
    };
    versions.into_iter().flat_map(|pod| claims(pod)).collect()
}

fn claims(object: &Object) -> Vec<Key> {
    let Ok(pod) = object.typed::<Pod>() else { return Vec::new() };
    let names = volumes(&pod).filter_map(|volume| named(volume).or_else(|| own(&pod, volume)));
    names.map(|name| (meta::namespace(&pod.metadata).to_owned(), name)).collect()
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The claim that a volume names.
fn named(volume: &Volume) -> Option<String> {
    Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())
}

/// The claim that is made for a generic ephemeral volume of a pod.
fn own(pod: &Pod, volume: &Volume) -> Option<String> {
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", meta::name(&pod.metadata), volume.name))
}

/// Whether a pod holds a claim. One without a node does not: no kubelet starts a pod whose claim is deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let is_it = |name: Option<String>| name.as_deref() == claim.metadata.name.as_deref();
    !pod::node_name(pod).is_empty()
        && volumes(pod).any(|volume| {
            is_it(named(volume))
                || !is_shut_down(pod)
                    && is_it(own(pod, volume))
                    && meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata))
        })
}

/// Whether its node is done with a pod: only the record of it is left.
fn is_shut_down(pod: &Pod) -> bool {
    meta::is_deleting(&pod.metadata) && pod.metadata.deletion_grace_period_seconds == Some(0)
}
