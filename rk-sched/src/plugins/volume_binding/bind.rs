//! Writing what was promised to a pod's claims, and waiting until they are bound (`BindPodVolumes`).

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use rk_api::{Api, Client, Error, Patch};
use serde_json::{Value, json};

use super::claims::{PodClaims, Unbound};
use crate::{
    framework::BindContext,
    model::{
        VolumeInfo,
        volumes::{Assumed, ClaimKey, CsiNode, SELECTED_NODE, Subject, is_bound, selected_node, volume_of},
    },
};

/// The annotation of volumes whose claim was chosen for them, and not by who made them.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// How soon it is looked whether the claims are bound though nothing was heard of them; then after twice as long, up to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// Changes so soon after a look are looked at together.
const BREATH: Duration = Duration::from_millis(20);

/// What is to be done for a claim.
pub(super) struct Task {
    claim: Arc<PersistentVolumeClaim>,
    key: ClaimKey,
    /// The volume to bind it to; `None` if one is to be provided.
    volume: Option<Arc<VolumeInfo>>,
    /// Whether it is this pod that writes it, or another one that shares the claim.
    write: bool,
    csi: Arc<Option<CsiNode>>,
}

impl Task {
    pub(super) fn new(
        unbound: &Unbound,
        volume: Option<Arc<VolumeInfo>>,
        write: bool,
        csi: &Arc<Option<CsiNode>>,
    ) -> Self {
        Self { claim: Arc::clone(&unbound.claim), key: unbound.key.clone(), volume, write, csi: Arc::clone(csi) }
    }

    /// The claim's name.
    fn name(&self) -> &str {
        self.claim.metadata.name.as_deref().unwrap_or_default()
    }
}

/// Whether the API says already that a volume is a claim's and no other one's of that name.
pub(super) fn is_written(volume: &VolumeInfo, claim: &PersistentVolumeClaim) -> bool {
    volume.is_for(claim) && has_uid(volume)
}

fn has_uid(volume: &VolumeInfo) -> bool {
    volume.claim().and_then(|claim| claim.uid.as_deref()).is_some_and(|uid| !uid.is_empty())
}

/// What is written of.
struct Apis {
    pods: Api<Pod>,
    nodes: Api<Node>,
    volumes: Api<PersistentVolume>,
    claims: Api<PersistentVolumeClaim>,
}

impl Apis {
    fn new(client: &Arc<dyn Client>, namespace: &str) -> Self {
        Self {
            pods: Api::namespaced(Arc::clone(client), namespace),
            nodes: Api::all(Arc::clone(client)),
            volumes: Api::all(Arc::clone(client)),
            claims: Api::namespaced(Arc::clone(client), namespace),
        }
    }
}

/// Does what was promised and waits for it at most so long.
///
/// # Errors
/// Why it failed; the pod is to be scheduled again then.
pub(super) async fn bind(claims: &PodClaims, context: &BindContext<'_>, patience: Duration) -> Result<(), String> {
    let apis = Apis::new(context.client, &context.pod.namespace);
    let subjects = claims.tasks.iter().map(|task| task.key.subject());
    let volumes = claims.tasks.iter().filter_map(|task| Some(Subject::Volume(task.volume.as_ref()?.name.to_string())));
    let pod = Subject::Pod(context.pod.uid.to_string());
    let watch = claims.assumed.watched().watch(subjects.chain(volumes).chain([pod]).collect());
    let done = async {
        for task in claims.tasks.iter().filter(|task| task.write) {
            write(task, &apis, context.node, &claims.assumed).await.map_err(|error| error.to_string())?;
        }
        let mut pause = FIRST_LOOK;
        loop {
            match all_bound(claims, &apis, context).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // The claims say by now that they are for this node: it is not given away for a server that is away for a moment.
                Err(Trouble::Unanswered(text)) => {
                    let (pod, namespace) = (&context.pod.name, &context.pod.namespace);
                    tracing::warn!(error = text, %pod, %namespace, "not known whether the pod's claims are bound");
                }
                Err(Trouble::Failed(text)) => return Err(format!("binding volumes: {text}")),
            }
            tokio::time::sleep(BREATH).await;
            // The scheduler's informers tell of the objects; should they be behind, it is looked all the same.
            if tokio::time::timeout(pause, watch.changed()).await.is_err() {
                pause = (pause * 2).min(LONGEST_LOOK);
            }
        }
    };
    let ended = tokio::time::timeout(patience, done).await;
    ended.unwrap_or_else(|_| Err("binding volumes: context deadline exceeded".to_owned()))
}

/// Why it was not found out whether claims are bound.
enum Trouble {
    /// They won't be.
    Failed(String),
    /// The API gave no answer, or one that says nothing of the objects.
    Unanswered(String),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

/// What an error of the API tells of what was asked for.
fn trouble(what: &str, error: &Error) -> Trouble {
    let text = format!("{what}: {error}");
    // Timeouts and too many requests are no word on the object.
    let says = (400..500).contains(&error.code()) && !matches!(error.code(), 408 | 429);
    if says { Trouble::Failed(text) } else { Trouble::Unanswered(text) }
}

/// Writes a promise. The version says what was seen when it was made: where the object has changed since, the write fails.
async fn write(task: &Task, apis: &Apis, node: &str, assumed: &Assumed) -> Result<(), Error> {
    let Some(volume) = &task.volume else {
        let mut patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
        patch["metadata"]["resourceVersion"] = task.claim.metadata.resource_version.clone().into();
        let written = apis.claims.patch(task.name(), Patch::merge(patch)).await?;
        assumed.wrote_node(&task.key, written.metadata.resource_version.as_deref());
        return Ok(());
    };
    let written = apis.volumes.patch(&volume.name, Patch::merge(claim_patch(volume, &task.claim))).await?;
    assumed.wrote_volume(&volume.name, written.metadata.resource_version.as_deref());
    Ok(())
}

/// The change that gives a volume to a claim (`GetBindVolumeToClaim`).
fn claim_patch(volume: &VolumeInfo, claim: &PersistentVolumeClaim) -> Value {
    let meta = &claim.metadata;
    let mut patch = json!({
        "metadata": {"resourceVersion": volume.volume.metadata.resource_version},
        "spec": {"claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace, "name": meta.name,
            "uid": meta.uid, "resourceVersion": meta.resource_version,
        }},
    });
    if !volume.is_for(claim) {
        patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    patch
}

/// Whether all of the pod's claims are bound (`checkBindings`).
async fn all_bound(claims: &PodClaims, apis: &Apis, context: &BindContext<'_>) -> Result<bool, Trouble> {
    let name = &context.pod.name;
    match apis.pods.get_opt(name).await {
        Ok(Some(pod)) if pod.metadata.uid.as_deref() == Some(context.pod.uid.as_ref()) => {}
        Ok(_) => return Err(format!("pod does not exist any more: pod {name:?} not found").into()),
        Err(error) => return Err(trouble("failed to get the pod", &error)),
    }
    let failed = |error: Error| trouble(&format!("failed to get node {:?}", context.node), &error);
    let node = apis.nodes.get(context.node).await.map_err(failed)?;
    for task in claims.tasks.iter() {
        let bound = match &task.volume {
            Some(volume) => is_task_bound(task, volume, apis, &node, &claims.assumed).await?,
            None => is_provided(task, apis, &node, context.node, &claims.assumed).await?,
        };
        if !bound {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a claim is bound to the volume that was chosen for it.
async fn is_task_bound(
    task: &Task,
    volume: &VolumeInfo,
    apis: &Apis,
    node: &Node,
    assumed: &Assumed,
) -> Result<bool, Trouble> {
    let failed = |error: Error| trouble("failed to check binding", &error);
    let pending = assumed.is_pending(&volume.name, &task.key);
    let volume = VolumeInfo::new(apis.volumes.get(&volume.name).await.map_err(failed)?);
    let claim = apis.claims.get(task.name()).await.map_err(failed)?;
    check_affinity(&volume, task, node)?;
    if !is_written(&volume, &task.claim) {
        // Another pod that shares the claim is about to write it.
        return if pending { Ok(false) } else { Err(format!("ClaimRef got reset for pv {:?}", volume.name).into()) };
    }
    // Who else chose for the claim may have been first: the volume controller will free this one.
    if let Some(other) = volume_of(&claim).filter(|other| *other != &*volume.name) {
        return Err(format!("PVC {:?} was bound to another pv, {other:?}", task.name()).into());
    }
    Ok(is_bound(&claim))
}

/// Whether a volume was provided for a claim, and the claim is bound to it.
async fn is_provided(
    task: &Task,
    apis: &Apis,
    node: &Node,
    node_name: &str,
    assumed: &Assumed,
) -> Result<bool, Trouble> {
    let name = task.name();
    let pending = assumed.is_node_pending(&task.key);
    let failed = |error: Error| trouble("failed to check provisioning pvc", &error);
    let claim = apis.claims.get(name).await.map_err(failed)?;
    match selected_node(&claim) {
        Some(selected) if selected == node_name => {}
        _ if pending => return Ok(false),
        None if claim.metadata.annotations.is_none() => {
            return Err(format!("selectedNode annotation reset for PVC {name:?}").into());
        }
        // A provisioner that can't provide takes the annotation away: another node is to be found.
        _ => return Err(format!("provisioning failed for PVC {name:?}").into()),
    }
    if let Some(volume) = volume_of(&claim) {
        let failed = |error: Error| trouble(&format!("failed to get pv {volume:?}"), &error);
        match apis.volumes.get_opt(volume).await.map_err(failed)? {
            Some(volume) => check_affinity(&VolumeInfo::new(volume), task, node)?,
            None => return Ok(false),
        }
    }
    Ok(is_bound(&claim))
}

/// Whether a volume can be used on the node after all.
fn check_affinity(volume: &VolumeInfo, task: &Task, node: &Node) -> Result<(), String> {
    let (name, labels) = (node.metadata.name.as_deref().unwrap_or_default(), node.metadata.labels.clone());
    if volume.is_usable_with((*task.csi).as_ref(), name, &labels.unwrap_or_default()) {
        return Ok(());
    }
    let volume = &volume.name;
    Err(format!("pv {volume:?} node affinity doesn't match node {name:?}: no matching NodeSelectorTerms"))
}
