//! VolumeBinding: only nodes that the pod's volumes can be used on, and volumes for claims that waited for a node.
//!
//! A claim of a class that binds at once is the volume controller's to bind, and the pod waits for that. A claim of a class that waits for
//! its first consumer is told the chosen node (the annotation that dynamic provisioning starts from), and the pod is bound once
//! the claim is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use rk_api::{Api, Patch};
use serde_json::json;

use crate::{
    framework::{BindContext, ClusterEvent, CycleState, Filter, Hint, Plugin, PreBind, PreFilter, Status},
    model::{NodeInfo, NodeTerm, PodInfo, Snapshot, claims_of},
};

/// Checks a pod's claims, and has those provided that waited for a node.
#[derive(Debug, Clone)]
pub struct VolumeBinding {
    /// How long a pod waits for its claims to be bound before its node is given back.
    pub bind_timeout: Duration,
}

impl Default for VolumeBinding {
    fn default() -> Self {
        Self { bind_timeout: Duration::from_secs(600) }
    }
}

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// How often a claim is looked at that is being provided.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What Filter and PreBind need.
#[derive(Clone)]
struct Claims {
    /// For each bound volume: the terms of its node affinity, one of which a node must match.
    bound: Vec<Vec<NodeTerm>>,
    /// Volumes that claims are bound to and that are not there.
    missing: bool,
    /// Claims that wait for a node: the terms of their class's topologies, if it limits them.
    delayed: Vec<(String, Option<Vec<NodeTerm>>)>,
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let annotated = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BIND_COMPLETED));
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    volume_of(claim).is_some() && (annotated || phase == Some("Bound"))
}

fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// The terms a node has to match one of; `None` for no condition.
fn affinity(volume: &PersistentVolume) -> Option<Vec<NodeTerm>> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    Some(NodeTerm::all(&required.node_selector_terms))
}

impl VolumeBinding {
    /// Whether and where an unbound claim can be provided once a node is chosen.
    ///
    /// # Errors
    /// It is to be bound first, by others, or can't be provided at all.
    fn delayed(claim: &PersistentVolumeClaim, snapshot: &Snapshot) -> Result<Option<Vec<NodeTerm>>, Status> {
        let unbound = || Status::unresolvable("pod has unbound immediate PersistentVolumeClaims");
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
        let class = class.and_then(|name| snapshot.volumes.class(name)).ok_or_else(unbound)?;
        if class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer") {
            return Err(unbound());
        }
        if class.provisioner == "kubernetes.io/no-provisioner" {
            return Err(Status::unresolvable("node(s) didn't find available persistent volumes to bind"));
        }
        let topologies = class.allowed_topologies.as_deref().filter(|terms| !terms.is_empty());
        Ok(topologies.map(NodeTerm::of_topologies))
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn hint(&self, _pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::queue_if(match event {
            ClusterEvent::Object(object) => {
                matches!(object.kind(), "PersistentVolumeClaim" | "PersistentVolume" | "StorageClass")
            }
            ClusterEvent::NodeAdd(_) => true,
            ClusterEvent::NodeUpdate { old, new } => old.metadata.labels != new.metadata.labels,
            _ => false,
        })
    }
}

impl PreFilter for VolumeBinding {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Arc<str>>>, Status> {
        let names = claims_of(pod);
        if names.is_empty() {
            return Err(Status::skip());
        }
        let mut claims = Claims { bound: Vec::new(), missing: false, delayed: Vec::new() };
        for (name, own) in names {
            let refuse = |text: String| Err(Status::unresolvable(text));
            let Some(claim) = snapshot.volumes.claim(&pod.namespace, &name) else {
                return refuse(if own {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                } else {
                    format!("persistentvolumeclaim \"{name}\" not found")
                });
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return refuse(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let owner = claim.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
            if own && owner.is_none_or(|owner| owner.uid != pod.uid.as_ref()) {
                return refuse(format!(
                    "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                    pod.namespace, pod.namespace, pod.name
                ));
            }
            let volume = volume_of(claim);
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
                let volume = volume.unwrap_or_default();
                return refuse(format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
                ));
            }
            match volume.filter(|_| is_bound(claim)) {
                Some(volume) => match snapshot.volumes.volume(volume) {
                    Some(volume) => claims.bound.extend(affinity(volume)),
                    None => claims.missing = true,
                },
                None => claims.delayed.push((name, Self::delayed(claim, snapshot)?)),
            }
        }
        state.insert(claims);
        Ok(None)
    }
}

impl Filter for VolumeBinding {
    fn filter(&self, state: &CycleState, _pod: &PodInfo, node: &NodeInfo) -> Status {
        let Some(claims) = state.get::<Claims>() else { return Status::success() };
        if claims.missing {
            return Status::unresolvable("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
        }
        let allows = |terms: &Vec<NodeTerm>| terms.iter().any(|term| term.matches(&node.name, node.labels()));
        if !claims.bound.iter().all(allows) {
            return Status::unresolvable("node(s) didn't match PersistentVolume's node affinity");
        }
        if !claims.delayed.iter().filter_map(|(_, terms)| terms.as_ref()).all(allows) {
            return Status::unresolvable("node(s) didn't find available persistent volumes to bind");
        }
        Status::success()
    }
}

#[async_trait]
impl PreBind for VolumeBinding {
    async fn pre_bind(&self, context: &BindContext<'_>) -> Status {
        let Some(claims) = context.state.get::<Claims>() else { return Status::skip() };
        let api = Api::<PersistentVolumeClaim>::namespaced(Arc::clone(context.client), &context.pod.namespace);
        for (name, _) in &claims.delayed {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: context.node}}});
            if let Err(error) = api.patch(name, Patch::merge(patch)).await {
                return Status::error(error.to_string());
            }
        }
        let all_bound = async {
            for (name, _) in &claims.delayed {
                loop {
                    let claim = api.get(name).await.map_err(|error| Status::error(error.to_string()))?;
                    let annotations = claim.metadata.annotations.as_ref();
                    if is_bound(&claim) {
                        break;
                    }
                    // The provisioner takes the annotation away where it can't provide: another node is to be found.
                    if annotations.and_then(|a| a.get(SELECTED_NODE)).map(String::as_str) != Some(context.node) {
                        return Err(Status::error("provisioning failed for PVC ".to_owned() + name));
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(self.bind_timeout, all_bound).await {
            Ok(Ok(())) => Status::success(),
            Ok(Err(status)) => status,
            Err(_) => Status::error("timed out waiting for the pod's volumes to be bound"),
        }
    }
}
