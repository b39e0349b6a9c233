//! Telling why a pod was not scheduled: its condition, its nominated node, and an event.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Pod, resource::v1::ResourceClaim};
use rk_api::{Api, DeleteOptions, Patch, Preconditions, object_reference};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Running;
use crate::{
    engine::{Cause, Eviction, Refusal},
    model::PodInfo,
};

/// A pod that could not be evicted.
pub(super) struct NotEvicted {
    preemptor: Arc<str>,
    victim: Arc<str>,
}

impl Running {
    /// A pod was left out because it is being deleted.
    pub(super) fn skipped(&self, pod: &PodInfo) {
        let message = format!("skip schedule deleting pod: {}/{}", pod.namespace, pod.name);
        self.recorder(pod).warning(&object_reference(&*pod.pod), "FailedScheduling", message);
    }

    /// A pod got no node.
    pub(super) fn refused(&self, refusal: &Refusal) {
        let (pod, message) = (&refusal.pod, refusal.message());
        if let Cause::Failed(_) = refusal.cause {
            tracing::warn!(pod = %pod.name, namespace = %pod.namespace, message, "error scheduling pod");
        } else {
            tracing::debug!(pod = %pod.name, namespace = %pod.namespace, message, "unable to schedule pod");
        }
        if let Some(eviction) = &refusal.eviction {
            self.evict(pod, eviction);
        }
        if let Some(claim) = &refusal.deallocation {
            self.deallocate(claim);
        }
        self.recorder(pod).warning(&object_reference(&*pod.pod), "FailedScheduling", message.as_str());
        let Some(patch) = status_patch(pod, refusal.nominated.as_ref(), refusal.reason(), &message) else { return };
        let api = Api::<Pod>::namespaced(Arc::clone(&self.client), &pod.namespace);
        let pod = Arc::clone(pod);
        tokio::spawn(async move {
            match api.patch_status(&pod.name, Patch::strategic(patch)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(%error, pod = %pod.name, namespace = %pod.namespace, "condition not written");
                }
            }
        });
    }

    /// Takes back the allocation of a claim, unless somebody has come to use it.
    fn deallocate(&self, claim: &Arc<ResourceClaim>) {
        let mut claim = (**claim).clone();
        if let Some(status) = &mut claim.status {
            (status.allocation, status.reserved_for, status.devices) = (None, None, None);
        }
        let namespace = claim.metadata.namespace.clone().unwrap_or_default();
        let api = Api::<ResourceClaim>::namespaced(Arc::clone(&self.client), &namespace);
        tokio::spawn(async move {
            match api.update_status(&claim).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, claim = ?claim.metadata.name, %namespace, "claim not deallocated"),
            }
        });
    }

    /// A pod that was to go stays.
    pub(super) fn not_evicted(&mut self, failure: &NotEvicted) {
        self.engine.not_evicted(&failure.preemptor, &failure.victim, Instant::now());
    }

    /// Deletes the pods that have to go for another.
    fn evict(&self, pod: &Arc<PodInfo>, eviction: &Eviction) {
        for victim in &eviction.victims {
            let victim = Arc::clone(victim);
            let message = format!("Preempted by pod {} on node {}", pod.uid, eviction.node);
            let preemptor = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name());
            let about = object_reference(&*victim.pod);
            let recorder = self.recorder(pod);
            let (failures, wanted_by) = (self.failures.0.clone(), Arc::clone(&pod.uid));
            let api = Api::<Pod>::namespaced(Arc::clone(&self.client), &victim.namespace);
            // Another pod may have the name by now.
            let uid = Some(victim.uid.to_string());
            let preconditions = Preconditions { uid, ..Preconditions::default() };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            tokio::spawn(async move {
                let condition = json!({"metadata": {"uid": victim.uid.as_ref()}, "status": {"conditions": [{
                    "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                    "message": preemptor, "lastTransitionTime": rk_api::now().to_string(),
                }]}});
                let told = api.patch_status(&victim.name, Patch::strategic(condition)).await;
                let gone = match told {
                    Ok(_) => api.delete(&victim.name, options).await.map(drop),
                    Err(error) => Err(error),
                };
                match gone {
                    Ok(()) => recorder.normal(&about, "Preempted", message),
                    Err(error) if error.is_not_found() => {}
                    // The pod that wanted the room is tried again, and so is the preemption.
                    Err(error) => {
                        tracing::warn!(%error, pod = %victim.name, namespace = %victim.namespace, "not preempted");
                        // The scheduler that would hear it may have stopped.
                        let _ = failures.send(NotEvicted { preemptor: wanted_by, victim: Arc::clone(&victim.uid) });
                    }
                }
            });
        }
    }
}

/// The change of the pod's status, `None` where it says all that already.
fn status_patch(pod: &PodInfo, nominated: Option<&Arc<str>>, reason: &str, message: &str) -> Option<Value> {
    let status = pod.pod.status.as_ref();
    let condition = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "PodScheduled");
    let said = condition.is_some_and(|condition| {
        condition.status == "False"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    });
    let same_node = pod.nominated_node_name() == nominated.map(AsRef::as_ref);
    if said && same_node {
        return None;
    }
    let since = condition.filter(|condition| condition.status == "False").and_then(|c| c.last_transition_time.clone());
    let since = since.map_or_else(rk_api::now, |time| time.0);
    // Another pod may have the name by now.
    let mut patch = json!({"metadata": {"uid": pod.uid.as_ref()}, "status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "observedGeneration": pod.pod.metadata.generation,
        "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since),
    }]}});
    if !same_node {
        patch["status"]["nominatedNodeName"] = nominated.map_or(Value::Null, |node| node.as_ref().into());
    }
    Some(patch)
}
